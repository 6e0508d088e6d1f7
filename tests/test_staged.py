"""A classifier behind a purifier: one set of weights, whatever is copied, cast or saved."""

from __future__ import annotations

import copy

import torch
from torch import nn

from defenses.co_noise.noise import Noise
from defenses.staged import Staged
from defenses.tpap.purification import CWPurifier, SignPurifier
from tests.planted import TinyCNN, images


def staged(xi: float = 0.1) -> Staged:
    network = TinyCNN()
    return Staged(network, SignPurifier(network, xi)).eval()


def test_images_go_through_the_purifier_and_then_the_network():
    class Halve(nn.Module):
        def forward(self, x):
            return x / 2

    network = TinyCNN()
    x, _ = images(network)
    model = Staged(network, Halve()).eval()
    assert torch.equal(model(x), network(x / 2))
    assert torch.equal(model.network(x), network(x))


def test_a_purifier_that_asks_the_network_does_not_own_it():
    model = staged()
    assert list(model.purifier.parameters()) == []
    assert set(model.state_dict()) == {f"network.{name}" for name in TinyCNN().state_dict()}
    assert len(list(model.parameters())) == len(list(TinyCNN().parameters()))
    assert model.purifier.network is model.network


def test_a_deep_copy_asks_the_copied_network():
    model = staged()
    x, _ = images(model.network)
    before = model(x)
    twin = copy.deepcopy(model)
    assert twin.purifier.network is twin.network
    assert twin.network is not model.network
    with torch.no_grad():
        for weight in twin.network.parameters():
            weight.zero_()
    assert torch.equal(twin.purifier(x), x)  # zero weights, zero gradient, sign(0) = 0
    assert torch.equal(model(x), before)


def test_a_cast_reaches_the_network_that_the_purifier_asks():
    model = staged()
    x, _ = images(model.network)
    single = model.purifier(x)
    model = model.double()
    assert model.purifier.network is model.network
    purified = model.purifier(x.double())
    assert purified.dtype == torch.float64
    torch.testing.assert_close(purified.float(), single)
    assert model(x.double()).dtype == torch.float64
    assert model.to(torch.float32)(x).dtype == torch.float32


def test_every_purifier_keeps_shape_type_and_box():
    network = TinyCNN(channels=3)
    x, _ = images(network, channels=3)
    for purifier in (
        SignPurifier(network, 0.2),
        SignPurifier(network, 0.2, steps=3),
        CWPurifier(network, steps=5),
        Noise(0.5),
    ):
        for given in (x, torch.zeros_like(x), torch.ones_like(x)):
            found = purifier(given)
            assert (found.shape, found.dtype) == (x.shape, x.dtype)
            assert found.min() >= 0
            assert found.max() <= 1


def test_evaluation_mode_reaches_both_stages():
    model = Staged(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3)), Noise(0.1)).train()
    assert model.purifier.training
    assert not any(part.training for part in model.eval().modules())
