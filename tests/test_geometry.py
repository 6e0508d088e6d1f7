"""Distances, balls and boxes."""

import pytest
import torch

from audit.geometry import SLACK, contains, distance, project
from audit.types import NORMS, ThreatModel

RADII = {"Linf": 8 / 255, "L2": 0.5, "L1": 3.0, "L0": 5.0}


def cloud(n=200, spread=1.0, seed=0):
    """Images, and candidates around them, some inside the ball and the box and some not."""
    dice = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, 4, 4, generator=dice)
    size = spread * torch.rand(n, 1, 1, 1, generator=dice) ** 3
    return x, x + size * torch.randn(x.shape, generator=dice)


@pytest.mark.parametrize(("norm", "expected"), [("Linf", 0.5), ("L2", 0.5), ("L1", 0.5), ("L0", 1.0)])
def test_distance_of_one_pixel(norm, expected):
    a, b = torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    b[1, 0, 1, 1] = 0.5
    assert distance(a, b, norm).tolist() == pytest.approx([0.0, expected])


def test_distance_of_several_pixels():
    a, b = torch.zeros(1, 1, 1, 3), torch.tensor([[[[0.3, -0.4, 0.0]]]])
    got = [float(distance(a, b, norm)[0]) for norm in NORMS]
    assert got == pytest.approx([0.4, 0.5, 0.7, 2.0])


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_projected_lies_in_the_ball_and_the_box(norm):
    x, candidate = cloud()
    threat = ThreatModel(norm, RADII[norm])
    assert not contains(candidate, x, threat).all()
    found = project(candidate, x, threat)
    assert contains(found, x, threat).all()
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_overstepping_by_rounding_loses_nothing(norm):
    x, candidate = cloud(spread=0.1)
    x = 0.3 + 0.4 * x
    delta = candidate - candidate.mean((1, 2, 3), keepdim=True) - x
    size = distance(delta, torch.zeros_like(delta), norm).view(-1, 1, 1, 1)
    threat = ThreatModel(norm, 0.1)
    on_the_edge = x + delta / size * threat.eps * (1 + 2e-7)
    assert (distance(project(on_the_edge, x, threat), x, norm) >= threat.eps * (1 - 1e-5)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_projecting_what_is_inside_changes_no_bit(norm):
    x, candidate = cloud(spread=0.2)
    threat = ThreatModel(norm, RADII[norm])
    if norm == "L0":
        candidate = torch.where(torch.rand(x.shape) < 0.05, candidate.clamp(0, 1), x)
    inside = (distance(candidate, x, norm) <= threat.eps) & (candidate.clamp(0, 1) == candidate).flatten(1).all(1)
    assert inside.any()
    assert torch.equal(project(candidate, x, threat)[inside], candidate[inside])


def test_an_L0_candidate_outside_falls_back_to_the_image():
    x, candidate = cloud(4)
    assert torch.equal(project(candidate, x, ThreatModel("L0", 1.0)), x)


def test_linf_projection_is_the_nearest_point():
    x, candidate = torch.tensor([[[[0.5, 0.99, 0.01]]]]), torch.tensor([[[[0.7, 1.2, -0.5]]]])
    found = project(candidate, x, ThreatModel("Linf", 0.1))
    assert found.flatten().tolist() == pytest.approx([0.6, 1.0, 0.0])


@pytest.mark.parametrize(("step", "inside"), [(0.0, True), (SLACK, True), (4 * SLACK, False)])
def test_contains_forgives_rounding_and_nothing_more(step, inside):
    x, threat = torch.full((1, 1, 2, 2), 0.5), ThreatModel("Linf", 0.25)
    assert bool(contains(x + 0.25 + step, x, threat)) is inside


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_contains_refuses_what_is_no_image(value):
    x = torch.full((1, 1, 2, 2), 0.005 if value < 0 else 0.995)
    assert not contains(torch.full_like(x, value), x, ThreatModel("Linf", 0.5)).any()
