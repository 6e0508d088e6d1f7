"""Is the model a function of the image alone, and are its answers fine enough for attacks that read scores?"""

from __future__ import annotations

from audit.diagnoses.common import DECISIONS, NOT_EXAMINED, ran_whole, status, unmeasured
from audit.results import Results
from audit.types import Diagnosis

DRIFT = 1e-4  # AutoAttack's bar; zoo networks stay below 5e-7
DISTINCT = 0.5
REJECTED = 0.1
UNCOUNTED = (
    "nobody has said how many classes the images have: the labels that are there may lack one (--dataset NAME says it)"
)


def batch_dependent(results: Results) -> Diagnosis:
    """An attacker who chooses the batch chooses the answer; and what one batch breaks, another may not."""
    name, remedy, reference = "batch_dependent", "make each answer depend on its own image (BatchNorm with running statistics)", "Carlini et al. 2019; RobustBench issue 7"  # fmt: skip
    profile = results.plan.profile
    change = profile.get("batch_difference")
    if change is None:
        why = "the model is random, so batches cannot be compared" if "batch_difference" in profile else NOT_EXAMINED
        return unmeasured(name, why, remedy, reference, DRIFT)
    flips = float(profile.get("batch_flips") or 0.0)
    return Diagnosis(
        name, status(change > DRIFT), float(change), DRIFT, int(profile["examined"]),
        f"alone, in another order or among others, an image's normalised logits change by up to {change:.2g}"
        + (f", and {flips:.0%} of the images change their class" if flips else ""), remedy, True, reference,
    )  # fmt: skip


def stateful(results: Results) -> Diagnosis:
    """Memory, declared or not, stays flagged: no step here resets it between queries."""
    name, remedy, reference = "stateful", "declare the trait stateful, and attack fresh copies of the defense by hand", "Tramer et al. 2020, arXiv 2002.08347"  # fmt: skip
    profile = results.plan.profile
    found = profile.get("stateful")
    if found is None:
        return unmeasured(name, NOT_EXAMINED, remedy, reference, DRIFT)
    changed, drift = list(profile.get("state_changes") or ()), float(profile.get("state_drift") or 0.0)
    what = f"{', '.join(changed[:3])} changes" if changed else "nothing that can be seen changes"
    return Diagnosis(
        name, status(bool(found)), drift, DRIFT, int(profile["examined"]),
        f"the model remembers its queries: {what}, and its normalised logits drift by {drift:.2g}" if found
        else "the model does not change by being asked", remedy, True, reference,
    )  # fmt: skip


def quantised_output(results: Results) -> Diagnosis:
    """It blocks nothing by itself: a rounding in front of the logits also cuts the gradient, which does."""
    name, remedy, reference = "quantised_output", "run an attack that asks for decisions alone (rays, hopskipjump, boundary)", "Carlini et al. 2019, decision-based attacks"  # fmt: skip
    profile = results.plan.profile
    if "logit_step" not in profile:
        return unmeasured(name, NOT_EXAMINED, remedy, reference, DISTINCT)
    step, share = profile["logit_step"], float(profile["distinct_logits"])
    few = share < DISTINCT and not profile["softmax_output"]  # probabilities repeat where they are 0 and 1
    found = step is not None or few
    grid = f"all lie on a grid of step {step:.3g}" if step is not None else "they lie on no grid"
    return Diagnosis(
        name, status(found, resolved=ran_whole(results, DECISIONS)), share, DISTINCT, int(profile["examined"]),
        f"{share:.0%} of the logits are distinct, and {grid}", remedy, False, reference,
    )  # fmt: skip


def reject_class(results: Results) -> Diagnosis:
    """One output more than the images have classes, in which attacked images end: a detector that declares nothing.

    Which class means "rejected" cannot be proven from answers, so nothing is refuted by such images, and nothing upheld.
    A model with several outputs too many was trained on more classes, which is no flaw.
    """
    name, remedy, reference = "reject_class", "declare the trait rejects (--trait rejects), and attack the detector and the classifier together by hand", "Carlini and Wagner 2017, arXiv 1705.07263"  # fmt: skip
    outputs, classes = int(results.plan.profile["classes"]), len(results.plan.runtime.get("classes", ()))
    if results.outside is None:
        return unmeasured(name, UNCOUNTED, remedy, reference, REJECTED)
    fell, outside = int((results.correct & ~results.survives_all).sum()), int((results.outside & results.correct).sum())
    share = outside / fell if fell else 0.0
    one_more = outputs == classes + 1
    return Diagnosis(
        name, status(one_more and share > REJECTED), share, REJECTED, fell,
        f"the model has {outputs} outputs for {classes} classes, and of {fell} broken images {outside} end in the one "
        "that no image has: if it means that an image is rejected, they are not broken" if one_more
        else f"the model has {outputs} outputs for images of {classes} classes", remedy, True, reference,
    )  # fmt: skip
