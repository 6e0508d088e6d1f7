"""Adaptive Auto Attack, A3 (Liu et al. 2022, arXiv 2203.05154), and the form in which the super-fitting paper ran it.

A start is made by climbing a random combination of the logits (Eq. 4 and 5 of the super-fitting paper), the attack
from there takes signed steps whose size falls along a cosine from eps to 0 (Eq. 6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from audit.attacks.common import attack
from audit.attacks.own.common import LIBRARY, LOSSES, Best, Loss, ascent, choice, one_of
from audit.geometry import project
from audit.types import ThreatModel

TARGETS = 9  # runner-up classes that the adaptive directions go through in turn


def _cost(params: Mapping[str, Any]) -> tuple[int, int]:
    restarts, steps = int(params["restarts"]), int(params["init_steps"]) + int(params["steps"])
    return 1 + restarts * (steps + 1), restarts * steps


def _directions(y: Tensor, order: Tensor, target: int | None) -> Tensor:
    """Weights (n, k) of the logits: uniform in [-1, 1]; with a target, up the target-th runner-up, away from y."""
    weights = 2 * torch.rand(order.shape[0], order.shape[1] + 1, device=y.device) - 1
    if target is None:
        return weights
    away = 0.6 * torch.rand(len(y), 1, device=y.device) - 0.5
    weights = weights.scatter(1, y[:, None], away)
    return weights.scatter(1, order[:, target, None], 0.8)


def _start(
    model: nn.Module, x: Tensor, weights: Tensor, threat: ThreatModel, init_steps: int, best: Best
) -> Tensor:  # fmt: skip
    """From a random point of the ball, `init_steps` signed steps of size eps up weights * logits."""
    z = project(x + threat.eps * (2 * torch.rand_like(x) - 1), x, threat)
    for _ in range(init_steps):
        logits, gradient = ascent(model, z, lambda logits: logits * weights)
        best.keep(z, logits)
        z = project(z + threat.eps * gradient.sign(), x, threat)
    return z


def _climb(
    model: nn.Module, z: Tensor, x: Tensor, y: Tensor, threat: ThreatModel, loss: Loss, steps: int, best: Best
) -> None:
    for n in range(steps):
        logits, gradient = ascent(model, z, lambda logits: loss(logits, y))
        best.keep(z, logits)
        size = threat.eps * (1 + math.cos(math.pi * n / steps)) / 2
        z = project(z + size * gradient.sign(), x, threat)
    with torch.no_grad():
        best.keep(z, model(z))


@attack(
    "a3", library=LIBRARY, norms=("Linf",), needs="gradient", cost=_cost,
    check=one_of("a3", "loss", LOSSES),
    reference="Liu et al. 2022, arXiv 2203.05154; super-fitting paper, Eq. 4-6",
)  # fmt: skip
def a3(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    restarts: int = 10,
    init_steps: int = 8,
    steps: int = 25,
    loss: str = "margin",
) -> Tensor:
    """Diversified starts and a cosine step size; the image of highest margin over all restarts.

    loss "margin": the original's, where all restarts but the first climb towards one of nine runner-up classes in turn
    (weight 0.8, true class drawn from [-0.5, 0.1]). loss "ce": as the super-fitting paper ran it, each direction
    uniform. Not carried over: the statistics that may turn those weights' signs, and the discarding of images that
    look hard, which saves time and breaks nothing more. Images met on the way to a start count, as in the original; the
    combination of logits that is climbed there cannot saturate, so the start may break what the CE steps after it do not.
    """
    chosen, best = choice("a3", "loss", loss, LOSSES), Best(x, y)
    with torch.no_grad():
        clean = model(x)
    order = clean.scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)[:, :-1]
    best.keep(x, clean)
    for restart in range(restarts):
        adaptive = loss == "margin" and restart > 0
        target = (restart - 1) % min(TARGETS, order.shape[1]) if adaptive else None
        z = _start(model, x, _directions(y, order, target), threat, init_steps, best)
        _climb(model, z, x, y, threat, chosen, steps, best)
    return best.x
