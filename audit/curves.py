"""Robust accuracy at every radius, from the distances that least-norm attacks found. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audit.results import Results
from audit.stats import estimate
from audit.step_results import StepResult
from audit.types import Estimate, ThreatModel

MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Curve:
    """One least-norm attack: the share of all n images with no adversarial image found within each radius.

    median: over the correctly classified images, infinite where it found none for half of them. missed: images for
    which it found none at any distance.
    """

    step: str
    median: float
    missed: int
    points: tuple[tuple[float, Estimate], ...]


def curves(results: Results) -> list[Curve]:
    """Of the attacks that measured a distance for every correctly classified image.

    By transfer only where a claim asks for it: beside an attack on the whole, such distances say nothing of the defense.
    """
    asked = (r for r in results.counted if r.done and (r.step.suite == "claimed" or not r.step.transfers))
    return [_curve(r, results.plan.threat) for r in asked if _measured(r, results)]


def _measured(result: StepResult, results: Results) -> bool:
    return bool(results.correct.any()) and not np.isnan(result.nearest[results.correct]).any()


def _curve(result: StepResult, threat: ThreatModel) -> Curve:
    near = np.where(np.isnan(result.nearest), 0, result.nearest)  # misclassified
    radii = [r for r in (threat.eps * m for m in MULTIPLES) if threat.norm != "Linf" or r <= 1]
    slack = 1e-6
    points = tuple((r, estimate(int((near > r * (1 + slack) + slack).sum()), len(near))) for r in radii)
    found = result.nearest[result.attacked]
    return Curve(result.step.name, float(np.median(found)), int(np.isinf(found).sum()), points)
