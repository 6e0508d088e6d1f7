"""FAB gives the nearest image wherever it lies, and within eps what the library's own loop gives."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT

from audit import registry
from audit.geometry import distance
from audit.linear import Linear, linear_problem
from audit.types import ThreatModel
from tests.planted import TinyCNN, images


def run(name, model, x, y, threat, **options):
    return registry.attacks.load(name)(model, x, y, threat, seed=0, **options)


@pytest.mark.parametrize("name", ["fab", "fab-t"])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_eps_holds_nothing_back(name, norm):
    model, x, y = linear_problem(0)
    found = run(name, model, x, y, ThreatModel(norm, 1e-6), n_iter=20)
    assert (model(found).argmax(1) != y).all()
    assert (distance(found, x, norm) <= 1.1 * model.distance(x, y, norm)).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_within_eps_it_breaks_what_the_library_breaks(targeted):
    model = TinyCNN()
    x, y = images(model, 12)
    for eps in (0.01, 0.03):
        threat = ThreatModel("Linf", eps)
        theirs = FABAttack_PT(
            model, norm="Linf", n_iter=20, eps=eps, targeted=targeted, device="cpu", n_target_classes=3
        ).perturb(x, y)
        found = run("fab-t" if targeted else "fab", model, x, y, threat, n_iter=20)
        broken = (model(found).argmax(1) != y) & (distance(found, x, "Linf") <= eps)
        assert torch.equal(broken, model(theirs).argmax(1) != y)
        assert 0 < int(broken.sum()) < len(x)


def test_the_nearest_target_is_kept_and_not_the_likeliest():
    """Class 1 is the runner-up but 0.2 away in Linf; class 2 comes third and lies 0.05 away."""
    weight = torch.tensor([[0.0, 0.0], [2.5, 0.0], [0.0, 20.0]])
    model = Linear(weight, torch.tensor([1.0, 0.5 - 1.25, -10.0]))
    x, y, threat = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), ThreatModel("Linf", 1.0)
    for targets, expected in ((1, 0.2), (2, 0.05)):
        found = run("fab-t", model, x, y, threat, n_iter=20, n_target_classes=targets)
        assert float(distance(found, x, "Linf")) == pytest.approx(expected, rel=0.05)


def test_restarts_only_come_nearer():
    model = TinyCNN()
    x, y = images(model, 12)
    once, thrice = (run("fab", model, x, y, ThreatModel("Linf", 0.5), n_iter=2, n_restarts=n) for n in (1, 3))
    once, thrice = (distance(found, x, "Linf") for found in (once, thrice))
    once, thrice = (torch.where(d > 0, d, float("inf")) for d in (once, thrice))
    assert (thrice <= once).all()
    assert (thrice < once).any()
