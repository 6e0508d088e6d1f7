"""Each measurement on a model that has the flaw, and on one that has not."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

from audit.examination import examine
from audit.examination.behaviour import Memory, batches, rounding, seeded
from audit.examination.frozen import Frozen
from audit.examination.nearby import stability
from audit.examination.ranges import other_ranges
from audit.examination.reach import eps_curve, pixel_radius
from audit.examination.slopes import differences
from audit.examination.vanishing import gradients
from audit.gates import fingerprint_model, profile
from audit.randomness import deterministic
from audit.types import ThreatModel
from tests.planted import Brightness, Noisy, Quantise, Staged, TinyCNN, images

EPS = 8 / 255
KEYS = {
    "examined", "random_by_seed", "seed_difference", "repeats_correct", "repeats_difference", "dynamic", "dynamic_in", "enables_gradients",
    "gradient_cut", "gradient_cut_at", "gradient_cut_shapes", "front_at", "bare_network_at", "gradient_snr", "draws_for_snr",
    "logit_range", "distinct_logits", "logit_step", "loss_gradients", "softmax_saturated", "ce_cosine_float64",
    "ce_cosine_rescaled", "difference_cosine", "difference_ratio", "slope_agreement", "loss_change", "linearity_gap", "gradient_cosine", "right_in_range",
    "eps_curve", "batch_difference", "batch_flips", "state_changes", "state_drift", "stateful",
}  # fmt: skip


class Around(nn.Module):
    """A network and what is done to its answers, with whatever memory `after` keeps on it."""

    def __init__(self, after, **memory) -> None:
        super().__init__()
        self.network, self.after = TinyCNN(), after
        vars(self).update(memory)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.network(x))


class Constant(torch.autograd.Function):
    """The identity, with a gradient of one whatever comes in."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return torch.ones_like(g)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = TinyCNN()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(Constant.apply(x))


