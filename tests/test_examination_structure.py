"""What is found in a model's structure: gradients taken inside, gradients lost, the bare network, and its randomness."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad as imported_grad

from audit.examination import borrowed, cuts, dynamic, repeats, signal
from audit.examination.losses import margin
from audit.gates import fingerprint_model, profile
from audit.randomness import deterministic, random, random_drift
from audit.rules import Nature
from audit.types import ThreatModel
from tests.planted import Counting, Noisy, Quantise, SignStep, Staged, TinyCNN, UniformNoise, images


class Own(nn.Module):
    """`function` in the model's own code, before the network."""

    def __init__(self, function, after=lambda z: z) -> None:
        super().__init__()
        self.network, self.function, self.after = TinyCNN(), function, after
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.function(self, x)))


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def staged(purifier=None) -> Staged:
    network = TinyCNN()
    return Staged(network, SignStep(network) if purifier is None else purifier)


def found(model: nn.Module, passes: int = 1) -> dict:
    with torch.no_grad():
        x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        y = model(x).argmax(1)
    return cuts(model, x, y, seed=0, passes=passes)


# gradients taken inside


def by_name(_, x):
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return x - 0.01 * torch.autograd.grad(leaf.square().sum(), leaf)[0]


def by_import(_, x):
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return x - 0.01 * imported_grad(leaf.square().sum(), leaf)[0]


def by_backward(_, x):
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        leaf.square().sum().backward()
        return x - 0.01 * leaf.grad


def by_func(_, x):
    return x - 0.01 * torch.func.grad(lambda z: z.square().sum())(x)


def by_jvp(_, x):
    return x - 0.01 * torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))[1]


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # torch's own, on its first jvp
@pytest.mark.parametrize("function", [by_name, by_import, by_backward, by_func, by_jvp])
def test_a_gradient_taken_inside_is_seen_whichever_way(function):
    model = Own(function)
    seen = dynamic(model, images(model)[0])
    assert (seen["dynamic"], seen["dynamic_in"]) == (True, [""])


def test_the_part_that_takes_it_is_named():
    model = staged()
    assert dynamic(model, images(model)[0]) == {"dynamic": True, "dynamic_in": ["purifier"], "enables_gradients": True}


def test_a_plain_network_takes_none():
    model = TinyCNN()
    assert dynamic(model, images(model)[0]) == {"dynamic": False, "dynamic_in": [], "enables_gradients": False}


def test_gradients_switched_on_and_not_taken_are_told_apart():
    def on(_, x):
        with torch.enable_grad():
            return (x * x.requires_grad_()).sqrt()

    model = Own(on)
    seen = dynamic(model, images(model)[0].clone())
    assert (seen["dynamic"], seen["enables_gradients"]) == (False, True)


def test_nothing_stays_replaced_even_when_the_model_fails():
    before = (torch.autograd.grad, torch.autograd.backward, torch.autograd.forward_ad.enter_dual_level)

    def fails(_, x):
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        dynamic(Own(fails), torch.rand(2, 1, 8, 8))
    assert before == (torch.autograd.grad, torch.autograd.backward, torch.autograd.forward_ad.enter_dual_level)


# where the gradient is lost


def test_a_plain_network_loses_nothing_and_holds_no_other():
    assert found(TinyCNN()) == {
        "gradient_cut": False, "gradient_cut_at": [], "gradient_cut_shapes": {}, "front_at": [], "bare_network_at": None,
    }  # fmt: skip


@pytest.mark.parametrize("purifier", [Quantise(4), Lambda(torch.detach), Lambda(lambda x: (x > 0.5).float())])
def test_a_purifier_that_cuts_is_found_with_its_network(purifier):
    seen = found(staged(purifier))
    assert (seen["gradient_cut"], seen["gradient_cut_at"]) == (True, ["purifier"])
    assert seen["gradient_cut_shapes"]["purifier"] == {"in": [1, 8, 8], "out": [1, 8, 8], "same": True}
    assert seen["bare_network_at"] == "network"
    assert seen["front_at"] == (
        [] if isinstance(purifier, Lambda) and purifier.function is torch.detach else ["purifier"]
    )


