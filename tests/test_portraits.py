"""What is measured of a finished run to be looked at: right where the answer is known, and never in the way of the run."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from audit import run
from audit.engine import Target
from audit.errors import Unsupported
from audit.examination.frozen import Frozen
from audit.gates import fingerprint_model
from audit.plan import Plan
from audit.portraits import draw, features, losses
from audit.portraits.attention import attention
from audit.portraits.draw import FILE, Sitting
from audit.portraits.features import as_noisy, flat, moved, strangers
from audit.portraits.found import Found, changed, one_each, spread
from audit.portraits.history import training_table
from audit.portraits.increments import increments
from audit.portraits.layers import inputs_at, operations, places
from audit.testing import Linear
from audit.types import ThreatModel
from audit.verify import reverify
from tests.planted import Brightness, Noisy, Quantise, SignStep, Staged, TinyCNN, UniformNoise

pytestmark = pytest.mark.usefixtures("undrawn")

ALL = {"attention", "features", "channels", "losses", "surface"}


class Averaged(nn.Module):
    """Two 1x1 channels, x and x / 2; the logits are plus and minus the mean of the first."""

    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, 0.5]).view(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        self.eval()

    def forward(self, x):
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


class Silent(nn.Module):
    """A network that cuts its own gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TinyCNN()
        self.eval()

    @torch.no_grad()
    def forward(self, x):
        return self.inner(x)


class Detached(nn.Module):
    """A purifier that changes nothing and cuts the gradient."""

    def forward(self, x):
        return x.detach()


class Moody(nn.Module):
    """Fails on any batch but single images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TinyCNN()
        self.eval()

    def forward(self, x):
        if len(x) > 1:
            raise ValueError("one at a\ntime")
        return self.inner(x)


def posed(model: nn.Module, *, n: int = 12, draws: int = 1, norm: str = "Linf", channels: int = 1) -> Sitting:
    x = torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    torch.manual_seed(0)  # of random models
    with torch.no_grad():
        y = torch.cat([model(image[None]) for image in x]).argmax(1)
    found = [Found(i, f"step-{i % 2}", (x[i] + 0.05).numpy(), 1) for i in range(0, n, 2)]
    identity = {"seed": 0, "norm": norm, "eps": 10 if norm == "L0" else 0.1, "n": n, "batch_size": 8, "draws": draws}
    return Sitting(Plan(identity, (), {}), Target(model, x, y, frozenset()), found)


def test_attention_is_the_channel_that_speaks_for_the_class():
    x = torch.rand(3, 1, 4, 4)
    for model in Averaged(), Averaged(inplace=True), Averaged().requires_grad_(False):
        heat = attention(model, "conv", x, torch.tensor([0, 0, 1]))
        assert torch.allclose(heat[:2], x[:2, 0] / x[:2].amax((1, 2, 3)).view(2, 1, 1), atol=1e-6)
        assert not heat[2].any()  # nothing speaks for the second class
        assert x.grad is None
        assert not model.conv._forward_hooks


class Shifted(nn.Module):
    """One channel, x - 0.5, through an activation that is a module, a function or none; the logits: plus and minus its mean."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.conv, self.norm = how, nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, affine=False)
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.conv.bias.fill_(-0.5)
        self.eval()

    def forward(self, x):
        maps = self.norm(self.conv(x))
        if self.how == "pool":
            maps = F.max_pool2d(maps, 2)
        elif self.how == "shortcut":
            maps = torch.zeros_like(maps) + maps
        if self.how != "none":
            maps = F.relu(maps, inplace=self.how == "inplace")
        mean = maps.mean((2, 3))
        return torch.cat([mean, -mean], 1)


@pytest.mark.parametrize("how", ["function", "inplace", "shortcut"])
def test_attention_looks_behind_the_activation(how):
    x = torch.tensor([[[[0.0, 0.4], [0.5, 0.9]]]])
    heat = attention(Shifted(how), "conv", x, torch.tensor([1]))
    assert not heat.any()  # no positive map speaks for the second class; the negative ones before the activation would
    assert attention(Shifted(how), "conv", x, torch.tensor([0]))[0].tolist() == [[0, 0], [0, 1]]