class Staircase(nn.Module):
    """Many small jumps under a gradient that knows nothing of them, as behind a straight-through estimator."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyCNN()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x + ((20 * x).round() / 20 - x).detach())


class BatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.network = nn.BatchNorm2d(1, track_running_stats=False), TinyCNN()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.norm(x))


def posed(model: nn.Module, n: int = 16) -> tuple[Frozen, Tensor, Tensor]:
    return Frozen(model, 0), *images(model, n)


# the whole


def test_the_whole_is_plain_json_with_every_key_and_leaves_the_model_alone():
    model = TinyCNN()
    before, state = fingerprint_model(model), torch.get_rng_state()
    x, y = images(model, 12)
    seen = examine(model, x, y, ThreatModel("Linf", EPS), seed=0)
    assert set(seen) == KEYS
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen
    assert seen == examine(model, x, y, ThreatModel("Linf", EPS), seed=0)
    assert fingerprint_model(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert "examined" in profile(model, x, y, batch_size=5, seed=0, threat=ThreatModel("Linf", EPS))
    assert "examined" not in profile(model, x, y, batch_size=5, seed=0)


@pytest.mark.parametrize("norm", ["L2", "L1", "L0"])
def test_every_norm_can_be_examined(norm):
    model = TinyCNN()
    seen = examine(model, *images(model, 4), ThreatModel(norm, 2.0), seed=0)
    assert (seen["eps_curve"] is None) == (norm != "L2")


def test_a_model_that_is_always_wrong_is_examined_too():
    model = TinyCNN()
    x, y = images(model, 4)
    seen = examine(model, x, (y + 1) % 4, ThreatModel("Linf", EPS), seed=0)
    assert set(seen) == KEYS
    assert all(seen[name] is None for name in ("loss_gradients", "difference_cosine", "loss_change", "eps_curve"))


def test_a_rounded_image_counts_as_cut_in_the_profile():
    model = Staged(TinyCNN(), Quantise(4))
    x, y = images(model, 4)
    assert not profile(model, x, y, batch_size=4, seed=0)["gradient_cut"]
    assert profile(model, x, y, batch_size=4, seed=0, threat=ThreatModel("Linf", EPS))["gradient_cut"]


def test_a_pixel_radius_fits_into_the_ball():
    x = torch.full((2, 1, 8, 8), 0.5)
    for norm, power in (("Linf", math.inf), ("L2", 2), ("L1", 1)):
        moved = torch.full((64,), pixel_radius(ThreatModel(norm, 1.0), x))
        assert torch.linalg.vector_norm(moved, ord=power) == pytest.approx(1.0)


# answers


@pytest.mark.parametrize(("model", "depends"), [(TinyCNN(), False), (BatchStatistics(), True)])
def test_batches(model, depends):
    seen = batches(model, images(TinyCNN(), 16)[0], seed=0)
    assert (seen["batch_difference"] > 1e-4) == depends


@pytest.mark.parametrize(("model", "random"), [(TinyCNN(), False), (Noisy(TinyCNN()), True)])
def test_randomness_by_seed(model, random):
    seen = seeded(model, images(TinyCNN())[0], seed=0)
    assert (seen["random_by_seed"], seen["seed_difference"] > 1e-4) == (random, random)


def asked(model: nn.Module, passes: int = 10) -> dict:
    x, _ = images(TinyCNN())
    memory = Memory(model, x, seed=0)
    with torch.no_grad():
        for _ in range(passes):
            model(x)
    return memory.read()


def counts(self, z):
    self.seen += 1
    return z + (torch.eye(4)[0] * 5 if self.seen > 10 else 0)


def creeps(self, z):
    self.seen += torch.ones(())  # a tensor that is no buffer: only the answers give it away
    return z + 0.01 * self.seen * torch.eye(4)[0]


def grows(self, z):
    self.seen.append(len(z))
    return z


def remembers_the_last(self, z):
    self.last = z.detach()
    self.fresh = not self.fresh
    return z


def own_dice(self, z):
    return z + torch.randn(z.shape, generator=self.dice)


def test_memory_of_a_plain_network():
    assert asked(TinyCNN()) == {"state_changes": [], "state_drift": 0.0, "stateful": False}


@pytest.mark.parametrize(
    ("after", "memory", "changes"),
    [(counts, {"seen": 0}, ["seen"]), (creeps, {"seen": torch.zeros(())}, []), (grows, {"seen": []}, ["seen"])],
)
def test_memory_is_found_by_what_grows_or_by_answers_that_drift(after, memory, changes):
    seen = asked(Around(after, **memory))
    assert (seen["stateful"], seen["state_changes"]) == (True, changes)


@pytest.mark.parametrize(
    ("after", "memory"),
    [(remembers_the_last, {"last": None, "fresh": False}), (own_dice, {"dice": torch.Generator().manual_seed(0)})],
)
def test_a_cache_or_a_generator_is_no_memory(after, memory):
    assert not asked(Around(after, **memory))["stateful"]


def test_a_buffer_that_changes_is_memory():
    model = Around(lambda self, z: z)
    model.register_buffer("mean", torch.zeros(4))
    model.after = lambda self, z: z + 0 * self.mean.add_(1e-9)
    assert asked(model)["state_changes"] == ["mean"]


def test_a_model_with_memory_is_not_answered_from_memory():
    known = {"max_draw_difference": 0.0}
    assert deterministic(known, frozenset())
    assert not deterministic({**known, "stateful": True}, frozenset())


@pytest.mark.parametrize(
    ("decimals", "step"), [(None, None), (2, 0.01), (1, 0.1), (0, 1.0)]
)  # fmt: skip
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_rounding(decimals, step, scale):
    z = scale * torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    seen = rounding(z if decimals is None else z.round(decimals=decimals))
    assert seen["logit_step"] == (None if step is None else pytest.approx(step, rel=1e-3))
    assert seen["logit_range"] == pytest.approx([float(z.min()), float(z.max())], abs=1)


def test_continuous_logits_lie_on_no_grid():
    for seed in range(20):
        z = torch.randn(64, 10, generator=torch.Generator().manual_seed(seed))
        assert rounding(100 * z)["logit_step"] is None
        assert rounding(z)["distinct_logits"] > 0.9


def test_few_values_that_lie_on_no_grid():
    z = torch.tensor([0.0, 1.0, math.pi, 10.0])[torch.randint(4, (64, 10), generator=torch.Generator().manual_seed(0))]
    assert rounding(z) == {"logit_range": [0.0, 10.0], "distinct_logits": 4 / 640, "logit_step": None}


# gradients


def test_every_loss_of_a_plain_network_has_its_gradient():
    seen = gradients(*posed(TinyCNN()), EPS)
    assert all((s["zero"], s["zero_in_ball"], s["bad"]) == (0, 0, 0) for s in seen["loss_gradients"].values())
    assert set(seen["loss_gradients"]) == {"ce", "ce-rescaled", "ce-float64", "margin", "dlr"}
    assert seen["softmax_saturated"] == 0
    assert seen["ce_cosine_float64"] == pytest.approx(1, abs=1e-3)
    assert seen["ce_cosine_rescaled"] > 0.7


def test_saturation_takes_the_gradient_of_cross_entropy_alone():
    seen = gradients(*posed(TinyCNN(scale=1e4)), EPS)
    zero = {name: shares["zero"] for name, shares in seen["loss_gradients"].items()}
    assert zero["ce"] > 0.9
    assert zero["margin"] == zero["dlr"] == zero["ce-rescaled"] == 0
    assert seen["softmax_saturated"] > 0.9
    assert seen["ce_cosine_rescaled"] == 0


def test_a_gradient_that_is_no_number_is_counted():
    model = Around(lambda _, z: z + (z - z).abs().sqrt())  # the derivative of sqrt at 0 is infinite, times 0
    assert gradients(*posed(model), EPS)["loss_gradients"]["margin"]["bad"] == 1


def test_without_a_copy_in_float64_the_rest_is_measured():
    model = Around(lambda _, z: z.float() @ torch.eye(4))
    ask, x, y = posed(model)
    assert ask.widened(x) is None
    seen = gradients(ask, x, y, EPS)
    assert (seen["loss_gradients"]["ce-float64"], seen["ce_cosine_float64"]) == (None, None)
    assert seen["ce_cosine_rescaled"] is not None
    assert differences(ask, x, y, EPS)["difference_cosine"]["0.1"] > 0.9


@pytest.mark.parametrize("model", [TinyCNN(), TinyCNN(scale=1e4), Noisy(TinyCNN()), Brightness()])
def test_an_honest_gradient_is_the_slope(model):
    seen = differences(*posed(model), EPS)
    assert min(seen["difference_cosine"].values()) > 0.95
    assert all(0.8 < ratio < 1.25 for ratio in seen["difference_ratio"].values())


class _Blown(torch.autograd.Function):
    """The identity, whose derivative is given out a thousandfold."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, *grads):
        return 1000 * grads[0]


