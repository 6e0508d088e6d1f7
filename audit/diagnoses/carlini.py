"""What of the checklist of Carlini et al. 2019 can be computed from a run; more steps and eps are with Pintor's, Athalye's."""

from __future__ import annotations

import math

import numpy as np

from audit.diagnoses.common import status, unmeasured, white_box
from audit.diagnoses.pintor import NO_CLAIMED
from audit.diagnoses.settled import MOVED, gain
from audit.results import Results
from audit.stats import mcnemar
from audit.types import Diagnosis

MISSED = 0.005
DOUBLED = "doubled-"


def claimed_attacks_too_weak(results: Results) -> Diagnosis:
    """Paired comparison of the claimed attacks with the worst case on the same images."""
    claimed, worst = results.survives_claimed, results.survives_all
    drop = float(np.mean(claimed & ~worst)) if results.claimed else math.nan
    p = mcnemar(claimed, worst)
    sentence = (
        f"other attacks break {drop:.1%} of all images that the claimed attacks leave standing (McNemar p = {p:.2g})"
    )
    return Diagnosis(
        "claimed_attacks_too_weak", status(drop > 0.01 and p < 0.01) if results.claimed else "not_measured",
        drop if results.claimed else None, 0.01, len(claimed), sentence if results.claimed else NO_CLAIMED,
        "report the worst case per image over all attacks", False,
        "Carlini et al. 2019, On Evaluating Adversarial Robustness, worst case per example",
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
        f"{doubled[-1].step.name} crashed" if crashed
        else f"{doubled[-1].step.why} breaks {share:.1%} of all images more", remedy, True, reference,
    )  # fmt: skip


def white_box_misses(results: Results) -> Diagnosis:
    """Image by image: what gradient attacks on the whole defense tried and missed, and transfer or scores broke.

    The worst case per image counts these as broken, so it does not block; it says that the gradient was not the best guide.
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
        name, status(share > MISSED, resolved=True), share, MISSED, len(missed),
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
