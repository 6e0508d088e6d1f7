"""When has a finding been answered? When its remedy ran, and the worst case no longer moves."""

from __future__ import annotations

from audit.diagnoses.common import effective, ran_clean
from audit.results import Results
from audit.stats import total
from audit.step_results import StepResult
from audit.transfers import SCORES

DOUBLED = "doubled-"  # steps that repeat the best one with twice the steps and restarts
MOVED = 0.005  # a smaller change of the worst case than half a point is none
OWN_TERMS = ("randomized", "declared_")  # these say themselves what resolves them


def settled(results: Results) -> frozenset[str]:
    """Names of the diagnoses whose steps ran without a crash and could work, once the last round moved nothing.

    Trials answer nothing: what they show has to be used on all that stands. Nor do steps by transfer that go beside
    others: they never saw the whole defense. Of the steps that follow a gradient, one at least must have had one.
    """
    if not results.plan.rounds or results.missing or _last_move(results) >= MOVED:
        return frozenset()
    by_name = {r.step.name: r for r in results.steps}
    done, failed = set[str](), set[str]()
    for found in results.plan.rounds:
        ran = [by_name[s.name] for s in found.steps if s.scope not in ("trial", "control") and not s.transfers]
        if ran:
            (done if all(map(ran_clean, ran)) and _could_work(ran) else failed).update(found.remedies)
    return frozenset(name for name in done - failed if not name.startswith(OWN_TERMS))


def nothing_stands(results: Results) -> bool:
    """Has every image fallen for certain, and everything run? Then no stronger attack is wanted."""
    return not results.missing and bool(results.steps) and not results.p_worst.any()


def _could_work(ran: list[StepResult]) -> bool:
    followed = [r for r in ran if r.step.attack not in SCORES]
    return not followed or any(map(effective, followed))


def _closes(result: StepResult) -> bool:
    return result.step.name.startswith(DOUBLED) and ran_clean(result) and effective(result)


def gain(result: StepResult, results: Results) -> float:
    """How far the step lowered the worst case, scaled up where it looked at some of those that stood.

    For a random defense that is the mean drop of P(correct): an image that was wrong on most draws before counts with
    what it lost since.
    """
    attacked = int(result.attacked.sum())
    if not attacked:
        return 0.0
    index = results.steps.index(result)
    before, standing = (
        (results.steps[index - 1].p_after, results.steps[index - 1].alive_after) if index
        else (results.p_clean, results.correct)
    )  # fmt: skip
    lost = max(total(before - result.p_after), 0.0)
    return lost / attacked * float((standing & results.correct).sum()) / len(results.correct)


def _last_move(results: Results) -> float:
    """How far the last round, and all since it began, lowered the worst case; what a step on some images broke is scaled.

    Where twice the steps and restarts were tried on what the round had left, that alone says whether more is to be had.
    """
    last = {step.name for step in results.plan.rounds[-1].steps}
    places = [i for i, r in enumerate(results.steps) if r.step.name in last]
    closing = [i for i in places if _closes(results.steps[i])]
    first = (closing or places or [len(results.steps)])[-1 if closing else 0]
    before = results.steps[first - 1].p_after if first else results.p_clean
    limited = (r for r in results.steps[first:] if r.step.limit and r.step.scope == "survivors")
    return max([total(before - results.p_worst) / len(before), *(gain(r, results) for r in limited)])
