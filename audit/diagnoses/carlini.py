"""What of the checklist of Carlini et al. 2019 can be computed from a run; more steps and eps are with Pintor's, Athalye's."""

from __future__ import annotations

import numpy as np

from audit.diagnoses.common import counted, status, unmeasured, white_box
from audit.diagnoses.pintor import NO_CLAIMED
from audit.diagnoses.settled import DOUBLED, MOVED, gain
from audit.results import Results
from audit.stats import mcnemar
from audit.step_results import StepResult
from audit.types import Diagnosis

MISSED = 0.005


def claimed_attacks_too_weak(results: Results) -> Diagnosis:
    """Paired comparison of the claimed attacks with the worst case on the same images.

    Resolved once the audit's figure is that worst case: all has run, and the images that prove it were judged again.
    """
    name, remedy, reference = "claimed_attacks_too_weak", "report the worst case per image over all attacks", "Carlini et al. 2019, On Evaluating Adversarial Robustness, worst case per example"  # fmt: skip
    claimed, worst = results.survives_claimed, results.survives_all
    if not results.claimed:
        return unmeasured(name, NO_CLAIMED, remedy, reference, 0.01, len(claimed))
    more = claimed & ~worst
    drop, left, p = float(more.mean()), float(claimed.mean()), mcnemar(claimed, worst)
    return Diagnosis(
        name, status(drop > 0.01 and p < 0.01, resolved=counted(results, more)), drop, 0.01, len(claimed),
        f"of the {left:.1%} of all images that the claimed attacks leave standing, others break "
        f"{drop / left if left else 0.0:.1%} ({100 * drop:.1f} points of all images, McNemar p = {p:.2g})", remedy, False,
        reference,
    )  # fmt: skip


def more_steps_help(results: Results) -> Diagnosis:
    """Twice the steps and restarts must change the worst case by less than half a point."""
    name, remedy, reference = "more_steps_help", "more steps and restarts still (--set)", "Carlini et al. 2019, more iterations and restarts until nothing changes"  # fmt: skip
    doubled = [r for r in results.steps if r.step.name.startswith(DOUBLED) and r.done]
    if not doubled:
        return unmeasured(name, "the steps were not doubled in this suite", remedy, reference, MOVED)
    share = gain(doubled[-1], results)
    crashed = bool(doubled[-1].errors.any())
    return Diagnosis(
        name, status(share >= MOVED or crashed), share, MOVED, int(doubled[-1].attacked.sum()),
        f"{doubled[-1].step.name} crashed" if crashed else _more(doubled[-1], share), remedy, True, reference,
    )  # fmt: skip


def _more(step: StepResult, share: float) -> str:
    tried = int(step.attacked.sum())
    what = step.step.why.partition(";")[0]
    return f"{what}, on {tried} survivors, break {int(step.broken.sum())} of them: {share:.1%} of all images more"


def white_box_misses(results: Results) -> Diagnosis:
    """Image by image: what gradient attacks on the whole defense tried and missed, and transfer or scores broke.

    It does not block, and is resolved once the worst case per image counts these as broken, judged again; it says that
    the gradient was not the best guide.
    """
    name, remedy, reference = "white_box_misses", "more steps, other losses, BPDA or EOT for the gradient attacks", "Carlini et al. 2019, white-box at least as good as black-box per example"  # fmt: skip
    whites = white_box(results)
    names = {r.step.name for r in whites}
    others = [r for r in results.counted if r.done and r.step.name not in names]
    if not whites or not others:
        return unmeasured(
            name, "attacks with and without the defense's gradient have not both run", remedy, reference, MISSED
        )
    tried, won, elsewhere = (np.zeros_like(results.correct) for _ in range(3))
    for result in whites:
        tried, won = tried | result.attacked, won | result.broken
    for result in others:
        elsewhere |= result.broken
    missed = tried & ~won & elsewhere
    share = float(missed.mean())
    return Diagnosis(
        name, status(share > MISSED, resolved=counted(results, missed)), share, MISSED, len(missed),
        f"{int(missed.sum())} images fell to transfer or scores and not to the gradients that tried them", remedy, False,
        reference,
    )  # fmt: skip


def weakened_attacks(results: Results) -> Diagnosis:
    """An attack made weaker than its suite has it may still break images; what it leaves standing proves nothing."""
    weakened = list(results.plan.identity.get("weakened", ()))
    return Diagnosis(
        "weakened_attacks", status(bool(weakened)), float(len(weakened)), 0.0, len(results.steps),
        f"weaker than the suite has it: {'; '.join(weakened)}" if weakened
        else "every attack is at least as strong as its suite has it",
        "run without --set", True, "Carlini et al. 2019, attack parameters",
    )  # fmt: skip
