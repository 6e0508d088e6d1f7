"""Can the gradient be trusted as a number? Its precision under cross-entropy, its zeros, and how far it foretells the loss.

None of these blocks: where one stands for a masked gradient, `vanishing_gradient`, `masked_gradient` or
`unstable_gradient` blocks, and those say why. The bars lie between what trained networks and what planted flaws reach;
docs/diagnoses.md has the figures.
"""

from __future__ import annotations

from audit.diagnoses.common import NOT_EXAMINED, bridged, estimated, remedied, status, unmeasured
from audit.randomness import random
from audit.results import Results
from audit.types import Diagnosis

NEAR = "0.1"  # of eps: about what an attack moves in one iteration
BENT = 0.4  # gap of local linearity; trained networks reach 0.23
OTHERWISE = 0.5  # cosine of two gradients that should agree; trained networks reach 0.88, batch statistics 0.58
STILL = 0.5  # share of pixels that sign(0) leaves alone; noise behind a ReLU reaches 0.35


def ce_precision(results: Results) -> Diagnosis:
    """The CE gradient in float32 against the one in float64 and the one of rescaled logits: the lower cosine counts.

    Random numbers differ between float32 and float64, so a random model is compared with rescaled logits alone.
    """
    name, remedy, reference = "ce_precision", "attack CE on rescaled logits or in float64, and logit differences (margin, DLR)", "Carlini and Wagner 2017; Croce and Hein 2020, on the scale of logits"  # fmt: skip
    profile = results.plan.profile
    found = {
        "in float64": None if random(profile) else profile.get("ce_cosine_float64"),
        "of rescaled logits": profile.get("ce_cosine_rescaled"),
    }
    seen = {what: float(value) for what, value in found.items() if value is not None}
    if not seen:
        return unmeasured(name, _why(results, "ce_cosine_rescaled"), remedy, reference, OTHERWISE)
    lowest = min(seen.values())
    said = " and ".join(f"a median cosine of {value:.2f} with the one {what}" for what, value in seen.items())
    return Diagnosis(
        name, status(lowest < OTHERWISE, resolved=remedied(results)), lowest, OTHERWISE, int(profile["examined"]),
        f"the CE gradient in float32 has {said}", remedy, False, reference,
    )  # fmt: skip


def sign_of_zero(results: Results) -> Diagnosis:
    """Attacks in Linf step along sign(gradient), and sign(0) = 0 moves nothing; the share is that of the CE gradient."""
    name, remedy, reference = "sign_of_zero", "other losses, or BPDA where no loss has a gradient", "Goodfellow et al. 2015 (steps along the sign); AutoAttack's zero-gradient flag, pixel by pixel"  # fmt: skip
    losses = results.plan.profile.get("loss_gradients") or {}
    ce, margin = losses.get("ce"), losses.get("margin")
    if not ce or ce.get("zero_pixels") is None:
        return unmeasured(name, _why(results, "loss_gradients"), remedy, reference, STILL)
    share = float(ce["zero_pixels"])
    said = f"the CE gradient is exactly zero at {share:.0%} of an image's pixels (median)"
    if margin and margin.get("zero_pixels") is not None:
        said += f", that of the margin at {margin['zero_pixels']:.0%}"
    return Diagnosis(
        name, status(share > STILL, resolved=remedied(results) or bridged(results)), share, STILL,
        int(results.plan.profile["examined"]), said, remedy, False, reference,
    )  # fmt: skip


def local_linearity(results: Results) -> Diagnosis:
    """How wrong the gradient is about the loss a tenth of eps away, where one iteration of an attack lands."""
    name, remedy, reference = "local_linearity", "more restarts and steps, or gradients estimated from scores over a radius (NES, SPSA)", "Qin et al. 2019, arXiv 1907.02610 (local linearity), relative to the sum of the rise and the one foretold"  # fmt: skip
    gaps = results.plan.profile.get("linearity_gap")
    if not gaps or gaps.get(NEAR) is None:
        return unmeasured(name, _why(results, "linearity_gap"), remedy, reference, BENT)
    gap, turned = float(gaps[NEAR]), (results.plan.profile.get("gradient_cosine") or {}).get(NEAR)
    said = (
        f"one step of eps/10 along the sign of the gradient: what the margin does and what was foretold differ by {gap:.0%} "
        "of the sum of both (median)"
    )
    if turned is not None:
        said += f"; gradients that far apart have a median cosine of {turned:.2f}"
    return Diagnosis(
        name, status(gap > BENT, resolved=estimated(results)), gap, BENT, int(results.plan.profile["examined"]),
        said, remedy, False, reference,
    )  # fmt: skip


def _why(results: Results, key: str) -> str:
    if key not in results.plan.profile:
        return NOT_EXAMINED
    return "there is no gradient, or no image is classified correctly"
