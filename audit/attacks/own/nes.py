"""NES: gradients estimated from scores alone (Ilyas et al. 2018, arXiv 1804.08598)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from audit.attacks.common import attack
from audit.attacks.own.common import LIBRARY, moved
from audit.attacks.rounds import Best
from audit.margins import margin_loss
from audit.types import ThreatModel

ROWS = 512  # images a query may hold, unless the batch alone holds more


def _cost(params: Mapping[str, Any]) -> tuple[int, int]:
    return int(params["steps"]) * (2 * int(params["pairs"]) + 1) + 1, 0


def _slope(model: nn.Module, z: Tensor, y: Tensor, threat: ThreatModel, pairs: int, sigma: float) -> Tensor:
    """The estimated gradient of the margin at images z, up to a factor: the mean of differences along Gaussian u."""
    total, left = torch.zeros_like(z), pairs
    while left:
        count = min(left, max(1, ROWS // (2 * len(z))))
        left -= count
        u = torch.randn(count, *z.shape, device=z.device)
        probes = torch.cat([z + sigma * u, z - sigma * u]).clamp(*threat.bounds)
        margins = margin_loss(model(probes.flatten(0, 1)), y.repeat(2 * count)).view(2, count, len(z))
        change = (margins[0] - margins[1]).nan_to_num(0.0, 0.0, 0.0)
        total += (change.view(count, len(z), *[1] * (z.ndim - 1)) * u).sum(0)
    return total


@attack(
    "nes", library=LIBRARY, norms=("Linf", "L2"), needs="scores", cost=_cost, reach=1.5,
    reference="Ilyas et al. 2018, arXiv 1804.08598",
)  # fmt: skip
@torch.no_grad()
def nes(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 100,
    pairs: int = 25,
    sigma: float = 0.001,
    rel_stepsize: float = 0.1,
) -> Tensor:
    """PGD along a gradient estimated from `pairs` antithetic pairs of queries a step.

    The loss is the margin, where the paper climbs the probability of a target class. 50 queries a step and sigma .001 are
    the paper's, which goes on for up to a million queries on ImageNet; here are 5,100, as many as Square has. Reach 1.5: each step's direction is a combination of 25 random ones, so many a pixel goes
    the wrong way.
    """
    z, best = x, Best(x, y)
    for _ in range(steps):
        best.keep(z, model(z))
        z = moved(z, _slope(model, z, y, threat, pairs, sigma), x, threat, rel_stepsize)
    best.keep(z, model(z))
    return best.x