def test_attention_follows_through_pooling_and_makes_do_without_an_activation():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 3, 3] = 1
    heat = attention(Shifted("pool"), "conv", x, torch.tensor([0]))[0]
    assert heat.argmax() == 15
    assert heat[0, 0] == 0
    assert attention(Shifted("none"), "conv", x, torch.tensor([1]))[0, 0, 0] == 1


def test_attention_needs_a_gradient():
    with pytest.raises(Unsupported, match=r"no gradient leads from the logits to layer 'inner\.body\.2'"):
        attention(Silent(), "inner.body.2", torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.long))


def test_the_last_layers_are_found_in_any_network():
    assert places(TinyCNN(), torch.rand(1, 1, 8, 8)) == ("body.2", "head")
    assert places(Brightness(), torch.rand(1, 1, 8, 8)) == (None, None)
    staged = Staged(TinyCNN(), Quantise())
    assert places(staged, torch.rand(1, 1, 8, 8)) == ("network.body.2", "network.head")
    model, x = TinyCNN(), torch.rand(5, 1, 8, 8)
    assert torch.allclose(F.linear(inputs_at(model, "head", x), model.head.weight, model.head.bias), model(x))


def test_a_costly_network_is_measured_on_fewer_images(monkeypatch):
    assert operations(TinyCNN(), torch.rand(1, 1, 8, 8)) == 64 * 6 * 9 + 9 * 6 * 54 + 54 * 4
    assert operations(Brightness(), torch.rand(1, 1, 8, 8)) == 0
    for cost, rows in ((1, 200), (16e9 / 50, 50), (1e12, 16)):
        sitting = posed(TinyCNN())
        sitting.cost = cost
        assert sitting._afford(16, draw.FEWEST, draw.MOST) == rows
    assert posed(Moody()).cost > 1
    monkeypatch.setattr(draw, "operations", lambda *_: 1 // 0)
    assert posed(TinyCNN()).cost == 1


def test_channels_move_by_the_mean_change():
    before, after = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    after[0, 1], after[1, 1, 0, 0] = 1.0, -4.0
    assert moved(before, after).tolist() == [0.0, 1.0, 0.0]
    clean = torch.full((2, 1, 3, 3), 0.5)
    noisy = as_noisy(clean, clean + torch.tensor([0.1, 0.2]).view(2, 1, 1, 1))
    assert torch.allclose((noisy - clean).abs().flatten(1), torch.tensor([[0.1], [0.2]]).expand(2, 9))


def test_strangers_lie_nearest_to_another_class():
    clean, labels = np.asarray([[0.0, 0.0], [10.0, 0.0]]), np.asarray([0, 1])
    found = strangers(clean, labels, np.asarray([[1.0, 0.0], [9.0, 0.0], [9.0, 0.0]]), np.asarray([0, 0, 1]))
    assert found.tolist() == [False, True, False]


@pytest.mark.parametrize("sklearn", [True, False])
def test_the_map_keeps_clusters_apart_with_and_without_scikit_learn(monkeypatch, sklearn):
    if sklearn:
        pytest.importorskip("sklearn")
    else:
        monkeypatch.setattr(features, "find_spec", lambda name: None)
    dice = np.random.default_rng(0)
    points = dice.normal(size=(40, 6)) + np.repeat([[0.0], [30.0]], 20, 0)
    place, method = flat(points, 3)
    assert method == ("t-SNE" if sklearn else "PCA")
    assert place.shape == (40, 2)
    near = np.linalg.norm(place[:, None] - place[None], axis=2) + np.diag(np.full(40, np.inf))
    assert ((near.argmin(1) < 20) == (np.arange(40) < 20)).all()
    assert np.array_equal(place, flat(points, 3)[0])


def test_the_map_of_equal_and_of_flat_points_exists():
    assert flat(np.zeros((9, 4)), 0)[0].shape == (9, 2)
    assert flat(np.arange(9.0)[:, None], 0)[0].shape == (9, 2)


def linear() -> tuple[Linear, torch.Tensor, torch.Tensor]:
    weight = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    x = torch.tensor([[[[0.5, 0.4], [0.6, 0.5]]]])
    return Linear(weight, torch.tensor([1.0, 0.0])).eval(), x, torch.tensor([0])


def test_losses_and_gradients_of_a_linear_model():
    model, x, y = linear()
    (found,) = losses.both_losses(model(x), y)
    margin = 1.0 + 0.5 - 0.8 + 0.3
    assert found[1] == pytest.approx(margin, abs=1e-6)
    assert found[0] == pytest.approx(float(np.log1p(np.exp(-margin))), abs=1e-6)
    assert losses.both_losses(torch.tensor([[200.0, 0.0]]), y).tolist() == [[0.0, 200.0]]
    norms = losses.gradient_norms(Frozen(model, 0), x, y)
    length = (1 + 4 + 0.25) ** 0.5
    assert norms[0] == pytest.approx([length / (1 + np.exp(margin)), length], rel=1e-5)


@pytest.mark.parametrize(("norm", "drop"), [("Linf", 3.5), ("L2", 5.25**0.5), ("L1", 5.25 / 3.5)])
def test_the_surface_of_a_linear_model_falls_along_its_gradient(norm, drop):
    model, x, y = linear()
    found = losses.surface(Frozen(model, 0), Frozen(model, 0), x, y, ThreatModel(norm, 0.1))
    values = found["surface"]
    assert found["along"] == "gradient"
    assert values.shape == (2, losses.SIDE, losses.SIDE)
    middle = losses.SIDE // 2
    assert values[1, middle, middle] == pytest.approx(1.0, abs=1e-6)
    assert values[1, -1, middle] == pytest.approx(1.0 - 0.1 * drop, abs=1e-5)
    assert values[1, 0, middle] == pytest.approx(1.0 + 0.1 * drop, abs=1e-5)
    far = found["surface_distance"]
    assert far[middle, middle] == pytest.approx(0.0, abs=1e-5)
    assert [far[-1, middle], far[middle, 0]] == pytest.approx([1.0, 1.0], abs=1e-5)
    if norm == "Linf":  # both directions are signs: somewhere they agree, and somewhere they do not
        a, b = np.meshgrid(np.linspace(-1, 1, losses.SIDE), np.linspace(-1, 1, losses.SIDE))
        assert (far <= abs(a) + abs(b) + 1e-5).all()
        assert far.max() == pytest.approx(2.0, abs=1e-5)


def test_steps_up_the_gradient_move_a_linear_model_at_once_and_then_nothing_more():
    model, x, y = linear()
    ask = Frozen(model, 0)
    attack, noise = increments(ask, model, x, y, ThreatModel("Linf", 0.1))
    assert attack[:4] == pytest.approx(
        [0.25 * 0.1 * 3.5 / 2] * 4, rel=1e-4
    )  # half of the maps, the second logit, is constant
    assert attack[4:] == pytest.approx([0.0] * 6, abs=1e-7)  # the corner of the ball is reached
    assert 0 < noise.mean() < attack[0]
    assert increments(ask, model, x, y, ThreatModel("L0", 2)) is None
    blind = Frozen(Staged(model, Detached()), 0)
    assert increments(blind, model, x, y, ThreatModel("Linf", 0.1)) is None


def test_without_a_gradient_the_surface_takes_two_random_directions():
    model = Brightness()
    x, y = torch.rand(1, 1, 8, 8), torch.tensor([1])
    blind = Frozen(Staged(model, Quantise(1)), 0)
    assert losses.surface(Frozen(model, 0), blind, x, y, ThreatModel("Linf", 0.1))["along"] == "random"


def test_a_choice_takes_turns_over_steps_and_classes():
    found = [Found(i, "a" if i < 8 else "b", np.zeros((1, 1, 1), np.float32), 0) for i in range(10)]
    chosen = spread([*found, found[0]], np.asarray([0, 0, 0, 0, 1, 1, 1, 1, 0, 1]), 5)
    assert [f.id for f in chosen] == [0, 9, 1, 8, 4]
    assert changed(found, np.asarray([[[[i % 2]]] for i in range(10)], np.float32)) == found[1::2]
    again = Found(3, "later", np.ones((1, 1, 1), np.float32), 1)
    assert [(f.id, f.step) for f in one_each([found[5], found[3], again], 5)] == [(3, "a")]


def test_a_table_beside_the_weights_is_read_and_anything_else_is_not(tmp_path):
    weights, table = tmp_path / "net.safetensors", tmp_path / "net.csv"
    assert training_table(weights) is None
    table.write_text("epoch,loss\n1,0.5\n2,0.25\n")
    assert training_table(weights) == {"columns": ["epoch", "loss"], "rows": [[1.0, 0.5], [2.0, 0.25]]}
    for other in (
        "epoch,loss\n",
        "",
        "name,loss\n1,2\n",
        "epoch,loss\n1\n",
        "epoch,loss\n1,x\n",
        "epoch,loss\n1,nan\n",
        "epoch\n1\n",
    ):
        table.write_text(other)
        assert training_table(weights) is None, other
    table.write_bytes(b"\xff\xfe\x00\x80")
    assert training_table(weights) is None
    table.write_text("epoch,loss\n" + "".join(f"{i},1\n" for i in range(2000)))
    rows = training_table(weights)["rows"]
    assert (len(rows), rows[0][0], rows[-1][0]) == (500, 0.0, 1999.0)


def test_a_model_that_allows_everything_is_measured_whole_and_left_alone():
    sitting = posed(TinyCNN())
    model = sitting.target.model
    before, dice = fingerprint_model(model), (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    arrays, about = sitting.all()
    assert about["notes"] == {}
    assert arrays["attention_images"].shape == (6, 2, 1, 8, 8)
    assert about["attention_views"] == ["clean", "adversarial"]
    assert arrays["points"].shape == (18, 2)
    assert "bare_points" not in arrays  # there is no test-time part to do without
    assert arrays["channels"].shape == (2, 6)
    assert arrays["increments"].shape == (2, 10)
    assert arrays["losses_clean"].shape == arrays["norms"].shape == (12, 2)
    assert arrays["surface"].shape == (2, 15, 15)
    assert fingerprint_model(model) == before
    assert not any(part._forward_hooks for part in model.modules())
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), dice[0])
    assert np.array_equal(np.random.get_state()[1], dice[1])
    assert random.getstate() == dice[2]


