"""BPDA: exact forward, substituted backward, on modules anywhere in the model."""

import pytest
import torch
from torch import nn

from adapters.bpda import Bpda, binomial_blur
from adapters.float64 import Float64
from audit.errors import BadInput
from audit.gates import adapt, fingerprint_model
from audit.types import AdapterSpec
from tests.planted import Quantise, SignStep, Staged, TinyCNN, UniformNoise, images


def quantised(dtype=torch.float32):
    return Staged(TinyCNN(), Quantise()).to(dtype)


def gradient(model, x, weights):
    x = x.clone().requires_grad_()
    return torch.autograd.grad((model(x) * weights).sum(), x)[0]


def upstream(n, dtype=torch.float32):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(5)).to(dtype)


def finite_differences(function, x, step=1e-5):
    """Central differences of a scalar function of one image (1, c, h, w)."""
    result = torch.zeros_like(x)
    for index in range(x.numel()):
        shift = torch.zeros_like(x).flatten()
        shift[index] = step
        shift = shift.view_as(x)
        result.view(-1)[index] = (function(x + shift) - function(x - shift)) / (2 * step)
    return result


class Pooled(nn.Module):
    """A learned smooth stand-in: a pooling and a gain."""

    def __init__(self):
        super().__init__()
        self.pool, self.gain = nn.AvgPool2d(3, 1, 1), nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, x):
        return torch.sin(self.gain * self.pool(x))


SUBSTITUTES = {"identity": "identity", "blur": "binomial_blur", "function": lambda x: torch.tanh(2 * x),
               "module": Pooled()}  # fmt: skip


@pytest.mark.parametrize("substitute", SUBSTITUTES.values(), ids=SUBSTITUTES)
def test_the_answers_are_the_models_own(substitute):
    model = quantised(torch.float64)
    x, _ = images(TinyCNN(), 20)
    x = x.double().requires_grad_()
    adapted = Bpda(model, substitute=substitute)
    assert torch.equal(adapted(x), model(x))
    with torch.no_grad():
        assert torch.equal(adapted(x), model(x))


@pytest.mark.parametrize("name", SUBSTITUTES)
def test_the_gradient_is_that_of_the_surrogate_composition(name):
    """Around x the surrogate is z -> network(purifier(x) + s(z) - s(x)): exact value, the substitute's slope."""
    model, weights = quantised(torch.float64), upstream(1, torch.float64)
    x, _ = images(TinyCNN(), 1)
    x = x.double()
    known = {"identity": lambda z: z, "blur": binomial_blur}
    slope = known.get(name, SUBSTITUTES[name])
    with torch.no_grad():
        expected = finite_differences(
            lambda z: (model.network(model.purifier(x) + slope(z) - slope(x)) * weights).sum(), x
        )
    got = gradient(Bpda(model, substitute=SUBSTITUTES[name]), x, weights)
    assert got.abs().max() > 0.01
    assert torch.allclose(got, expected, rtol=1e-6, atol=1e-8)


def test_without_it_there_is_no_gradient():
    x, _ = images(TinyCNN())
    assert (gradient(quantised(), x, upstream(8)) == 0).all()


def test_around_an_identity_nothing_changes_at_all():
    network, x = TinyCNN(), images(TinyCNN())[0]
    model = Staged(network, nn.Identity())
    assert torch.equal(gradient(Bpda(model), x, upstream(8)), gradient(network, x, upstream(8)))


def test_two_quantisers_compose_each_with_its_own_slope():
    network = TinyCNN().double()
    middle = nn.Sequential(nn.Sigmoid(), nn.Conv2d(1, 1, 3, padding=1).double())
    model = Staged(network, nn.Sequential(Quantise(8), middle, Quantise(16)))
    x, weights = images(TinyCNN(), 1)[0].double(), upstream(1, torch.float64)
    first, second = model.purifier[0], model.purifier[2]
    with torch.no_grad():
        inside = middle(first(x))
        expected = finite_differences(
            lambda z: (network(second(inside) + middle(first(x) + z - x) - inside) * weights).sum(), x
        )
    together = gradient(Bpda(model, "purifier.0, purifier.2"), x, weights)
    nested = gradient(Bpda(Bpda(model, "purifier.0"), "purifier.2"), x, weights)
    assert together.abs().max() > 1e-3
    assert torch.allclose(together, expected, rtol=1e-6, atol=1e-9)
    assert torch.equal(together, nested)


def test_one_of_two_quantisers_is_not_enough():
    model = Staged(TinyCNN(), nn.Sequential(Quantise(8), Quantise(16)))
    x, _ = images(TinyCNN())
    assert (gradient(Bpda(model, "purifier.0"), x, upstream(8)) == 0).all()


