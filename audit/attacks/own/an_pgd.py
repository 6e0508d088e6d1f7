"""Adaptive-norm PGD: the attack inside Max-Margin Adversarial training (Ding et al. 2020, arXiv 1812.02637)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from audit.attacks.common import attack, choice, one_of
from audit.attacks.own.common import LIBRARY, LOSSES, TINY, pgd
from audit.attacks.rounds import per_row
from audit.geometry import distance
from audit.types import ThreatModel


def _cost(params: Mapping[str, Any]) -> tuple[int, int]:
    return int(params["steps"]) + 2 + int(params["bisections"]), int(params["steps"])


def _bisect(
    fooled: Callable[[Tensor], Tensor], first: Tensor, widest: float, bisections: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The shortest radius (n,) that fools, and where there is one: bool (n,). `fooled` answers for radii (n,)."""
    within = fooled(first)
    low = torch.where(within, torch.zeros_like(first), first)
    high = torch.where(within, first, torch.full_like(first, widest).maximum(first))
    found = within | fooled(high)
    for _ in range(bisections):
        middle = (low + high) / 2
        hit = fooled(middle)
        found = found | hit
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    return high, found


@attack(
    "an-pgd", library=LIBRARY, norms=("Linf", "L2"), needs="gradient", kind="minimal", cost=_cost,
    check=one_of("an-pgd", "loss", LOSSES),
    reference="Ding et al. 2020, arXiv 1812.02637, Algorithm 1",
)  # fmt: skip
def an_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    rel_stepsize: float = 0.1,
    bisections: int = 10,
    widest: float = 4.0,
    loss: str = "margin",
) -> Tensor:
    """PGD at radius eps, then bisection along the ray through its end.

    The ray is searched up to eps where PGD fooled the model, else from eps to `widest` times eps. Points of it are
    clipped to the box. A gradient attack that stops at the ball reports "not broken"; this one says how far off it was.
    The authors train with 10 steps of a quarter of eps and look on to 1.05 times their largest margin; as an attack the
    defaults here take 20 of a tenth, and `widest` is ours.
    """
    delta = pgd(model, x, y, threat, choice("an-pgd", "loss", loss, LOSSES), steps, rel_stepsize) - x
    first = distance(x + delta, x, threat.norm)
    unit = delta / per_row(first.clamp_min(TINY), x)

    def ray(radius: Tensor) -> Tensor:
        return (x + per_row(radius, x) * unit).clamp(*threat.bounds)

    @torch.no_grad()
    def fooled(radius: Tensor) -> Tensor:
        wrong: Tensor = model(ray(radius)).argmax(1) != y
        return wrong

    radius, found = _bisect(fooled, first, widest * threat.eps, bisections)
    return torch.where(per_row(found, x), ray(radius), x)
