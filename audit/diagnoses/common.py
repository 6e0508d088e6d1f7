"""What several diagnoses ask of the steps: did a remedy run, and could it work?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from audit.results import Results
from audit.rules import FEW
from audit.step_results import Bools, StepResult
from audit.transfers import SCORES
from audit.types import Diagnosis, DiagnosisStatus

UNSATURATED = ("rescaled-ce", "float64-ce", "apgd-margin", "apgd-dlr", "apgd-t", "fab-t")
BLACK_BOX = ("square",)
ESTIMATORS = ("nes", "spsa")  # gradients from scores over a radius: they see neither a false gradient nor a rough loss
BRIDGES = ("bpda", "front", "unroll")  # adapters that give a part another backward pass
DECISIONS = ("rays", "hopskipjump", "boundary")
NOT_EXAMINED = "this run directory is older than the measurement"
ZERO_SHARE = 0.01  # more zero gradients than this are a finding, and a remedy has to stay below the same bar


def status(flagged: bool, *, resolved: bool = False) -> DiagnosisStatus:
    if not flagged:
        return "clear"
    return "resolved" if resolved else "flagged"


def unmeasured(name: str, why: str, remedy: str, reference: str, threshold: float = 0.0, samples: int = 0) -> Diagnosis:
    """What was not measured blocks nothing by itself: it is optional, has no meaning here, or is newer than the run."""
    return Diagnosis(name, "not_measured", None, threshold, samples, why, remedy, False, reference)


def ran_clean(result: StepResult) -> bool:
    """The step ran on all its images and crashed on none."""
    return result.done and not result.errors.any()


def control_left(results: Results) -> tuple[int, int]:
    """(images that unbounded controls attacked, images that none of them broke).

    A control that looked through a useless gradient is repaired by one that looked past it.
    """
    controls = [r for r in results.steps if r.step.scope == "control"]
    attacked = np.logical_or.reduce([r.attacked for r in controls]) if controls else np.zeros(0, bool)
    broken = np.logical_or.reduce([r.broken for r in controls]) if controls else attacked
    return int(attacked.sum()), int((attacked & ~broken).sum())


def counted(results: Results, images: Bools) -> bool:
    """Does the worst case per image count these images (n,) as broken, for good?

    Nothing is left to run, and every stored image was judged again and none of these was rejected.
    """
    rejected = np.zeros_like(images)
    rejected[np.asarray(results.checks.get("rejected_ids", ()), dtype=np.int64)] = True
    judged_again = "rejected_ids" in results.checks or results.checks.get("rejected") == 0
    return judged_again and not results.missing and not bool((images & rejected).any())


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


def telling(results: Results) -> list[StepResult]:
    """The counted steps but trials, and claimed attacks too dear end to end, which looked at a few images only."""
    return [r for r in results.counted if r.step.scope != "trial" and r.step.limit != FEW]


def controlled(results: Results) -> bool:
    """An unbounded attack has run and broken every image."""
    attacked, left = control_left(results)
    return attacked > 0 and left == 0


def remedied(results: Results) -> bool:
    """Losses that cannot saturate ran whole and without error, one at least had gradients, the control fell to zero."""
    ran = results.named(*UNSATURATED)
    return all(map(ran_clean, ran)) and any(map(effective, ran)) and controlled(results)


def estimated(results: Results) -> bool:
    """Gradients estimated from scores, and Square, ran on the whole defense without error, and the control fell to zero."""
    return ran_whole(results, ESTIMATORS) and ran_whole(results, BLACK_BOX) and controlled(results)


def ran_whole(results: Results, attacks: tuple[str, ...]) -> bool:
    """One of `attacks` has run on the whole defense, to its end and without error."""
    return any(ran_clean(r) and r.step.attack in attacks and not r.step.transfers for r in telling(results))


def through(results: Results) -> dict[str, bool]:
    """What a part without a useful gradient asks for, and whether it ran without a crash."""

    def any_step(fits: Callable[[StepResult], bool]) -> bool:
        return any(ran_clean(r) and fits(r) for r in telling(results))

    return {
        "a step through BPDA or unrolling": any_step(lambda r: adapts(r, *BRIDGES)),
        "a step made on the bare network": any_step(lambda r: adapts(r, "base", "inner")),
        "Square end to end": ran_whole(results, BLACK_BOX),
    }


def white_box(results: Results) -> tuple[StepResult, ...]:
    """The finished steps that follow the gradient of the whole defense and have a say in the accuracy."""
    return tuple(
        r
        for r in telling(results)
        if r.done
        and not r.step.transfers
        and not adapts(r, "inner")
        and r.step.attack not in SCORES
        and r.attacked.any()
        and r.backwards > 0
    )


def bridged(results: Results) -> bool:
    """An attack through BPDA or unrolling ran whole and without error, and had gradients or broke everything."""
    return any(ran_clean(r) and effective(r) for r in telling(results) if adapts(r, *BRIDGES))


def averaged(results: Results) -> bool:
    """A counted step whose gradient is a mean over draws (EOT) ran without error."""
    return any(ran_clean(r) and (adapts(r, "eot") or _draws(r) > 1) for r in telling(results))


def most_draws(results: Results) -> int:
    """The most draws over which a step that ran without error averaged its gradient."""
    return max((_draws(r) for r in telling(results) if ran_clean(r)), default=1)


def _draws(result: StepResult) -> int:
    adapters = (int(a.params.get("k", 1)) for a in result.step.adapters if a.name == "eot")
    return max([int(result.step.params.get("eot_iter", 1)), *adapters])


def adapts(result: StepResult, *names: str) -> bool:
    """Does the step look through an adapter of that name?"""
    return any(adapter.name in names for adapter in result.step.adapters)
