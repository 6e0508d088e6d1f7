"""Does the model hide its gradient? Vanishing, saturated, random, or squeezed through a second softmax."""

from __future__ import annotations

from audit.diagnoses.common import ZERO_SHARE, averaged, bridged, remedied, status
from audit.results import Results
from audit.types import Diagnosis

NOTHING_CORRECT = "no image that was measured is classified correctly, so no gradient could be judged"


def vanishing_gradient(results: Results) -> Diagnosis:
    share, n = float(results.plan.profile["zero_gradient"]), int(results.plan.profile["clean_correct"])
    if results.plan.profile.get("gradient_cut", False):
        return Diagnosis(
            "vanishing_gradient", "not_measured", None, ZERO_SHARE, n, "there is no gradient to measure (shattered)",
            "see shattered_gradient", False, "Athalye et al. 2018 (vanishing gradients)",
        )  # fmt: skip
    sentence = (
        f"the cross-entropy gradient is exactly zero in float32 on {share:.1%} of {n} correctly classified images"
    )
    return Diagnosis(
        "vanishing_gradient", status(share > ZERO_SHARE, resolved=remedied(results)) if n else "not_measured",
        share if n else None, ZERO_SHARE, n, sentence if n else NOTHING_CORRECT,
        "attack rescaled or float64 CE and losses of logit differences (margin, DLR), until they have gradients", True,
        "Athalye et al. 2018 (vanishing gradients); AutoAttack's zero-gradient flag, measured under CE",
    )  # fmt: skip


def shattered_gradient(results: Results) -> Diagnosis:
    """No gradient leads from the logits to the images: every attack that follows it stands still."""
    cut = bool(results.plan.profile.get("gradient_cut", False))
    return Diagnosis(
        "shattered_gradient", status(cut, resolved=bridged(results)), float(cut), 0.0,
        int(results.plan.profile["n"]),
        "no gradient of the defense leads to its input: a part of it is not differentiable" if cut
        else "the gradient leads from the logits to the input", "attack through BPDA or unrolling, and by transfer",
        True, "Athalye et al. 2018 (shattered gradients); Pintor et al. 2022, indicator 1",
    )  # fmt: skip


def saturated_softmax(results: Results) -> Diagnosis:
    share, n = float(results.plan.profile["saturated"]), int(results.plan.profile["clean_correct"])
    gap = float(results.plan.profile["logit_gap"])
    sentence = f"softmax gives every other class exactly zero on {share:.1%} of {n} images (median logit gap {gap:.3g})"
    return Diagnosis(
        "saturated_softmax", status(share > ZERO_SHARE, resolved=remedied(results)) if n else "not_measured",
        share if n else None, ZERO_SHARE, n, sentence if n else NOTHING_CORRECT,
        "divide the logits by their median gap before the softmax", False,
        "Carlini and Wagner 2017 (defensive distillation); super-fitting Eq. 15 and 16",
    )  # fmt: skip


def randomized(results: Results) -> Diagnosis:
    """Randomness that the defense declares is resolved by averaged gradients; undeclared randomness is not."""
    drift = float(results.plan.profile["max_draw_difference"])
    declared = "stochastic" in results.plan.identity.get("traits", ())
    return Diagnosis(
        "randomized", status(drift > 1e-4, resolved=declared and averaged(results)), drift, 1e-4,
        int(results.plan.profile["n"]), f"repeated passes change the normalised logits by up to {drift:.2g}",
        "declare the trait stochastic, average the attack's gradient over draws (EOT) and judge on fresh ones", True,
        "AutoAttack's randomized flag; Athalye et al. 2018 (stochastic gradients)",
    )  # fmt: skip


def softmax_output(results: Results) -> Diagnosis:
    found = bool(results.plan.profile["softmax_output"])
    return Diagnosis(
        "softmax_output", status(found, resolved=remedied(results)), float(found), 0.0,
        int(results.plan.profile["n"]),
        "the model returns probabilities" if found else "the model returns logits",
        "return logits; CE would apply softmax twice", True, "AutoAttack's softmax flag",
    )  # fmt: skip