def test_the_innermost_part_is_named_and_every_one_of_a_chain():
    chain = nn.Sequential(Quantise(8), nn.AvgPool2d(3, 1, 1), nn.Sequential(Quantise(4)))
    seen = found(Counting(staged(chain)))
    assert seen["gradient_cut_at"] == ["model.purifier.0", "model.purifier.2.0"]
    assert seen["front_at"] == ["model.purifier"]
    assert seen["bare_network_at"] == "model.network"


def test_a_part_that_cuts_again_in_its_own_code_is_named_itself():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Quantise(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x).detach()

    assert found(staged(Twice()))["gradient_cut_at"] == ["purifier"]


def test_a_code_of_another_shape_says_so():
    def thermometer(x):
        return torch.cat([(x > level).float() for level in (0.2, 0.5, 0.8)], 1)

    model = Staged(TinyCNN(channels=3), Lambda(thermometer))
    seen = found(model)
    assert seen["gradient_cut_shapes"] == {"purifier": {"in": [1, 8, 8], "out": [3, 8, 8], "same": False}}
    assert (seen["front_at"], seen["bare_network_at"]) == ([], None)  # the network takes three channels, not an image


@pytest.mark.parametrize(
    ("function", "after"),
    [(lambda _, x: (8 * x).round() / 8, lambda z: z), (lambda _, x: x, lambda z: (100 * z).round() / 100),
     (lambda _, x: x, lambda z: z.detach())],
)  # fmt: skip
def test_a_cut_in_the_models_own_code_names_no_part(function, after):
    seen = found(Own(function, after))
    assert (seen["gradient_cut"], seen["gradient_cut_at"], seen["bare_network_at"]) == (True, [], "network")


def test_a_part_behind_which_the_models_own_code_cuts_is_still_named():
    model = staged(Quantise(4))
    both = Own(lambda self, x: self.part(x), lambda z: z.round())
    both.network, both.part = model.network, model.purifier
    assert found(both)["gradient_cut_at"] == ["part"]


def test_work_in_place_behind_a_cut_is_no_obstacle():
    chain = nn.Sequential(Quantise(4), nn.ReLU(inplace=True), Quantise(8), nn.ReLU(inplace=True))
    assert found(staged(chain))["gradient_cut_at"] == ["purifier.0", "purifier.2"]


def test_a_cut_without_a_say_in_the_logits_is_none():
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.watch = TinyCNN(), Quantise(4)

        def forward(self, x: Tensor) -> Tensor:
            self.watch(x)
            return self.network(x)

    seen = found(Watched().eval())
    assert (seen["gradient_cut"], seen["gradient_cut_at"]) == (False, [])


def test_a_backward_pass_that_raises_is_a_cut():
    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise RuntimeError("there is no derivative")

    assert found(staged(Lambda(Refuses.apply)))["gradient_cut_at"] == ["purifier"]


def test_saturated_logits_are_not_cut():
    assert not found(TinyCNN(scale=1e4))["gradient_cut"]


def test_a_network_behind_a_normalisation_takes_no_images():
    model = Staged(TinyCNN(), Lambda(lambda x: (x - 0.5) / 0.1))
    assert found(model)["bare_network_at"] is None
    assert found(Counting(TinyCNN()))["bare_network_at"] == "model"


def test_a_network_that_is_no_good_by_itself_is_not_offered():
    model = Staged(TinyCNN(seed=3), Lambda(lambda x: 1 - x))
    seen = found(model)
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    alone = int((model.network(x).argmax(1) == model(x).argmax(1)).sum())
    assert (seen["bare_network_at"] is None) == (2 * alone < 8)


