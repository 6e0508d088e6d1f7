"""What ART may see of a model, and what must pass through it untouched."""

import pytest
import torch
from torch import nn

from adapters.probe import AllBroken
from audit import registry
from audit.attacks.art_estimator import Estimator, Spent, Watched, pull_back
from audit.geometry import distance
from audit.linear import linear_problem
from audit.types import ThreatModel
from tests.planted import Brightness, Counting, TinyCNN, dark, images
from tests.test_attacks import SHORT

NAMES = ("cw-l0", "cw-l2", "cw-linf", "hopskipjump", "boundary", "zoo")


class Strict(nn.Module):
    """Insists on float32 in the box, and on no gradient where `blind`; monotone changes of the logits by `scale`."""

    def __init__(self, model, *, blind=False, scale=1.0):
        super().__init__()
        self.model, self.blind, self.scale = model, blind, scale
        self.eval()

    def forward(self, x):
        assert x.dtype == torch.float32
        assert float(x.detach().min()) >= 0
        assert float(x.detach().max()) <= 1
        assert not (self.blind and x.requires_grad)
        return self.scale * self.model(x)


class Ends(nn.Module):
    """Ends every attack at its fifth pass, as the probe does when all images are broken."""

    def __init__(self, model):
        super().__init__()
        self.model, self.passes = model, 0
        self.eval()

    def forward(self, x):
        self.passes += 1
        if self.passes == 5:
            raise AllBroken
        return self.model(x)


def call(name, model, x, y):
    attack = registry.attacks.load(name)
    short = {key: value for key, value in SHORT[name].items() if key in attack.defaults}
    short.update({"queries": 150} if "queries" in short else {"steps": 3})
    return attack(model, x, y, ThreatModel(attack.norms[0], 1.0), seed=0, **short)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_gets_float32_of_any_shape_and_keeps_its_gradients(name):
    torch.manual_seed(0)
    layer = nn.Linear(3 * 7 * 5, 3)
    layer.weight.grad = kept = torch.ones_like(layer.weight)
    model, x = Strict(nn.Sequential(nn.Flatten(), layer).eval(), blind=name in NAMES[3:]), torch.rand(2, 3, 7, 5)
    found = call(name, model, x, model(x).argmax(1))
    assert (model(found).argmax(1) != model(x).argmax(1)).any()
    assert layer.weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))


@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_the_attack_passes_through(name):
    model = TinyCNN()
    x, y = images(model, 2)
    with pytest.raises(AllBroken):
        call(name, Ends(model), x, y)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_is_broken_already_comes_back_as_it_is(name):
    model = TinyCNN()
    x, y = images(model, 2)
    found = call(name, model, x, torch.stack([(y[0] + 1) % 4, y[1]]))
    assert torch.equal(found[0], x[0])


@pytest.mark.parametrize("name", ["hopskipjump", "boundary"])
def test_decisions_are_all_that_a_decision_attack_sees(name):
    model = TinyCNN()
    x, y = images(model, 2)
    assert torch.equal(call(name, Strict(model), x, y), call(name, Strict(model, scale=64.0), x, y))


def test_a_start_is_found_where_uniform_noise_is_none():
    """The mean of uniform noise is one half, always: the network takes all of it for class 0."""

    class Bright(nn.Module):
        def forward(self, x):
            excess = 10 * (x.flatten(1).mean(1) - 0.75)
            return torch.stack([-excess, excess], 1)

    x = torch.full((1, 1, 8, 8), 0.25)
    found = call("boundary", Bright().eval(), x, torch.tensor([0]))
    assert float(found.mean()) >= 0.75


def test_no_more_than_the_queries_are_asked_and_the_nearest_is_kept():
    model, (x, y) = Counting(Brightness()), dark(1)  # brightness 0.4; the boundary is at 0.5
    asked = torch.cat([x + away for away in (0.05, 0.3, 0.15, 0.2, 0.02, 0.11, 0.12, 0.13, 0.14)])
    eye = Watched(model, x, y, "L2", queries=5, decision=True)
    model.rows = 0  # it has looked how many classes there are
    with pytest.raises(Spent):
        eye.predict(asked.numpy())
    assert model.rows == 5
    assert torch.equal(eye.nearest, asked[2:3])  # nearer ones either fool nobody or come too late
    assert float(distance(eye.nearest, x, "L2")) == pytest.approx(eye.reach)


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_pulling_back_ends_on_the_boundary_and_leaves_what_is_no_success(norm):
    model, x, y = linear_problem(0)
    x = x.detach()
    far = (x - 0.3 * (model.weight[y] - model.weight[(y + 1) % 4]).detach().sign().view_as(x)).clamp(0, 1)
    broken = model(far).argmax(1) != y
    assert broken.any()
    near = pull_back(Estimator(model, x), x, torch.where(broken.view(-1, 1, 1, 1), far, x), y, norm)
    assert ((model(near).argmax(1) != y) == broken).all()
    assert (distance(near, x, norm)[broken] < distance(far, x, norm)[broken]).all()
