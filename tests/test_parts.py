import pytest
import torch
from torch import nn

from adapters.front import Front
from adapters.inner import Inner
from adapters.learned import Learned
from adapters.parts import last_network
from adapters.smooth import Smooth
from audit.errors import BadInput
from defenses.co_noise.noise import Noise
from tests.planted import TinyCNN


class Rounded(nn.Module):
    """Rounds its input in its own code, so that no submodule is to blame."""

    def __init__(self, levels: int = 8, after: bool = False) -> None:
        super().__init__()
        self.body, self.levels, self.after = TinyCNN(), levels, after
        self.eval()

    def forward(self, x):
        logits = self.body(torch.round(x * self.levels) / self.levels)
        return torch.round(logits * 100) / 100 if self.after else logits


class Coded(nn.Module):
    """Turns each pixel into three bits before its network."""

    def __init__(self) -> None:
        super().__init__()
        self.body = TinyCNN(channels=3)
        self.eval()

    def forward(self, x):
        return self.body(torch.cat([(x > level).float() for level in (0.25, 0.5, 0.75)], 1))


X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Noisy(nn.Module):
    """Noise in the code before the network and dropout in it: both draw anew in each pass."""

    def __init__(self):
        super().__init__()
        self.noise, self.body = Noise(0.1), nn.Sequential(TinyCNN(), Dropped())
        self.eval()

    def forward(self, x):
        return self.body(self.noise(x))


class Dropped(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.rand_like(x)


def gradient(model, x=X):
    images = x.clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(model(images)[:, 0].sum(), images)[0]


def test_the_network_inside_is_found_and_no_hook_stays():
    model = Rounded()
    assert last_network(model, X) == "body"
    assert not any(part._forward_hooks for part in model.modules())


def test_a_network_whose_answer_is_changed_afterwards_is_not_the_last():
    model = Rounded(after=True)
    assert last_network(model, X) is None


def test_the_last_network_may_take_something_else_than_images():
    assert last_network(Coded(), X) == "body"


def test_a_plain_network_has_none():
    assert last_network(TinyCNN(), X) is None


def test_inner_answers_as_the_network_inside():
    model = Rounded()
    assert torch.equal(Inner(model, "body")(X), model.body(X))
    with pytest.raises(BadInput, match="no submodule 'boddy'"):
        Inner(model, "boddy")


def test_front_keeps_the_forward_and_gives_the_gradient_at_what_the_network_is_given():
    model = Rounded(levels=2)  # coarse, so that the gradient there is not the one at the images
    assert not gradient(model).any()
    wrapped = Front(model, "body")
    assert torch.equal(wrapped(X), model(X))
    given = torch.round(X * 2) / 2
    assert torch.allclose(gradient(wrapped), gradient(model.body, given))
    assert not torch.allclose(gradient(wrapped), gradient(model.body))


@pytest.mark.slow
def test_a_learned_front_points_uphill_where_identity_does_not_fit():
    model = Coded()
    with pytest.raises(BadInput, match="use substitute 'learned'"):
        gradient(Front(model, "body"))
    wrapped = Front(model, "body", "learned")
    assert torch.equal(wrapped(X.clone().requires_grad_()), model(X))
    step = 0.2 * gradient(wrapped).sign()
    after, before = model((X + step).clamp(0, 1))[:, 0], model((X - step).clamp(0, 1))[:, 0]
    assert float((after - before).detach().mean()) > 0.1
    assert torch.equal(gradient(Front(model, "body", "learned")), gradient(wrapped))  # seeded


@pytest.mark.slow
@pytest.mark.parametrize("substitute", ["identity", "learned"])
@pytest.mark.parametrize("own", [False, True])
def test_a_random_model_draws_behind_front_what_it_draws_alone(substitute, own):
    """On 70 rows, more than a surrogate is fitted on; from torch's generator, and from one generator for each row."""
    model, x = Noisy(), X.repeat(12, 1, 1, 1)[:70]

    def two_passes(asked):
        torch.manual_seed(3)
        model.noise.generators = [torch.Generator().manual_seed(i) for i in range(70)] if own else None
        found = [asked(x.clone().requires_grad_()).detach() for _ in range(2)]
        return found, torch.get_rng_state()

    alone, state = two_passes(model)
    wrapped, behind = two_passes(Front(model, "body", substitute))
    assert not torch.equal(*alone)
    assert all(torch.equal(a, b) for a, b in zip(alone, wrapped, strict=True))
    assert torch.equal(state, behind)


def test_front_refuses_a_network_that_took_no_part():
    model = nn.ModuleDict({"used": TinyCNN(), "idle": TinyCNN()})
    model.forward = lambda x: model["used"](x)
    with pytest.raises(BadInput, match="was not called on all 6 images"):
        Front(model, "idle")(X)


def test_learned_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    learned = Learned()
    learned.fit(lambda x: 2 * x, X)
    assert torch.equal(torch.get_rng_state(), before)
    assert float((learned(X) - 2 * X).abs().mean()) < 0.15
    with pytest.raises(BadInput, match="cannot be learned"):
        Learned().fit(lambda x: x > 0, X)


def test_learned_reseeds_no_generator_but_the_one_it_puts_back(monkeypatch):
    def refused(*_):
        raise AssertionError("torch.manual_seed reseeds the generators of every GPU, which fork_rng does not put back")

    monkeypatch.setattr(torch, "manual_seed", refused)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", refused)
    Learned().fit(lambda x: 2 * x, X)


def test_a_learned_surrogate_of_another_shape():
    learned = Learned()
    learned.fit(lambda x: x.flatten(1)[:, :5], X)
    assert learned(X).shape == (6, 5)


def test_smooth_is_the_mean_over_noise_and_repeats_under_its_seed():
    model = TinyCNN()
    assert torch.equal(Smooth(model, 4, 0.1, seed=1)(X), Smooth(model, 4, 0.1, seed=1)(X))
    assert torch.allclose(Smooth(model, 3, 1e-6)(X), model(X), atol=1e-3)
    assert not torch.allclose(Smooth(model, 3, 0.3)(X), model(X), atol=1e-3)
    for wrong in ({"k": 0}, {"k": 1.5}, {"sigma": 0.0}):
        with pytest.raises(BadInput, match="expected a whole number"):
            Smooth(model, **wrong)