def test_every_member_of_a_random_ensemble_is_met():
    class Picked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts, self.network = nn.ModuleList([Quantise(2), Quantise(4), Quantise(8)]), TinyCNN()

        def forward(self, x: Tensor) -> Tensor:
            return self.network(self.parts[int(torch.randint(3, ()))](x))

    assert found(Picked().eval(), passes=12)["gradient_cut_at"] == ["parts.0", "parts.1", "parts.2"]


# randomness


def test_repeats_of_a_plain_network_agree_to_the_bit():
    model = TinyCNN()
    x, y = images(model)
    assert repeats(model, x, y, seed=0) == {"repeats_correct": [8] * 5, "repeats_difference": 0.0}


def test_repeats_of_a_noisy_one_differ_and_follow_the_seed():
    model = Noisy(TinyCNN(), 0.3)
    x, y = images(model)
    first, again, other = (repeats(model, x, y, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first["repeats_difference"] > 0.01


class OneOfTwo(nn.Module):
    """Each pass is answered by one of two networks: two passes in a row agree as often as not."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.ModuleList([TinyCNN(seed=0), TinyCNN(seed=1)])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.networks[int(torch.randint(2, ()))](x)


@pytest.mark.parametrize("seed", range(12))
def test_a_network_picked_once_a_pass_is_always_found(seed):
    model = OneOfTwo()
    x, y = images(TinyCNN())
    assert repeats(model, x, y, seed=seed)["repeats_difference"] > 1e-4
    assert signal(model, x, y, margin, seed=seed)["gradient_snr"] is not None
    seen = profile(model, x, y, batch_size=8, seed=seed, threat=ThreatModel())
    assert random(seen)
    assert not deterministic(seen, frozenset())
    assert Nature.of((), staged=False, drift=random_drift(seen)).stochastic


def test_more_noise_asks_for_more_draws():
    def needed(width):
        model = staged(UniformNoise(width))
        return signal(model, *images(model, 16), margin, seed=0)["draws_for_snr"]

    assert needed(0.0) == 1
    assert 1 <= needed(0.05) <= needed(0.5) <= 64


def test_a_gradient_that_is_all_noise_asks_for_the_cap_and_none_for_none():
    class Deaf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = (x * torch.randn_like(x)).flatten(1).sum(1)
            return torch.stack([score, -score], 1)

    x, y = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    assert signal(Deaf(), x, y, margin, seed=0)["draws_for_snr"] >= 16
    assert signal(staged(Quantise()), x, y, margin, seed=0) == {"gradient_snr": None, "draws_for_snr": None}


def test_the_ratio_is_that_of_its_definition():
    class Known(nn.Module):
        """Margin gradient 2 + noise of variance 4 s^2 in each of 64 pixels, so signal / noise is 1 / s^2."""

        def forward(self, x: Tensor) -> Tensor:
            score = (x * (1 + 2 * torch.randn_like(x))).flatten(1).sum(1)
            return torch.stack([score, -score], 1)

    x, y = torch.rand(64, 1, 8, 8), torch.ones(64, dtype=torch.int64)
    seen = signal(Known(), x, y, margin, seed=0, draws=64)
    assert seen["gradient_snr"] == pytest.approx(0.25, rel=0.15)
    assert seen["draws_for_snr"] in (4, 5)


# the model stays as it was


def test_a_borrowed_model_gives_everything_back():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.seen = TinyCNN(), 0
            self.register_buffer("asked", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.asked += len(x)
            self.seen += 1
            return self.network(x)

    model = Counts().eval()
    before, x = fingerprint_model(model), torch.rand(4, 1, 8, 8)
    with borrowed(model) as twin:
        twin(x).sum().backward()
        assert twin.asked == 4
    assert (model.seen, fingerprint_model(model)) == (0, before)
    assert all(weight.grad is None for weight in model.parameters())


def test_a_model_that_cannot_be_copied_is_lent_itself():
    model = Counting(TinyCNN())
    model.lock = __import__("threading").Lock()
    with borrowed(model) as twin:
        assert twin is model
