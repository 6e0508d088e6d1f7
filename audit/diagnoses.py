"""Reasons that a robust accuracy may lie, each a pure function of the results.

A diagnosis that is flagged has a remedy; it is "resolved" when the steps that are the remedy ran without error and
the unbounded control shows that they can break this model. Names and thresholds follow the sources cited in each.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binomtest

from audit.results import Results
from audit.stats import mcnemar
from audit.types import Diagnosis, DiagnosisStatus

UNSATURATED = ("rescaled-ce", "float64-ce", "apgd-margin", "apgd-dlr", "apgd-t", "fab-t")
BLACK_BOX = ("square",)


def diagnose(results: Results) -> tuple[Diagnosis, ...]:
    """Every diagnosis of a run, in a fixed order."""
    return (
        vanishing_gradient(results),
        saturated_softmax(results),
        claimed_attacks_too_weak(results),
        unbounded_control(results),
        silent_success(results),
        black_box_beats_white_box(results),
        randomized(results),
        softmax_output(results),
        clean_accuracy_handshake(results),
        adapter_forward(results),
        run_integrity(results),
    )


def _remedied(results: Results) -> bool:
    """A loss that cannot saturate was run, whole and without error, and the control fell to zero."""
    ran = results.named(*UNSATURATED)
    control = unbounded_control(results)
    return bool(ran) and not any(r.errors.any() for r in ran) and control.status == "clear"


def _status(flagged: bool, *, resolved: bool = False) -> DiagnosisStatus:
    if not flagged:
        return "clear"
    return "resolved" if resolved else "flagged"


def vanishing_gradient(results: Results) -> Diagnosis:
    share, n = float(results.plan.profile["zero_gradient"]), int(results.plan.profile["clean_correct"])
    flagged = share > 0.01
    sentence = (
        f"the cross-entropy gradient is exactly zero in float32 on {share:.1%} of {n} correctly classified images"
    )
    return Diagnosis(
        "vanishing_gradient", _status(flagged, resolved=_remedied(results)) if n else "not_measured",
        share if n else None, 0.01, n, sentence,
        "attack rescaled or float64 CE and losses of logit differences (margin, DLR)", True,
        "Athalye et al. 2018 (vanishing gradients); AutoAttack's zero-gradient flag, measured under CE",
    )  # fmt: skip


def saturated_softmax(results: Results) -> Diagnosis:
    share, n = float(results.plan.profile["saturated"]), int(results.plan.profile["clean_correct"])
    gap = float(results.plan.profile["logit_gap"])
    return Diagnosis(
        "saturated_softmax", _status(share > 0.01, resolved=_remedied(results)) if n else "not_measured",
        share if n else None, 0.01, n,
        f"softmax gives every other class exactly zero on {share:.1%} of {n} images (median logit gap {gap:.3g})",
        "divide the logits by their median gap before the softmax", False,
        "Carlini and Wagner 2017 (defensive distillation); super-fitting Eq. 15 and 16",
    )  # fmt: skip


def claimed_attacks_too_weak(results: Results) -> Diagnosis:
    """Paired comparison of the claimed attacks with the worst case on the same images."""
    claimed, worst = results.survives_claimed, results.survives_all
    drop = float(np.mean(claimed & ~worst)) if results.claimed else math.nan
    p = mcnemar(claimed, worst)
    return Diagnosis(
        "claimed_attacks_too_weak", _status(drop > 0.01 and p < 0.01) if results.claimed else "not_measured",
        drop if results.claimed else None, 0.01, len(claimed),
        f"other attacks break {drop:.1%} of all images that the claimed attacks leave standing (McNemar p = {p:.2g})",
        "report the worst case per image over all attacks", False,
        "Carlini et al. 2019, On Evaluating Adversarial Robustness, worst case per example",
    )  # fmt: skip


def unbounded_control(results: Results) -> Diagnosis:
    """The unconstrained attack must break every image: else the attack failed, not the defense held."""
    controls = [r for r in results.steps if r.step.scope == "control" and r.attacked.any()]
    attacked = sum(int(r.attacked.sum()) for r in controls)
    left = attacked - sum(int(r.broken.sum()) for r in controls)
    share = left / attacked if attacked else math.nan
    return Diagnosis(
        "unbounded_control", _status(left > 0) if attacked else "not_measured", share if attacked else None, 0.0,
        attacked, f"with no bound but the box, {left} of {attacked} images survive",
        "change the loss or the adapters until the unbounded attack breaks everything", True,
        "Athalye et al. 2018; Pintor et al. 2022, indicator 6",
    )  # fmt: skip


def silent_success(results: Results) -> Diagnosis:
    steps = [r for r in results.claimed if r.step.scope == "all"]
    silent = np.zeros_like(results.correct)
    for result in steps:
        silent |= result.silent
    share = float(silent.mean())
    return Diagnosis(
        "silent_success", _status(bool(silent.any()), resolved=True) if steps else "not_measured",
        share if steps else None, 0.0, len(silent),
        f"a claimed attack passed through an adversarial image of {int(silent.sum())} images and returned another one",
        "keep the best query; the worst case counts these images as broken", False, "Pintor et al. 2022, indicator 3",
    )  # fmt: skip


def black_box_beats_white_box(results: Results) -> Diagnosis:
    steps = [r for r in results.named(*BLACK_BOX) if r.step.scope == "survivors"]
    whites = [r for r in results.counted if r.step.name not in BLACK_BOX]
    extra = sum(int(r.broken.sum()) for r in steps)
    share = extra / len(results.correct)
    measured = bool(steps) and bool(whites)
    return Diagnosis(
        "black_box_beats_white_box", _status(share > 0.005) if measured else "not_measured",
        share if measured else None, 0.005, len(results.correct),
        f"Square breaks {extra} images that every gradient attack left standing",
        "more steps and restarts, other losses, or BPDA for the gradient attacks", True,
        "Athalye et al. 2018, sign 2; AutoAttack's Square flag",
    )  # fmt: skip


def randomized(results: Results) -> Diagnosis:
    drift = float(results.plan.profile["max_draw_difference"])
    return Diagnosis(
        "randomized", _status(drift > 1e-4), drift, 1e-4, int(results.plan.profile["n"]),
        f"repeated passes change the normalised logits by up to {drift:.2g}",
        "average the attack's gradient over draws (EOT) and judge on fresh ones", True,
        "AutoAttack's randomized flag; Athalye et al. 2018 (stochastic gradients)",
    )  # fmt: skip


def softmax_output(results: Results) -> Diagnosis:
    found = bool(results.plan.profile["softmax_output"])
    return Diagnosis(
        "softmax_output", _status(found, resolved=_remedied(results)), float(found), 0.0,
        int(results.plan.profile["n"]),
        "the model returns probabilities" if found else "the model returns logits",
        "return logits; CE would apply softmax twice", True, "AutoAttack's softmax flag",
    )  # fmt: skip


def clean_accuracy_handshake(results: Results) -> Diagnosis:
    """Is this the model that its authors measured? Exact binomial test against the recorded clean accuracy."""
    expected = results.plan.identity.get("expected_clean_acc")
    right, n = int(results.correct.sum()), len(results.correct)
    measured = expected is not None and bool((results.prediction >= 0).all())
    p = float(binomtest(right, n, float(expected)).pvalue) if expected is not None else math.nan
    hint = "; is the input normalised twice?" if measured and right / n < 0.5 * float(expected or 0) else ""
    sentence = f"clean accuracy is {right / n:.1%}" + (f", recorded is {expected:.1%}{hint}" if expected else "")
    return Diagnosis(
        "clean_accuracy_handshake", _status(p < 1e-3) if measured else "not_measured",
        right / n if measured else None, 1e-3, n, sentence,
        "check the value range, the normalisation, the channel order and the weights", True,
        "binomial test, p below 0.001",
    )  # fmt: skip


def adapter_forward(results: Results) -> Diagnosis:
    """Adapters may change gradients, not answers."""
    found = results.checks.get("forward_mismatch")
    worst = max(found.values(), default=0.0) if found is not None else math.nan
    return Diagnosis(
        "adapter_forward", _status(worst > 0.01) if found is not None else "not_measured",
        worst if found is not None else None, 0.01, int(results.plan.profile["n"]),
        f"adapted models classify {worst:.1%} of the images otherwise than the defense",
        "use adapters whose forward pass equals the defense's", True, "forward equality",
    )  # fmt: skip


def run_integrity(results: Results) -> Diagnosis:
    """Was the model left as it was, and do the stored images still prove what the records say?"""
    checks = results.checks
    wrong = int(checks.get("rejected", 0)) + int(not checks.get("model_unchanged", True))
    return Diagnosis(
        "run_integrity", _status(wrong > 0) if checks else "not_measured", float(wrong) if checks else None, 0.0,
        int(checks.get("verified", 0)),
        f"{checks.get('verified', 0)} stored adversarial images were judged again with another batch size, "
        f"{checks.get('rejected', 0)} rejected; the model is {'unchanged' if checks.get('model_unchanged', True) else 'CHANGED'}",
        "find what changes the model, or what depends on the batch", True,
        "Carlini et al. 2019; RobustBench issue 7",
    )  # fmt: skip
