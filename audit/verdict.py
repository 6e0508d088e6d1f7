"""From a claim and the records to a verdict. Pure and free of torch.

Breaking proves itself: "refuted" rests on verified adversarial images alone, and counts every unknown image as
robust. Surviving must be earned: "upheld" counts every unknown as broken and needs every blocking diagnosis clear
or resolved. All else is "inconclusive".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audit.results import Results
from audit.stats import clopper_pearson, estimate
from audit.types import Claim, Diagnosis, Verdict


def judge_claim(claim: Claim | None, results: Results, diagnoses: Sequence[Diagnosis]) -> Verdict:
    """The verdict on `claim`; None means that neither a number was claimed nor the claimed attacks were run."""
    unknown = int(results.unknown.sum())
    if claim is None:
        reason = (
            "no claim to judge: the suite ran none of the attacks that a claim rests on; "
            "add --claim-robust 0.84, or use --suite adaptive"
        )
        return Verdict("inconclusive", (reason,), unknown)
    refuted, compatible, numbers = _compare(claim, results)
    blockers = [d for d in diagnoses if d.blocking and d.status in ("flagged", "not_measured")]
    intact = not any(d.name == "run_integrity" and d.status == "flagged" for d in diagnoses)
    if refuted and intact:
        return Verdict("refuted", (f"Refuted: {numbers}", *_causes(diagnoses)), unknown)
    obstacles = [f"{d.name}: {d.sentence}" if d.status == "flagged" else f"{d.name} was not measured" for d in blockers]
    if results.missing:
        obstacles.insert(0, f"{results.missing} units of the plan have not run")
    if unknown:
        obstacles.insert(0, f"{unknown} images are unknown because an attack failed on them")
    if not compatible:
        obstacles.insert(0, "the interval leaves both answers open; audit more images (--n)")
    if obstacles:
        return Verdict("inconclusive", (f"Inconclusive: {numbers}", *obstacles), unknown)
    return Verdict(
        "upheld", (f"Upheld: {numbers}", "every control and blocking diagnosis is clear or resolved"), unknown
    )


def _compare(claim: Claim, results: Results) -> tuple[bool, bool, str]:
    """(refuted, compatible with the claim, the sentence with the numbers).

    A measured claim is compared image by image: the interval is that of the share of images that the claimed attacks
    leave standing and others break. A printed or typed one is compared with the interval of the worst case.
    """
    n, worst, unknown = len(results.correct), results.survives_all, results.unknown
    adaptive = estimate(int(worst.sum()), n)
    where = f"n = {n}, {results.plan.threat}"
    if claim.basis == "measured":
        standing = results.survives_claimed
        complete = len(results.claimed) == sum(r.step.suite == "claimed" for r in results.steps)
        low, _ = clopper_pearson(int(np.sum(standing & ~worst)), n)
        _, high = clopper_pearson(int(np.sum(standing & ~(worst & ~unknown))), n)
        numbers = (
            f"the claimed attacks leave {estimate(int(standing.sum()), n)} robust accuracy, "
            f"the worst case over all attacks {adaptive} ({where})"
        )
        return complete and low > claim.tolerance, high <= claim.tolerance, numbers
    floor = claim.robust_acc - claim.tolerance
    unseen = results.prediction < 0  # the clean pass has not come to these images
    lenient, strict = estimate(int((worst | unseen).sum()), n), estimate(int((worst & ~unknown).sum()), n)
    numbers = (
        f"the claim is {claim.robust_acc:.1%} ({claim.source}), the worst case over all attacks {adaptive} ({where})"
    )
    return lenient.interval[1] < floor, strict.accuracy >= floor, numbers


def _causes(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """Why the claimed number was wrong: the diagnoses that fired, gradient masking first."""
    names = {"vanishing_gradient": "vanishing gradients", "saturated_softmax": "saturated softmax"}
    fired = [d for d in diagnoses if d.status in ("flagged", "resolved")]
    return [f"{names.get(d.name, d.name.replace('_', ' '))}: {d.sentence}" for d in fired]
