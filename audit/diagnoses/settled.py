"""When has a finding been answered? When its remedy ran, and the worst case no longer moves."""

from __future__ import annotations

from audit.diagnoses.common import ran_clean
from audit.results import Results
from audit.stats import total

MOVED = 0.005  # a smaller change of the worst case than half a point is none


def settled(results: Results) -> frozenset[str]:
    """Names of the diagnoses whose steps, in all rounds, ran without a crash, once the last round moved nothing."""
    if not results.plan.rounds or results.missing or _last_move(results) >= MOVED:
        return frozenset()
    done, failed = set[str](), set[str]()
    start = len(results.plan.suite_steps)
    for found in results.plan.rounds:
        ran = results.steps[start : start + len(found.steps)]
        start += len(found.steps)
        clean = all(ran_clean(r) for r in ran if r.step.scope != "trial")
        (done if clean else failed).update(found.remedies)
    return frozenset(done - failed)


def _last_move(results: Results) -> float:
    """How far the last round lowered the worst case."""
    before = results.steps[-len(results.plan.rounds[-1].steps) - 1].p_after
    return total(before - results.p_worst) / len(before)
