"""The attacks of foolbox find the nearest boundary, and our corrections of its FMN are needed."""

from __future__ import annotations

import eagerpy as ep
import pytest
import torch
from foolbox import attacks as library

from adapters.probe import AllBroken
from audit import registry
from audit.attacks import foolbox as wrapped
from audit.geometry import distance
from audit.linear import linear_problem
from audit.testing import STRETCH
from audit.types import ThreatModel
from tests.planted import TinyCNN, images

NAMES = ("ddn", "fmn", "deepfool")
EVERY = [(name, norm) for name in NAMES for norm in registry.attacks.load(name).norms]


def ratios(name, norm, **problem):
    """Distance of what the attack found, as a multiple of the distance to the boundary; infinite where it failed."""
    model, x, y = linear_problem(0, **problem)
    x = 0.5 + STRETCH * (x - 0.5) if norm == "L0" else x
    found = registry.attacks.load(name)(model, x, y, ThreatModel(norm, 1.0), seed=1)
    result = distance(found, x, norm) / model.distance(x, y, norm)
    return result.masked_fill(model(found).argmax(1) == y, float("inf"))


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_fmn_ends_on_the_boundary(norm):
    assert ratios("fmn", norm).max() <= 1.01


def test_fmn_under_L0_mostly_needs_no_pixel_too_many():
    found = ratios("fmn", "L0", n=12)
    assert found.max() <= 2
    assert found.median() == 1


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_deepfool_ends_an_overshoot_beyond_the_boundary(norm):
    assert ratios("deepfool", norm).max() <= 1.05


def test_the_librarys_own_L2_does_not_project(monkeypatch):
    monkeypatch.setitem(wrapped._FMN, "L2", library.L2FMNAttack)
    assert ratios("fmn", "L2").min() > 5


def test_the_librarys_own_L0_keeps_a_pixel_too_many_and_runs_out_of_pixels():
    x0 = ep.astensor(torch.full((1, 1, 2, 2), 0.5))
    x = ep.astensor(torch.tensor([[[[0.9, 0.8], [0.7, 0.6]]]]))
    for count in (1, 2, 3):
        epsilon = ep.astensor(torch.tensor([float(count)]))
        kept, theirs = (cls().project(x=x, x0=x0, epsilon=epsilon).raw for cls in (wrapped._L0, library.L0FMNAttack))
        assert int((kept != x0.raw).sum()) == count
        assert int((theirs != x0.raw).sum()) == count + 1
    everything = ep.astensor(torch.tensor([4.0]))
    assert torch.equal(wrapped._L0().project(x=x, x0=x0, epsilon=everything).raw, x.raw)
    with pytest.raises(IndexError):
        library.L0FMNAttack().project(x=x, x0=x0, epsilon=everything)


class Constant(TinyCNN):
    """Class 0 everywhere: nothing is adversarial."""

    def forward(self, x):
        return 0 * super().forward(x) + torch.tensor([5.0, 3.0, 1.0, 0.0])


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_where_nothing_is_adversarial_the_image_comes_back_clean(name, norm):
    x, _ = images(TinyCNN(), 3)
    y = torch.zeros(len(x), dtype=torch.int64)
    found = registry.attacks.load(name)(Constant(), x, y, ThreatModel(norm, 1.0), seed=0)
    assert torch.equal(found, x)


class Ends(TinyCNN):
    """Unwinds the attack at its third pass, as the probe does when every image is broken."""

    passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes == 3:
            raise AllBroken
        return super().forward(x)


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_the_probe_can_end_it(name, norm):
    model = Ends()
    x, y = images(TinyCNN(), 3)
    with pytest.raises(AllBroken):
        registry.attacks.load(name)(model, x, y, ThreatModel(norm, 1.0), seed=0)
    assert model.passes == 3


def test_ddn_comes_no_nearer_than_its_sphere_shrinks():
    model, x, y = linear_problem(0)
    attack, threat = registry.attacks.load("ddn"), ThreatModel("L2", 1.0)
    near, far = (distance(attack(model, x, y, threat, seed=0, steps=n), x, "L2") for n in (100, 20))
    assert (far >= 0.95**20).all()
    assert (near <= 1.25 * model.distance(x, y, "L2")).all()
