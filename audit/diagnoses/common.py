"""What several diagnoses ask of the steps: did a remedy run, and could it work?"""

from __future__ import annotations

import numpy as np

from audit.results import Results, StepResult
from audit.types import DiagnosisStatus

UNSATURATED = ("rescaled-ce", "float64-ce", "apgd-margin", "apgd-dlr", "apgd-t", "fab-t")
BLACK_BOX = ("square",)
ZERO_SHARE = 0.01  # more zero gradients than this are a finding, and a remedy has to stay below the same bar


def status(flagged: bool, *, resolved: bool = False) -> DiagnosisStatus:
    if not flagged:
        return "clear"
    return "resolved" if resolved else "flagged"


def ran_clean(result: StepResult) -> bool:
    """The step ran on all its images and crashed on none."""
    return result.done and not result.errors.any()


def control_left(results: Results) -> tuple[int, int]:
    """(images that the unbounded controls attacked, images that they did not break)."""
    controls = [r for r in results.steps if r.step.scope == "control"]
    attacked = sum(int(r.attacked.sum()) for r in controls)
    return attacked, attacked - sum(int(r.broken.sum()) for r in controls)


def zero_gradients(result: StepResult) -> float | None:
    """Mean share of zero gradients along a step; None when it recorded no gradient (it asks for scores alone)."""
    shares = np.concatenate([np.asarray(t)[:, 3] for t in result.traces]) if result.traces else np.zeros(0)
    finite = shares[np.isfinite(shares)]
    return float(finite.mean()) if len(finite) else None


def effective(result: StepResult) -> bool:
    """The step had gradients to follow, or broke every image that it attacked, and so needs no other proof."""
    share = zero_gradients(result)
    if share is not None and share <= ZERO_SHARE:
        return True
    return bool(result.attacked.any()) and bool(result.broken[result.attacked].all())


def remedied(results: Results) -> bool:
    """Losses that cannot saturate ran whole and without error, one at least had gradients, the control fell to zero."""
    ran = results.named(*UNSATURATED)
    attacked, left = control_left(results)
    controlled = attacked > 0 and left == 0
    return all(map(ran_clean, ran)) and any(map(effective, ran)) and controlled


def bridged(results: Results) -> bool:
    """An attack through BPDA or unrolling ran whole and without error, and had gradients or broke everything."""
    return any(ran_clean(r) and effective(r) for r in results.counted if adapts(r, "bpda", "unroll"))


def averaged(results: Results) -> bool:
    """A counted step whose gradient is a mean over draws (EOT) ran without error."""
    return any(ran_clean(r) and (adapts(r, "eot") or _draws(r) > 1) for r in results.counted)


def _draws(result: StepResult) -> int:
    return int(result.step.params.get("eot_iter", 1))


def adapts(result: StepResult, *names: str) -> bool:
    """Does the step look through an adapter of that name?"""
    return any(adapter.name in names for adapter in result.step.adapters)
