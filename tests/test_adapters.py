"""Rescale and Float64: the same classes, and a gradient where float32 has none."""

import pytest
import torch
import torch.nn.functional as F

from adapters.float64 import Float64
from adapters.rescale import Rescale
from audit.errors import BadInput
from audit.gates import fingerprint_model
from tests.planted import Brightness, TinyCNN, images


def wrappers():
    return {"rescale": lambda model: Rescale(model, 100.0), "float64": Float64}


def ce_gradient(model, x, y):
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    return grad


@pytest.mark.parametrize("name", wrappers())
def test_the_predicted_class_is_unchanged(name):
    model = TinyCNN(scale=10)
    x, y = images(model, 200)
    assert torch.equal(wrappers()[name](model)(x).argmax(1), y)


@pytest.mark.parametrize("name", wrappers())
def test_the_model_is_left_alone(name):
    model = TinyCNN()
    before = fingerprint_model(model)
    x, y = images(model)
    ce_gradient(wrappers()[name](model), x, y)
    assert fingerprint_model(model) == before
    assert model(x).dtype == torch.float32


def test_rescale_divides():
    model = TinyCNN()
    x, _ = images(model)
    assert torch.equal(Rescale(model, 4.0)(x), model(x) / 4)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_rescale_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(BadInput, match="temperature"):
        Rescale(TinyCNN(), temperature)


def test_float64_answers_in_float64():
    model = TinyCNN()
    x, _ = images(model)
    logits = Float64(model)(x)
    assert logits.dtype == torch.float64
    assert torch.allclose(logits.float(), model(x), atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_float64_gradient_is_the_true_one_divided_by_its_largest_entry(scale):
    model = TinyCNN(scale=scale)
    x, y = images(model)
    true = ce_gradient(TinyCNN(scale=scale).double(), x.double(), y)
    peak = true.abs().amax((1, 2, 3), keepdim=True)
    got = ce_gradient(Float64(model), x, y)
    assert got.dtype == torch.float32
    assert torch.equal(got.abs().amax((1, 2, 3)), torch.ones(len(x)))
    # the copy's weights are the float32 ones widened, those of `true` as well: only the final cast rounds
    assert torch.allclose(got, (true / peak).float(), rtol=1e-6, atol=0)


def saturated():
    """A model and images whose logit gap is about 300: exp(-300) is no float32."""
    model, y = Brightness(gain=1e4), torch.arange(16) % 2
    texture, _ = images(model, 16)
    texture = 0.5 * (texture - texture.mean((1, 2, 3), keepdim=True))
    return model, 0.5 + texture + (0.015 * (2 * y - 1)).view(-1, 1, 1, 1), y


def test_a_saturated_model_has_no_float32_gradient():
    model, x, y = saturated()
    assert model(x).detach().diff(dim=1).abs().flatten().tolist() == pytest.approx([300] * 16, abs=1)
    assert torch.equal(model(x).argmax(1), y)
    assert (ce_gradient(model, x, y) == 0).all()


@pytest.mark.parametrize("name", wrappers())
def test_adapted_it_has_one_of_the_right_sign(name):
    model, x, y = saturated()
    grad = ce_gradient(wrappers()[name](model), x, y)
    away = (1 - 2 * y).view(-1, 1, 1, 1)  # brighter is wrong for class 0, darker for class 1
    assert torch.equal(grad.sign(), away.expand_as(grad).float())


def test_a_gradient_of_exactly_zero_stays_zero():
    model = Float64(Brightness(gain=1e7))
    x = torch.zeros(2, 1, 8, 8)
    assert (ce_gradient(model, x, torch.zeros(2, dtype=torch.int64)) == 0).all()
