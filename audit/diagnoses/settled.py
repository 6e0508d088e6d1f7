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
    by_name = {r.step.name: r for r in results.steps}
    done, failed = set[str](), set[str]()
    for found in results.plan.rounds:
        clean = all(ran_clean(by_name[s.name]) for s in found.steps if s.scope != "trial")
        (done if clean else failed).update(found.remedies)
    return frozenset(done - failed)


def _last_move(results: Results) -> float:
    """How far everything since the last round began lowered the worst case."""
    last = {step.name for step in results.plan.rounds[-1].steps}
    first = next((i for i, r in enumerate(results.steps) if r.step.name in last), len(results.steps))
    before = results.steps[first - 1].p_after if first else results.p_clean
    return total(before - results.p_worst) / len(before)
