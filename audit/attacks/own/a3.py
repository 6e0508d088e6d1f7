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

from audit.attacks.common import attack, choice
from audit.attacks.own.common import LIBRARY, LOSSES, Loss, ascent, moved
from audit.attacks.rounds import Best
from audit.geometry import project
from audit.types import ThreatModel

TARGETS = 9  # runner-up classes that the adaptive directions go through in turn
SIGNS = {"fixed": False, "statistics": True}  # where the signs of the adaptive weights come from
Signs = tuple[float, float]  # of the weights of the true class and of the class to climb to
USUAL: Signs = (-1.0, 1.0)


def _cost(params: Mapping[str, Any]) -> tuple[int, int]:
    restarts, steps = int(params["restarts"]), int(params["init_steps"]) + int(params["steps"])
    looks = params["signs"] == "statistics" and params["loss"] == "margin"
    return 1 + restarts * (steps + 1) + looks, restarts * steps


def _check(params: Mapping[str, Any]) -> None:
    choice("a3", "loss", params["loss"], LOSSES)
    choice("a3", "signs", params["signs"], SIGNS)


def _directions(y: Tensor, order: Tensor, target: int | None, signs: Signs = USUAL) -> Tensor:
    """Weights (n, k) of the logits: uniform in [-1, 1]; with a target, 0.8 on the target-th runner-up.

    Then the true class has a weight from [-0.1, 0.5], both with their sign, and beyond ten classes both count k/10.
    """
    weights = 2 * torch.rand(order.shape[0], order.shape[1] + 1, device=y.device) - 1
    if target is None:
        return weights
    many = max(1.0, weights.shape[1] / 10)
    own = many * signs[0] * (0.6 * torch.rand(len(y), 1, device=y.device) - 0.1)
    weights = weights.scatter(1, y[:, None], own)
    return weights.scatter(1, order[:, target, None], 0.8 * many * signs[1])


def _observed(model: nn.Module, y: Tensor, weights: Tensor, best: Best) -> Signs:
    """The signs that the weights of the true class and of the class found had, summed over the images now broken."""
    with torch.no_grad():
        found = model(best.x).argmax(1)
    hit = found != y
    own, other = (float(weights.gather(1, of[:, None])[hit].sum()) for of in (y, found))
    return 1.0 if own > 0 else -1.0, -1.0 if other < 0 else 1.0


def _start(
    model: nn.Module, x: Tensor, weights: Tensor, threat: ThreatModel, init_steps: int, best: Best
) -> Tensor:  # fmt: skip
    """From a random point of the ball, `init_steps` signed steps of size eps up weights * logits."""
    z = project(x + threat.eps * (2 * torch.rand_like(x) - 1), x, threat)
    for _ in range(init_steps):
        logits, gradient = ascent(model, z, lambda logits: logits * weights)
        best.keep(z, logits)
        z = moved(z, gradient, x, threat, 1.0)
    return z


def _climb(
    model: nn.Module, z: Tensor, x: Tensor, y: Tensor, threat: ThreatModel, loss: Loss, steps: int, best: Best
) -> None:
    for n in range(steps):
        logits, gradient = ascent(model, z, lambda logits: loss(logits, y))
        best.keep(z, logits)
        z = moved(z, gradient, x, threat, (1 + math.cos(math.pi * n / steps)) / 2)
    with torch.no_grad():
        best.keep(z, model(z))


@attack(
    "a3", library=LIBRARY, norms=("Linf",), needs="gradient", cost=_cost,
    check=_check, reference="Liu et al. 2022, arXiv 2203.05154; super-fitting paper, Eq. 4-6",
)  # fmt: skip
def a3(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int,
    restarts: int = 10, init_steps: int = 8, steps: int = 25, loss: str = "margin", signs: str = "fixed",
) -> Tensor:  # fmt: skip
    """Diversified starts and a cosine step size; the image of highest margin over all restarts.

    loss "margin": the original's, where all restarts but the first climb towards one of nine runner-up classes in turn
    (weight 0.8, true class drawn from [-0.5, 0.1]). loss "ce": as the super-fitting paper ran it, each direction
    uniform, which is all of Eq. 4 and 5: of the original's statistics it says that they change part of the direction
    and gain little. signs "statistics": the two weights have the signs that the uniform directions of the first restart had on
    average where they led to success (0.8 or -0.8; [-0.5, 0.1] or [-0.1, 0.5]). In the authors' public code round 0 takes
    no steps along a direction, the signs come from round 1, and the whole data set is counted; here the images that are
    attacked together are, so it is not the default.
    10 restarts of 8 and 25 steps, where that code takes 13 rounds of 7 to 15 steps along a direction and 5 to 60 after
    them, the last rounds with up to 50 restarts.
    Not carried over: the discarding of images that look hard, which saves time and breaks nothing more. Images met on
    the way to a start count, as in the original; the combination of logits that is climbed there cannot saturate, so
    the start may break what the CE steps after it do not.
    """
    chosen, observe, best = choice("a3", "loss", loss, LOSSES), choice("a3", "signs", signs, SIGNS), Best(x, y)
    with torch.no_grad():
        clean = model(x)
    order = clean.scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)[:, :-1]
    best.keep(x, clean)
    seen = USUAL
    for restart in range(restarts):
        adaptive = loss == "margin" and restart > 0
        target = (restart - 1) % min(TARGETS, order.shape[1]) if adaptive else None
        weights = _directions(y, order, target, seen)
        z = _start(model, x, weights, threat, init_steps, best)
        _climb(model, z, x, y, threat, chosen, steps, best)
        if observe and loss == "margin" and restart == 0:
            seen = _observed(model, y, weights, best)
    return best.x