def same(one, other) -> bool:
    return (
        one[0].keys() == other[0].keys()
        and all(np.array_equal(a, other[0][k]) for k, a in one[0].items())
        and one[1] == other[1]
    )


@pytest.mark.parametrize("model", [TinyCNN(), Noisy(TinyCNN()), Staged(TinyCNN(), UniformNoise())])
def test_the_same_portraits_twice(model):
    assert same(posed(model, draws=4).all(), posed(model, draws=4).all())


def test_a_test_time_part_adds_its_pictures():
    network = TinyCNN()
    arrays, about = posed(Staged(network, SignStep(network))).all()
    assert about["notes"] == {}
    assert about["attention_views"] == ["clean", "adversarial", "clean, purified", "adversarial, purified"]
    assert about["behind"]
    assert about["norms_of"] == about["surface_of"] == "the defense"
    assert arrays["bare_points"].shape == arrays["points"].shape
    assert arrays["bare_strangers"].shape == arrays["strangers"].shape
    assert arrays["attention_heat"].shape == (6, 4, 8, 8)
    cut = posed(Staged(network, Detached())).all()[1]
    assert cut["norms_of"] == cut["surface_of"] == "the bare network"
    assert posed(Staged(TinyCNN(), UniformNoise()), draws=4).all()[1]["attention_views"][2] == "clean, noised"


