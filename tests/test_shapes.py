"""Every attack takes images of any shape and number of channels, under every norm that it names."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import nn

from audit import registry
from audit.attacks.autoattack_shapes import AnySize, missing_rows
from audit.geometry import contains
from audit.types import ThreatModel
from tests.test_attacks import ALONE, options

SHAPES = [(1, 18, 11), (2, 7, 16), (3, 13, 9), (4, 10, 6), (1, 24, 24), (3, 4, 9)]  # 18, 24 and 4: see `AnySize`
EPS = {"Linf": 0.1, "L2": 1.0, "L1": 5.0, "L0": 5.0}
SHORT = {"queries": 60, "n_queries": 40, "steps": 3, "search_steps": 2, "n_iter": 3, "rounds": 3, "n_draws": 10}
KERNEL = {"len_kernel": 3}  # ti-dim's of 15 pixels is wider than the narrowest of these images


class OneShape(nn.Module):
    """A random linear network for images of one shape alone, with four classes."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        weight = torch.randn(4, torch.Size(shape).numel(), generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight / weight.norm(dim=1, keepdim=True))
        self.eval()

    def forward(self, x):
        assert x.shape[1:] == self.shape
        return nn.functional.linear(x.flatten(1) - 0.5, self.weight)


def problem(shape, n=3):
    model = OneShape(shape)
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))
    return model, x, model(x).argmax(1)


def short(attack):
    own = {k: v for k, v in options(attack.name).items() if k in attack.defaults}
    fixed = {k: v for k, v in {**SHORT, **KERNEL}.items() if k in attack.defaults}
    return {**own, **fixed}


@pytest.mark.filterwarnings("ignore:there are:Warning")  # DLR has no gradient where two logits are equally far
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("name", ALONE)
def test_every_attack_takes_every_shape(name, shape):
    attack = registry.attacks.load(name)
    model, x, y = problem(shape)
    for norm in attack.norms:
        threat = ThreatModel(norm, EPS[norm])
        found = attack(model, x, y, threat, seed=0, **short(attack))
        assert found.shape == x.shape
        assert torch.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1
        if attack.kind == "budget":
            assert contains(found, x, threat).all()


def crashes(height, width):
    """Does the library's own attack leave the image with its first patches?"""
    model, x, y = problem((1, height, width))
    try:
        SquareAttack(model, norm="L2", n_queries=1, eps=1e-3, device="cpu").perturb(x, y)
    except (RuntimeError, ZeroDivisionError):
        return True
    return False


@pytest.mark.slow
def test_rows_are_added_where_the_library_would_leave_the_image_and_nowhere_else():
    sizes = [(height, width) for height in range(1, 30) for width in (5, 9, 20, 28)]
    assert [size for size in sizes if crashes(*size) is (missing_rows(*size) == 0)] == []
    assert 10 < sum(crashes(*size) for size in sizes) < len(sizes) - 10
    assert not any(crashes(height + missing_rows(height, width), width) for height, width in sizes)


@pytest.mark.parametrize(("norm", "eps"), [("L2", 0.5), ("L1", 3.0)])
def test_square_finds_on_24_rows_what_it_finds_on_25(norm, eps):
    """The row below that the model never sees takes nothing of the budget."""
    threat, broken = ThreatModel(norm, eps), []
    for side in (24, 25):
        model, x, y = problem((1, side, side), n=40)
        found = registry.attacks.load("square")(model, x, y, threat, seed=0, n_queries=300)
        assert contains(found, x, threat).all()
        broken.append(int((model(found).argmax(1) != y).sum()))
    assert 8 <= broken[1] <= 32
    assert abs(broken[0] - broken[1]) <= 8


@pytest.mark.parametrize("norm", ["L2", "L1"])
def test_where_the_patches_fit_square_is_the_librarys(norm):
    model, x, y = problem((1, 20, 20))
    with torch.no_grad():
        theirs, ours = (
            kind(model, norm=norm, n_queries=50, eps=1.0, seed=3, device="cpu").perturb(x, y)
            for kind in (SquareAttack, AnySize)
        )
    assert torch.equal(theirs, ours)
