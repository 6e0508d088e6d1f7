"""What becomes of an attack's images: each is fixed first, then judged on draws that no attack saw.

An attack leaves up to three images behind for each clean one: the image that it returned, the first one that fooled
the model it saw, and the one with the lowest margin there. One stream of draws says which of them are adversarial and
chooses the worst; another, by which the clean images are judged too, gives the figure of each. A deterministic defense
answers the same on both, so it is asked once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters.probe import Probe
from audit.geometry import distance, project
from audit.margins import margin_loss
from audit.oracle import Oracle
from audit.types import ThreatModel

DONE = 0.05  # an image that is right in at most one of twenty draws is not attacked again
RETURNED, FIRST, LOWEST = "returned", "first", "lowest"


@dataclass(frozen=True)
class Bench:
    """The scoring draws of a shard: the same for its clean images and for whatever an attack made of them.

    Randomness is drawn for a batch, so the images of an attack are judged in the places of their clean ones, which keep
    theirs where the attack was not asked. oracle: at the start of its draws; x, y: the shard's clean images and labels;
    seats: where in the shard the attacked images sit, int64 (m,).
    """

    oracle: Oracle
    x: Tensor
    y: Tensor
    seats: Tensor

    def p_correct(self, images: Tensor) -> Tensor:
        """P(correct) of images (m, c, h, w) in those seats: float32 (m,), NaN where a logit was no number."""
        shard = self.x.clone()
        shard[self.seats] = images
        return self.oracle.judge(shard, self.y, strict=False).p_correct[self.seats]


@dataclass(frozen=True)
class Court:
    """select: chooses among candidates; score: None for a deterministic defense, else fresh draws for the figures;
    bare: judges by the bare network, where the attack saw only that.
    """

    select: Oracle
    score: Bench | None = None
    bare: Oracle | None = None

    def fooled(self, images: Tensor, y: Tensor) -> Tensor:
        """Which images (n, c, h, w) are done, to the selecting draws: bool (n,)."""
        judged = self.select.judge(images, y, strict=False)
        return judged.valid & (judged.p_correct <= DONE)

    def figures(self, images: Tensor, chosen: Tensor) -> Tensor:
        """P(correct) of fixed images by draws that chose nothing: float32 (n,), NaN where `chosen`, by those that did, is."""
        if self.score is None or bool(chosen.isnan().all()):
            return chosen
        return self.score.p_correct(images).where(~chosen.isnan(), chosen)


@dataclass
class Case:
    """The worst image of each row so far. p: P(correct) by the selecting draws, figure: by those that chose nothing; NaN
    while nothing was judged.
    """

    x: Tensor
    y: Tensor
    court: Court
    worst: Tensor = field(init=False)
    p: Tensor = field(init=False)
    figure: Tensor = field(init=False)
    prediction: Tensor = field(init=False)
    invalid: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.worst, self.prediction = self.x.clone(), self.y.clone()
        self.p = torch.full((len(self.x),), float("nan"), device=self.x.device)
        self.figure = self.p.clone()
        self.invalid = torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)

    def hear(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Judge one candidate for each of `rows` (bool (n,)): P(correct) by the selecting draws, and its figure; NaN
        elsewhere: float32 (n,).
        """
        heard = torch.full_like(self.p, float("nan"))
        index = rows.nonzero().flatten()
        if not len(index):
            return heard, heard
        judged = self.court.select.judge(images[index], self.y[index], strict=False)
        heard[index] = judged.p_correct
        self.invalid[index] |= ~judged.valid
        better = judged.valid & ~(judged.p_correct >= self.p[index])
        take = index[better]
        self.worst[take], self.p[take] = images[take], heard[take]
        self.prediction[take] = judged.prediction[better]
        figures = self.court.figures(images, heard)
        self.figure[take] = figures[take]
        return heard, figures


def judge_attack(
    court: Court,
    probe: Probe,
    candidate: Tensor | None,
    usable: Tensor,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    minimal: bool = False,
) -> dict[str, NDArray[Any]]:
    """The columns of a unit: what the deployed defense says of everything that an attack left behind.

    candidate: the images returned, or None when the attack ended early or failed; usable: bool (n,), false where the
    returned image is no number; minimal: the attack looked for the nearest adversarial image, so its distance counts.
    """
    case = Case(x, y, court)
    columns: dict[str, Tensor] = {}
    returned_broken: Tensor | None = None
    everyone = torch.ones_like(usable)
    first, lowest, shape = probe.first_query, probe.best_query, (-1, *[1] * (x.ndim - 1))
    if candidate is not None:
        returned = project(torch.where(usable.view(shape), candidate, x), x, threat)
        heard, columns[RETURNED] = case.hear(returned, usable)
        returned_broken = heard < 0.5
        if minimal:
            columns["nearest"] = _nearest(court.select, candidate, usable, x, y, threat)
        if court.bare is not None:
            seen = court.bare.judge(returned, y, strict=False)
            columns["base"] = seen.p_correct
            # What an attack returns was often never a query: the last step of PGD, the only one of FGSM.
            late = usable & (seen.p_correct < 0.5) & ~(probe.best_margin < 0)  # no query fooled, so it came first
            first = torch.where(late.view(shape), returned, first)
            lower = usable & (-margin_loss(seen.logits, y) < probe.best_margin)  # false for NaN
            lowest = torch.where(lower.view(shape), returned, lowest)
    if court.bare is not None:
        # An image that was never fooled stays clean in "first", as a cascade of attacks returns it.
        _, columns[FIRST] = case.hear(project(first, x, threat), everyone)
        _, columns[LOWEST] = case.hear(project(lowest, x, threat), everyone)
    else:
        met = (probe.best_margin < 0) & ~(case.p <= DONE)
        case.hear(project(probe.best_query, x, threat), met)
    broken = case.p < 0.5  # false for NaN
    nearest = columns.pop("nearest", torch.full_like(case.p, float("nan")))
    return {
        "broken": broken.cpu().numpy(),
        "returned_broken": (broken if returned_broken is None else returned_broken).cpu().numpy(),
        "unjudged": (case.invalid & ~broken).cpu().numpy(),
        "p_select": case.p.cpu().numpy(),
        "p": case.figure.cpu().numpy(),
        **{f"p_{name}": column.cpu().numpy() for name, column in columns.items()},
        "prediction": case.prediction.cpu().numpy(),
        "distance": distance(case.worst, x, threat.norm).cpu().numpy() if len(x) else np.zeros(0, np.float32),
        "nearest": nearest.cpu().numpy(),
        "worst": case.worst.cpu().numpy(),
    }


def _nearest(oracle: Oracle, images: Tensor, usable: Tensor, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """How far each returned image lies, wherever that is: float32 (n,). Infinite where it is not adversarial, NaN where
    it is no number.
    """
    if not len(x):
        return torch.zeros(0, device=x.device)
    free = torch.where(usable.view(-1, *[1] * (x.ndim - 1)), images, x).clamp(*threat.bounds)
    judged = oracle.judge(free, y, strict=False)
    far = distance(free, x, threat.norm).masked_fill(~(judged.valid & (judged.p_correct < 0.5)), float("inf"))
    return far.masked_fill(~usable, float("nan"))


def keep_worst(columns: Mapping[str, NDArray[Any]], best: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Store images only where they lower P(correct) below `best`, the lowest that earlier steps reached: (n,)."""
    rest = {name: column for name, column in columns.items() if name != "worst"}
    kept = rest["p_select"] < best
    kept |= rest["broken"]
    return {**rest, "kept": kept, "x_adv": columns["worst"][kept]}