@pytest.mark.parametrize(
    ("model", "left_out", "why"),
    [
        (Brightness(), {"attention", "channels", "features"}, "no two-dimensional convolution"),
        (Silent(), {"attention", "norms"}, "no gradient leads from the logits"),
        (Moody(), ALL, "ValueError: one at a time"),
    ],
)
def test_what_a_model_does_not_allow_is_left_out_with_a_sentence(model, left_out, why):
    arrays, about = posed(model).all()
    assert about["notes"].keys() == left_out
    assert why in about["notes"]["attention"]
    assert "\n" not in "".join(about["notes"].values())
    if left_out != ALL:
        assert len(arrays["losses_clean"]) == 12
    assert ("norms" in arrays) == isinstance(model, Brightness)


def test_without_a_broken_image_the_rest_is_measured():
    sitting = posed(TinyCNN())
    sitting.few, sitting.pairs = [], []
    arrays, about = sitting.all()
    assert about["notes"] == dict.fromkeys(("attention", "features", "channels"), draw.NOTHING_BROKEN)
    assert {"losses_clean", "norms", "surface", "surface_distance"} == set(arrays)


@pytest.mark.parametrize("norm", ["L2", "L1", "L0"])
def test_every_norm_has_its_surface(norm):
    assert "surface" not in posed(TinyCNN(), norm=norm).all()[1]["notes"]