def test_a_gradient_that_explodes_lies_far_above_the_slope():
    seen = differences(*posed(Around(lambda _, z: _Blown.apply(z))), EPS)
    assert seen["difference_ratio"]["0.1"] == pytest.approx(1000, rel=0.25)


def test_a_constant_gradient_is_not_the_slope():
    seen = differences(*posed(Masked()), EPS)
    assert max(seen["difference_cosine"].values()) < 0.4
    assert seen["slope_agreement"] > 0.99


def test_a_missing_gradient_is_not_compared():
    ask, x, y = posed(Staged(TinyCNN(), Quantise(4)))
    assert set(differences(ask, x, y, EPS).values()) == {None}
    seen = stability(ask, x, y, EPS)
    assert seen["linearity_gap"] is None
    assert seen["loss_change"] > 0
    assert eps_curve(ask, x, y, ThreatModel("Linf", EPS)) == {"eps_curve": None}


def test_a_linear_model_is_linear_at_every_distance():
    seen = stability(*posed(Brightness()), EPS)
    assert max(seen["linearity_gap"].values()) < 1e-4
    assert min(seen["gradient_cosine"].values()) > 0.9999


def test_a_rough_loss_has_no_slope():
    rough, smooth = (differences(*posed(model), EPS) for model in (Staircase(), TinyCNN()))
    assert rough["slope_agreement"] < 0.5 < 0.95 < smooth["slope_agreement"]
    assert rough["difference_cosine"]["0.1"] < 0.4


# the curve


def test_a_larger_ball_breaks_more_until_nothing_is_left():
    ask, x, y = posed(TinyCNN(), 32)
    curve = eps_curve(ask, x, y, ThreatModel("Linf", 0.02))["eps_curve"]
    assert [point["eps"] for point in curve] == pytest.approx([0.005, 0.01, 0.02, 0.04, 0.08, 0.5], abs=2e-3)
    left = [point["accuracy"] for point in curve]
    assert left == sorted(left, reverse=True)
    assert left[0] > left[-1] == 0
    assert {point["n"] for point in curve} == {len(x)}


def test_a_masked_gradient_breaks_less_than_an_honest_one():
    honest, masked = TinyCNN(), Masked()
    left = [eps_curve(*posed(m, 32), ThreatModel("Linf", 0.1))["eps_curve"][2]["accuracy"] for m in (honest, masked)]
    assert left[0] < left[1]


class Stretched(torch.nn.Module):
    """Expects pixels from 0 to `top`, and takes none above `most`."""

    def __init__(self, body, top, most=1e9):
        super().__init__()
        self.body, self.top, self.most = body, top, most

    def forward(self, x):
        if float(x.max()) > self.most:
            raise ValueError("pixels too large")
        return self.body(x / self.top)


def test_other_ranges_of_pixels_are_tried():
    model = TinyCNN()
    x, y = images(model, 12)
    found = other_ranges(Stretched(model, 255), x, y, seed=0)["right_in_range"]
    assert found["0,255"] == 1.0
    assert other_ranges(Stretched(model, 1, most=2), x, y, seed=0)["right_in_range"]["0,255"] is None
