"""Several runs of one attack, of which each image keeps its best: restarts from other points, and target classes.

A targeted run climbs towards one class and is judged like any other: whatever class an image ends in, it is adversarial
when that is not its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from audit.attacks.common import Cost, choice
from audit.geometry import distance
from audit.margins import margin_loss
from audit.types import Norm

EACH = 9  # runner-up classes that target "each" goes through: all others of ten, as AutoAttack's targeted parts do
TARGETS: Mapping[str, str] = {
    "none": "away from the true class",
    "second": "the likeliest other class of the clean image (the most confusing one)",
    "least-likely": "its least likely class",
    "random": "another class drawn for each image",
    "each": f"each of the {EACH} likeliest other classes in turn",
}
Run = Callable[[Tensor | None], Tensor]  # images towards the classes (n,), or away from the true ones


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """values (n,) shaped to multiply with `like` (n, c, h, w)."""
    return values.view(-1, *[1] * (like.ndim - 1))


class Best:
    """The images with the highest margin so far: `x` (n, c, h, w), at first the clean ones."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self._y = x.clone(), y
        self._margin = torch.full((len(x),), float("-inf"), device=x.device)

    def keep(self, z: Tensor, logits: Tensor) -> None:
        """Look at images z of which `logits` (n, k) are known."""
        margin = margin_loss(logits.detach(), self._y).to(self._margin.dtype)
        better = margin > self._margin  # false for NaN
        self.x = torch.where(per_row(better, z), z.detach(), self.x)
        self._margin = torch.where(better, margin, self._margin)


class Nearest:
    """The nearest adversarial images so far in `norm`: `x` (n, c, h, w), the clean image where there is none."""

    def __init__(self, x: Tensor, y: Tensor, norm: Norm) -> None:
        self.x, self._clean, self._y, self._norm = x.clone(), x, y, norm
        self._reach = torch.full((len(x),), float("inf"), device=x.device)

    def keep(self, z: Tensor, logits: Tensor) -> None:
        """Look at images z of which `logits` (n, k) are known."""
        away = distance(z, self._clean, self._norm).masked_fill(logits.argmax(1) == self._y, float("inf"))
        nearer = away < self._reach  # false for NaN
        self.x = torch.where(per_row(nearer, z), z.detach(), self.x)
        self._reach = torch.where(nearer, away, self._reach)


def goals(model: nn.Module, x: Tensor, y: Tensor, target: str) -> list[Tensor | None]:
    """The classes (n,) to run towards, a tensor for each run; [None] for target "none". Costs one pass otherwise."""
    if target == "none":
        return [None]
    with torch.no_grad():
        logits = model(x)
    others = logits.scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)[:, :-1]
    if target == "random":
        drawn = torch.randint(others.shape[1], (len(x), 1)).to(x.device)
        return [others.gather(1, drawn)[:, 0]]
    return [
        others[:, i] for i in {"second": (0,), "least-likely": (-1,)}.get(target, range(min(EACH, others.shape[1])))
    ]


def best_of(
    name: str, run: Run, model: nn.Module, x: Tensor, y: Tensor, *, target: str = "none", restarts: int = 1,
    nearest: Norm | None = None,
) -> Tensor:  # fmt: skip
    """What `run` makes of images x (n, c, h, w) with labels y (n,); of several runs the best image of each row.

    Best is the highest margin, so that one success is enough; with `nearest`, the nearest adversarial image in that
    norm. A single run is returned as it is. Where no run gives numbers, the last one's NaN are passed on. name: of the
    attack, for BadInput when it has no such target.
    """
    choice(name, "target", target, TARGETS)
    runs = goals(model, x, y, target) * restarts
    if len(runs) == 1:
        return run(runs[0])
    best: Best | Nearest = Best(x, y) if nearest is None else Nearest(x, y, nearest)
    lost = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for goal in runs:
        z = run(goal)
        with torch.no_grad():
            logits = model(z)
        lost &= ~(torch.isfinite(z).flatten(1).all(1) & torch.isfinite(logits).all(1))
        best.keep(z, logits)
    return torch.where(per_row(lost, x), z, best.x)


def in_rounds(cost: Cost) -> Cost:
    """The cost of an attack with options `target` and perhaps `restarts`, from that of one run."""

    def total(params: Mapping[str, Any]) -> tuple[int, int]:
        forwards, backwards = cost(params)
        target, runs = params["target"], int(params.get("restarts", 1))
        runs *= EACH if target == "each" else 1
        looks = (runs if runs > 1 else 0) + (target != "none")  # at each result, and at the clean images
        return runs * forwards + looks, runs * backwards

    return total


class Toward(nn.Module):
    """`model` with two logits for images (n, c, h, w): the largest of the other classes', and that of class `goal`.

    An attack away from class 0 of this is one towards `goal`; on the margin its loss is the targeted margin.
    """

    def __init__(self, model: nn.Module, goal: int) -> None:
        super().__init__()
        self.model, self.goal = model, goal
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        mine = torch.arange(logits.shape[1], device=logits.device) == self.goal
        return torch.stack([logits.masked_fill(mine, float("-inf")).amax(1), logits[:, self.goal]], 1)


def class_by_class(run: Callable[[nn.Module, Tensor, Tensor], Tensor], model: nn.Module, x: Tensor, y: Tensor) -> Run:
    """A `Run` from an attack (model, images, labels) without targets: the images of one goal at a time, by `Toward`."""

    def aimed(goal: Tensor | None) -> Tensor:
        if goal is None:
            return run(model, x, y)
        found = x.clone()
        for label in goal.unique().tolist():
            rows = (goal == label).nonzero().flatten()
            found[rows] = run(Toward(model, label), x[rows], torch.zeros_like(y[rows]))
        return found

    return aimed