@pytest.fixture(scope="module")
def finished(audited):
    return audited("undefended")


def test_a_finished_run_holds_its_portraits_and_its_training_table(finished):
    with np.load(finished.path / FILE) as stored:
        about = json.loads(str(stored["about"]))
        assert stored["points"].shape[1] == 2
    assert about["notes"] == {}
    assert about["training"]["columns"][:3] == ["epoch", "loss", "train_accuracy"]
    assert len(about["training"]["rows"]) == 14  # as the recipe's epochs
    assert finished.results.checks["model_unchanged"]
    assert reverify(finished.path)["rejected"] == 0
    with np.load(finished.path / "gallery.npz") as stored:
        assert stored["views"].tolist() == ["clean", "adversarial"]
        assert np.array_equal(stored["answers"][:, 1], stored["prediction"])
        assert (stored["answers"][:, 0] == stored["label"]).all()
        assert ((stored["confidences"] > 0.1) & (stored["confidences"] <= 1)).all()


def test_portraits_are_measured_once_and_again_when_damaged(finished, monkeypatch):
    path = finished.path / FILE
    whole = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Sitting, "all", lambda self: pytest.fail("measured again"))
        run("undefended", suite="quick", n=20, out=finished.path)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:200])
    run("undefended", suite="quick", n=20, out=finished.path)
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_an_unfinished_run_and_a_reference_have_none(tmp_path):
    from audit.budget import Budget

    budget = Budget(passes=1)
    unfinished = run("undefended", suite="quick", n=4, out=tmp_path / "r", budget=budget)
    assert unfinished.results.missing
    assert not (tmp_path / "r" / FILE).exists()
    run("undefended", suite="quick", n=4, out=tmp_path / "r", reference="pgd_at")
    assert [path.parent.name for path in (tmp_path / "r").rglob(FILE)] == ["r"]


def test_the_table_of_a_fresh_training_is_the_one_that_is_read(tmp_path):
    """`audit train` and the reader agree on name and columns."""
    from audit.training import _write_table
    from defenses.recipes import Epoch

    _write_table(tmp_path / "net.csv", [Epoch(1, 0.5, 0.8, 1e-3, 2.0, {"probe_clean": 0.7})])
    table = training_table(tmp_path / "net.safetensors")
    assert table == {
        "columns": ["epoch", "loss", "train_accuracy", "learning_rate", "seconds", "probe_clean"],
        "rows": [[1, 0.5, 0.8, 0.001, 2, 0.7]],
    }