def test_a_purifier_that_differentiates_the_network_still_computes_what_it_did():
    network = TinyCNN()
    network.body.insert(1, Quantise(4))
    model = Staged(network, SignStep(network))
    x, _ = images(TinyCNN(), 20)
    adapted = Bpda(model, "purifier, network.body.1")
    assert torch.equal(adapted(x.requires_grad_()), model(x))
    # straight-through in the purifier as well would have moved the images
    assert (gradient(network, x.detach(), upstream(20)) == 0).all()
    assert (gradient(adapted, x.detach(), upstream(20)) != 0).any()


def test_it_can_stand_before_and_after_other_adapters():
    model, x, weights = quantised(), images(TinyCNN())[0], upstream(8)
    inner = adapt(model, [AdapterSpec("bpda"), AdapterSpec("rescale", {"temperature": 4.0})])
    outer = adapt(model, [AdapterSpec("rescale", {"temperature": 4.0}), AdapterSpec("bpda", {"modules": "purifier"})])
    assert torch.equal(gradient(inner, x, weights), gradient(outer, x, weights))
    wide = gradient(Float64(Bpda(model)), x, weights)
    narrow = gradient(Bpda(model), x, weights)
    assert torch.allclose(wide, narrow / narrow.abs().amax((1, 2, 3), keepdim=True), atol=1e-4)


def test_the_model_is_left_alone():
    model = Staged(TinyCNN(), nn.Sequential(UniformNoise(), SignStep(TinyCNN())))
    x, _ = images(TinyCNN())
    parts, before = list(map(id, model.modules())), fingerprint_model(model)
    attributes = [set(vars(part)) for part in model.modules()]
    gradient(Bpda(model, substitute="binomial_blur").eval(), x, upstream(8))
    assert fingerprint_model(model) == before
    assert list(map(id, model.modules())) == parts
    assert [set(vars(part)) for part in model.modules()] == attributes
    assert model.purifier[0].last is None  # what a part notes down in a pass, the mirror's part notes down
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(part, name) for part in model.modules() for name in hooks)
    assert all(weight.grad is None for weight in model.parameters())


def test_weights_are_shared():
    model = quantised()
    assert {id(weight) for weight in Bpda(model).parameters()} == {id(weight) for weight in model.parameters()}


def test_a_random_substitute_repeats_the_exact_modules_draws():
    noise, stand_in = UniformNoise(), UniformNoise()
    model, x = Staged(TinyCNN(), noise), images(TinyCNN())[0].requires_grad_()
    # The stand-in draws once more than the module does, which must not move what comes after.
    adapted = Bpda(model, substitute=lambda z: stand_in(z) + 0 * torch.rand(3).sum())
    torch.manual_seed(3)
    expected, following = model(x), torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(adapted(x), expected)
    assert torch.equal(torch.rand(1), following)
    assert torch.equal(stand_in.last, noise.last)


def test_a_binomial_blur_keeps_flat_images_and_the_total_of_a_dot():
    flat = torch.full((2, 3, 5, 5), 0.3)
    assert torch.allclose(binomial_blur(flat), flat)
    dot = torch.zeros(1, 2, 5, 5)
    dot[0, 1, 2, 2] = 1
    spread = binomial_blur(dot)
    assert (spread[0, 0] == 0).all()
    assert spread[0, 1, 1:4, 1:4].tolist() == [[1 / 16, 1 / 8, 1 / 16], [1 / 8, 1 / 4, 1 / 8], [1 / 16, 1 / 8, 1 / 16]]


# --- errors


def test_an_unknown_module():
    with pytest.raises(BadInput, match=r"no submodule 'purifyer' .*did you mean 'purifier'\?"):
        Bpda(quantised(), "purifyer")


def test_an_unknown_substitute():
    with pytest.raises(BadInput, match=r"unknown substitute 'identiti': did you mean 'identity'\?"):
        Bpda(quantised(), substitute="identiti")


def test_a_module_inside_another():
    with pytest.raises(BadInput, match=r"'network.body.0' lies inside 'network.body'"):
        Bpda(quantised(), "network.body, network.body.0")


def test_a_module_that_changes_the_shape_needs_another_substitute():
    model = Staged(TinyCNN(), nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(2)))
    x, _ = images(TinyCNN())
    adapted = Bpda(model, "purifier.0")
    with pytest.raises(
        BadInput, match=r"substitute of module 'purifier.0' gives shape \(8, 1, 8, 8\) .*\(8, 1, 16, 16\)"
    ):
        adapted(x.requires_grad_())
    with pytest.raises(BadInput, match="'binomial_blur' got a tensor of 2 dimensions"):
        Bpda(model, "network.head", "binomial_blur")(x)


def test_a_module_that_the_forward_pass_does_not_call():
    model = quantised()
    model.spare = Quantise()
    with pytest.raises(BadInput, match=r"module 'spare' took no part in the forward pass"):
        Bpda(model, "purifier, spare")(images(TinyCNN())[0])
