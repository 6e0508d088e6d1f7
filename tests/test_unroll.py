"""Unroll: the exact purifier forward, its soft version backward, second order included."""

import pytest
import torch

from adapters.bpda import Bpda
from adapters.unroll import Unroll
from audit.errors import BadInput
from audit.gates import fingerprint_model
from tests.planted import Counting, Quantise, SignStep, Staged, TinyCNN, images
from tests.test_bpda import finite_differences, gradient, upstream


def smooth():
    """A network whose second derivative is not zero: a sigmoid for the ReLUs."""
    network = TinyCNN()
    network.body[1] = network.body[3] = torch.nn.Sigmoid()
    return network.double()


def test_the_answers_are_the_models_own():
    model = Staged(TinyCNN(), SignStep(TinyCNN()))
    x, _ = images(TinyCNN(), 20)
    assert torch.equal(Unroll(model, 0.1)(x.requires_grad_()), model(x))


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_gradient_is_that_of_the_unrolled_surrogate(temperature):
    network = smooth()
    model, weights = Staged(network, SignStep(network)), upstream(1, torch.float64)
    x = images(TinyCNN(), 1)[0].double()
    soft = model.purifier.unrolled(temperature)
    exact, start = model.purifier(x), soft(x.requires_grad_()).detach()
    x = x.detach()

    def surrogate(z):
        return (network(exact + soft(z.requires_grad_()).detach() - start) * weights).sum().detach()

    got = gradient(Unroll(model, temperature), x, weights)
    straight = gradient(Bpda(model), x, weights)
    assert (got - straight).abs().max() > 1e-4  # the second order is there
    assert torch.allclose(got, finite_differences(surrogate, x), rtol=1e-5, atol=1e-8)


def test_it_reaches_a_purifier_inside_other_wrappers():
    network = TinyCNN()
    model = Counting(Staged(network, SignStep(network)))
    x, _ = images(network)
    got = gradient(Unroll(model, 0.1), x, upstream(8))
    assert torch.equal(got, gradient(Unroll(model.model, 0.1), x, upstream(8)))


def test_the_model_is_left_alone():
    network = TinyCNN()
    model = Staged(network, SignStep(network))
    before = fingerprint_model(model)
    gradient(Unroll(model, 0.1).eval(), images(network)[0], upstream(8))
    assert fingerprint_model(model) == before
    assert all(weight.grad is None for weight in model.parameters())
    assert all("forward" not in vars(part) and not part._forward_hooks for part in model.modules())


def test_a_purifier_that_cannot_be_unrolled():
    with pytest.raises(BadInput, match=r"module 'purifier' \(Quantise\) has no method unrolled"):
        Unroll(Staged(TinyCNN(), Quantise()), 0.1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(BadInput, match="temperature"):
        Unroll(Staged(TinyCNN(), SignStep(TinyCNN())), temperature)
