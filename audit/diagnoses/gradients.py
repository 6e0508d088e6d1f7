"""Does the model hide its gradient? Vanishing, saturated, infinite, false, or without meaning on a rough loss."""

from __future__ import annotations

from audit.diagnoses.common import NOT_EXAMINED, ZERO_SHARE, bridged, estimated, remedied, status, unmeasured
from audit.results import Results
from audit.types import Diagnosis

NOTHING_CORRECT = "no image that was measured is classified correctly, so no gradient could be judged"
NO_GRADIENT = "there is no gradient to compare (shattered_gradient)"
STEP = "0.1"  # of eps: about what an attack moves in one iteration
FALSE = (
    0.4  # cosine with the true slopes; zoo networks reach 0.92 to 1.00, sign(g), with which attacks lose nothing, 0.48
)
ROUGH = (
    0.7  # cosine of slopes over eps/1000 and eps/10; zoo networks reach 0.99 to 1.00, k-winners-take-all at most 0.41
)
EXPLODES = 0.01
STEEPER = 100.0  # times the true slope; trained networks reach 1.07, a ripple 27, which is false and no explosion


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
    losses = results.plan.profile.get("loss_gradients") or {}
    if share > ZERO_SHARE and losses.get("margin"):
        sentence += f", that of the margin on {losses['margin']['zero']:.1%} of a sample"
    elif (there := (losses.get("ce") or {}).get("zero_in_ball")) is not None:
        sentence += f"; at random points of the ball on {there:.1%}"
    return Diagnosis(
        "vanishing_gradient", status(share > ZERO_SHARE, resolved=remedied(results)) if n else "not_measured",
        share if n else None, ZERO_SHARE, n, sentence if n else NOTHING_CORRECT,
        "attack rescaled or float64 CE and losses of logit differences (margin, DLR), until they have gradients", True,
        "Athalye et al. 2018 (vanishing gradients); AutoAttack's zero-gradient flag, measured under CE",
    )  # fmt: skip


def saturated_softmax(results: Results) -> Diagnosis:
    profile = results.plan.profile
    share, n = float(profile["saturated"]), int(profile["clean_correct"])
    gap = float(profile["logit_gap"])
    sentence = f"softmax gives every other class exactly zero on {share:.1%} of {n} images (median logit gap {gap:.3g})"
    top = profile.get("softmax_saturated")
    if top is not None:
        sentence += f", and more than 1 - 1e-7 to one class on {top:.1%} of a sample"
    cosine = profile.get("ce_cosine_float64")
    if share > ZERO_SHARE and cosine is not None:
        sentence += f"; the CE gradients in float32 and in float64 have a median cosine of {cosine:.2f}"
    return Diagnosis(
        "saturated_softmax", status(share > ZERO_SHARE, resolved=remedied(results)) if n else "not_measured",
        share if n else None, ZERO_SHARE, n, sentence if n else NOTHING_CORRECT,
        "divide the logits by their median gap before the softmax", False,
        "Carlini and Wagner 2017 (defensive distillation); super-fitting Eq. 15 and 16",
    )  # fmt: skip


def exploding_gradient(results: Results) -> Diagnosis:
    """A gradient that is NaN or infinite, which attacks turn into a step of zero or an image that is no number; or one
    that lies far above the slope that finite differences over eps/10 find.
    """
    name, remedy, reference = "exploding_gradient", "attack through BPDA or unrolling, so that the part that overflows is not differentiated", "Athalye et al. 2018 (exploding gradients)"  # fmt: skip
    losses = results.plan.profile.get("loss_gradients") or {}
    shares = {loss: float(losses[loss]["bad"]) for loss in ("margin", "ce") if losses.get(loss)}
    if "margin" not in shares:
        return unmeasured(name, _why(results, "loss_gradients"), remedy, reference, EXPLODES)
    loss = max(shares, key=lambda name: shares[name])
    share = shares[loss]
    ratio = (results.plan.profile.get("difference_ratio") or {}).get(STEP)
    steep = ratio is not None and ratio > STEEPER
    said = f"the gradient of {'CE' if loss == 'ce' else 'the margin'} is NaN or infinite on {share:.1%} of the images examined"
    if ratio is not None:
        said += f", and has {ratio:.3g} times the size of the slopes over eps/10 (median)"
    return Diagnosis(
        name, status(share > EXPLODES or steep, resolved=bridged(results)), ratio if steep else share,
        STEEPER if steep else EXPLODES, int(results.plan.profile["examined"]), said, remedy, True, reference,
    )  # fmt: skip


def masked_gradient(results: Results) -> Diagnosis:
    """A gradient that is there and false: the loss has a clear slope, and it is another one."""
    name = "masked_gradient"
    remedy = "attack with gradients estimated from scores (SPSA, NES) and Square, or find the false gradient and pass it by (BPDA)"  # fmt: skip
    reference = "gradient against central differences; Athalye et al. 2018 (incorrect gradients)"
    cosine, agreement = _slopes(results)
    if cosine is None or agreement is None:
        return unmeasured(name, _why(results, "difference_cosine"), remedy, reference, FALSE)
    return Diagnosis(
        name, status(cosine < FALSE and agreement >= ROUGH, resolved=estimated(results)), cosine, FALSE,
        int(results.plan.profile["examined"]),
        f"slopes by the gradient and by differences over eps/10 have a median cosine of {cosine:.2f}", remedy, True, reference,
    )  # fmt: skip


def unstable_gradient(results: Results) -> Diagnosis:
    """A loss so rough that its slope over a thousandth of eps says nothing of that over a tenth: k-winners-take-all."""
    name = "unstable_gradient"
    remedy = "attack with gradients estimated from scores over a radius (SPSA, NES) and Square"
    reference = "Tramer et al. 2020, arXiv 2002.08347, Sec. 5 (k-winners-take-all); Pintor et al. 2022, indicator 2"
    cosine, agreement = _slopes(results)
    if cosine is None or agreement is None:
        return unmeasured(name, _why(results, "slope_agreement"), remedy, reference, ROUGH)
    return Diagnosis(
        name, status(agreement < ROUGH, resolved=estimated(results)), agreement, ROUGH,
        int(results.plan.profile["examined"]),
        f"slopes of the loss over eps/1000 and over eps/10 have a median cosine of {agreement:.2f}"
        + (f", slopes over eps/10 and the gradient one of {cosine:.2f}" if agreement < ROUGH else ""),
        remedy, True, reference,
    )  # fmt: skip


def _slopes(results: Results) -> tuple[float | None, float | None]:
    profile = results.plan.profile
    cosines, agreement = profile.get("difference_cosine"), profile.get("slope_agreement")
    return (None, None) if not cosines else (cosines.get(STEP), agreement)


def _why(results: Results, key: str) -> str:
    if key not in results.plan.profile:
        return NOT_EXAMINED
    return NO_GRADIENT if results.plan.profile.get("gradient_cut") else NOTHING_CORRECT
