"""Were the attacks strong enough? Compared with one another, with an unbounded control, and with their own suite."""

from __future__ import annotations

import math

import numpy as np

from audit.diagnoses.common import BLACK_BOX, control_left, ran_clean, status
from audit.results import Results
from audit.stats import mcnemar
from audit.types import Diagnosis

NO_CLAIMED = "no claimed attack has run on all its images, so there is nothing to compare"


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


def unbounded_control(results: Results) -> Diagnosis:
    """The unconstrained attack must break every image: else the attack failed, not the defense held."""
    attacked, left = control_left(results)
    crashed = sum(int(r.errors.sum()) for r in results.steps if r.step.scope == "control")
    sentence = f"with no bound but the box, {left} of {attacked} images survive"
    if crashed:
        sentence += f", {crashed} of them because the attack crashed"
    return Diagnosis(
        "unbounded_control", status(left > 0) if attacked else "not_measured", left / attacked if attacked else None,
        0.0, attacked, sentence if attacked else "no unbounded attack has run on any image",
        "change the loss or the adapters until the unbounded attack breaks everything (suites adaptive and quick have one)",
        True, "Athalye et al. 2018; Pintor et al. 2022, indicator 6",
    )  # fmt: skip


def silent_success(results: Results) -> Diagnosis:
    steps = [r for r in results.claimed if r.step.scope == "all"]
    silent = np.zeros_like(results.correct)
    for result in steps:
        silent |= result.silent
    sentence = f"of {int(silent.sum())} images a claimed attack met an adversarial one on its way and returned another"
    return Diagnosis(
        "silent_success", status(bool(silent.any()), resolved=True) if steps else "not_measured",
        float(silent.mean()) if steps else None, 0.0, len(silent), sentence if steps else NO_CLAIMED,
        "keep the best query; the worst case counts these images as broken", False, "Pintor et al. 2022, indicator 3",
    )  # fmt: skip


def black_box_beats_white_box(results: Results) -> Diagnosis:
    """A score-based step that crashed has not looked at its images, and clears nothing."""
    steps = [r for r in results.named(*BLACK_BOX) if r.step.scope == "survivors"]
    whites = [r for r in results.counted if r.step.name not in BLACK_BOX]
    extra = sum(int(r.broken.sum()) for r in steps)
    share = extra / len(results.correct)
    measured = bool(steps) and bool(whites) and (share > 0.005 or all(map(ran_clean, steps)))
    return Diagnosis(
        "black_box_beats_white_box", status(share > 0.005) if measured else "not_measured",
        share if measured else None, 0.005, len(results.correct),
        f"Square breaks {extra} images that every gradient attack left standing" if measured
        else "Square has not run, without a crash, on what gradient attacks leave standing",
        "more steps and restarts, other losses, or BPDA for the gradient attacks (suites adaptive and standard run Square)",
        True, "Athalye et al. 2018, sign 2; AutoAttack's Square flag",
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
