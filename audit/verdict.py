"""From a claim and the records to a verdict. Pure and free of torch.

Breaking proves itself: "refuted" rests on verified adversarial images alone, and counts every unknown image as
robust. Surviving must be earned: "upheld" counts every unknown as broken and needs every blocking diagnosis clear
or resolved. All else is "inconclusive", with reasons that name what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audit.diagnoses.index import in_words
from audit.diagnoses.kind import NONE, masking
from audit.results import Results
from audit.routes import end_to_end_ran
from audit.stats import clopper_pearson, estimate, paired_interval, total
from audit.step_results import Bools, Floats
from audit.types import Claim, Diagnosis, Verdict

OPEN = "the interval leaves both answers open; audit more images (a larger --n, or the whole test set)"
OBSTACLES = frozenset(
    {
        "run_integrity",
        "adapter_forward",
        "clean_accuracy_handshake",
        "weakened_attacks",
        "end_to_end",
        "incomplete_optimisation",
        "binarisation",
        "too_few_classes",
    }
)


@dataclass(frozen=True)
class Comparison:
    """A claim held against the numbers.

    refuted: even if every unknown image were robust; upheld: even if every one were broken; undecided: the interval
    contains the bar whatever became of them; numbers: the sentence; doubts: why the numbers may not be compared;
    crashed: images that others broke and on which a claimed attack crashed.
    """

    refuted: bool
    upheld: bool
    undecided: bool
    numbers: str
    doubts: tuple[str, ...] = ()
    crashed: int = 0


def judge_claim(claim: Claim | None, results: Results, diagnoses: Sequence[Diagnosis]) -> Verdict:
    """The verdict on `claim`; None means that neither a number was claimed nor the claimed attacks were measured."""
    unknown = int(unknown_images(results).sum())
    if claim is None:
        return Verdict("inconclusive", (f"no claim to judge: {_why_no_claim(results)}", *_masking(results)), unknown)
    found = _measured(claim, results) if claim.basis == "measured" else _stated(claim, results)
    if found.refuted and not found.doubts and _intact(results, diagnoses):
        return Verdict("refuted", (f"Refuted: {found.numbers}", *_masking(results), *_causes(diagnoses)), unknown)
    obstacles = _obstacles(found, results, diagnoses)
    if obstacles or not found.upheld:
        return Verdict("inconclusive", (f"Inconclusive: {found.numbers}", *_masking(results), *obstacles), unknown)
    tried = "" if results.checks.get("controls") else "; the attack was tried on no network whose answer is known"
    earned = f"every control and blocking diagnosis is clear or resolved{tried}"
    return Verdict("upheld", (f"Upheld: {found.numbers}", *_masking(results), earned), unknown)


def rejected_images(results: Results) -> Bools:
    """Images of which no stored adversarial image stood up when it was judged again, and one at least did not."""
    mask = np.zeros_like(results.correct)
    found = results.checks.get("unproven_ids", results.checks.get("rejected_ids", ()))
    mask[np.asarray(found, dtype=np.int64)] = True
    return mask


def standing_images(results: Results) -> Bools:
    """What nothing has broken, as far as is proven: an image counts as broken only while its proof stands."""
    return results.survives_all | rejected_images(results) & results.correct


def proven(results: Results, p: Floats) -> Floats:
    """P(correct) of each image's worst case `p` (n,), where rejected proofs count for nothing: float32 (n,)."""
    return np.where(rejected_images(results), results.p_clean, p)


def unknown_images(results: Results) -> Bools:
    """Standing images on which an attack crashed, or whose adversarial image was rejected."""
    return results.unknown | rejected_images(results) & results.correct


def worst_case(results: Results) -> str:
    """The worst case over all attacks in words; "at most" where an attack crashed or has not run."""
    seen = int((results.prediction >= 0).sum())
    if not seen:
        return "not measured yet"
    if not end_to_end_ran(results):
        return "not measured, since no attack saw the whole defense"
    bound = "at most " if results.missing or unknown_images(results).any() else ""
    return f"{bound}{estimate(total(proven(results, results.p_worst)), seen)}"


def _intact(results: Results, diagnoses: Sequence[Diagnosis]) -> bool:
    """The model was left alone, and every image whose proof was rejected is known by its number."""
    checks = results.checks
    if "rejects" in results.plan.identity.get("traits", ()):
        return False  # which class means "rejected" is not known here, so a rejected image would count as broken
    if any(d.name == "reject_class" and d.status == "flagged" for d in diagnoses):
        return False  # nor here, where nobody declares it
    if not checks.get("model_unchanged", True):
        return False
    fails = any(d.name == "run_integrity" and d.status == "flagged" for d in diagnoses)
    return "rejected_ids" in checks or not (fails or checks.get("rejected", 0))


def _why_no_claim(results: Results) -> str:
    steps = [r for r in results.steps if r.step.suite == "claimed"]
    if not steps:
        return (
            "the suite ran none of the attacks that a claim rests on; add --claim-robust 0.84, or use --suite adaptive"
        )
    if crashed := [r for r in steps if r.errors.any()]:
        message = next((m for r in crashed for m in r.messages), "no message")
        names = ", ".join(r.step.name for r in crashed)
        return f"the claimed attacks crashed ({names}); the first said: {message}; type --claim-robust with the claimed number"
    if not all(r.done for r in steps):
        return "the claimed attacks have not run to their end; the same command resumes the run"
    return "no image is classified correctly, so the claimed attacks had nothing to attack"


def _stated(claim: Claim, results: Results) -> Comparison:
    """A printed or typed number against the interval of the worst case."""
    n, bar = len(results.correct), claim.robust_acc - claim.tolerance
    standing, unseen = proven(results, results.p_worst), results.prediction < 0
    bounds = (np.where(unseen, 1, standing), np.where(unknown_images(results), 0, standing))
    most, least = (estimate(total(shares), n).interval for shares in bounds)
    numbers = (
        f"the claim is {claim.robust_acc:.1%} ({claim.source}), the worst case over all attacks {worst_case(results)} "
        f"({_where(results)})"
    )
    return Comparison(most[1] < bar, least[0] >= bar, most[0] < bar <= least[1], numbers)


def _measured(claim: Claim, results: Results) -> Comparison:
    """Image by image: what the claimed attacks leave standing and the worst case does not.

    An image on which a claimed attack crashed is no proof of a gap, and may be part of one.
    """
    returned = np.zeros_like(results.correct)
    for result in results.steps:
        if result.step.suite == "claimed":
            returned |= result.returned
    crashed = results.correct & ~results.survives_claimed & ~returned
    certain, possible = _gaps(results, returned) if results.plan.draws == 1 else _mean_gaps(results)
    claimed = estimate(total(results.p_claimed), len(results.correct))
    numbers = (
        f"the claimed attacks leave {'at least ' if crashed.any() else ''}{claimed} robust accuracy, "
        f"the worst case over all attacks {worst_case(results)} ({_where(results)})"
    )
    bar = claim.tolerance
    return Comparison(
        certain[0] > bar, possible[1] <= bar, possible[0] <= bar < certain[1], numbers, _doubts(results),
        int(np.sum(crashed & ~unknown_images(results))),
    )  # fmt: skip


Interval = tuple[float, float]


def _gaps(results: Results, returned: Bools) -> tuple[Interval, Interval]:
    """Exact intervals of the share that claimed attacks leave and others break: proven, and possible at most."""
    n, broken = len(results.correct), ~standing_images(results)
    certain = int(np.sum(results.survives_claimed & broken))
    possible = int(np.sum(results.correct & ~returned & (broken | unknown_images(results))))
    return clopper_pearson(certain, n), clopper_pearson(possible, n)


def _mean_gaps(results: Results) -> tuple[Interval, Interval]:
    """The same for a stochastic defense: intervals of the mean drop of P(correct) per image."""
    worst, unknown = proven(results, results.p_worst), unknown_images(results)
    bounds = (np.where(unknown, np.maximum(worst, results.p_claimed), worst), np.where(unknown, 0, worst))
    return paired_interval(results.p_claimed, bounds[0]), paired_interval(results.p_claimed_at_most, bounds[1])


def _where(results: Results) -> str:
    return f"n = {int((results.prediction >= 0).sum())}, {results.plan.threat}"


def _doubts(results: Results) -> tuple[str, ...]:
    """Why what the claimed attacks measured is not what was claimed."""
    doubts = []
    kept = {r.step.name for r in results.claimed}
    all_claimed = [r for r in results.steps if r.step.suite == "claimed"]
    if lost := [r.step.name for r in all_claimed if r.step.name not in kept and r.errors.any()]:
        doubts.append(f"claimed attacks crashed on every image that they came to: {', '.join(lost)}")
    if late := [r.step.name for r in all_claimed if not r.done and r.step.name not in lost]:
        doubts.append(f"claimed attacks have not run to their end: {', '.join(late)}")
    weakened = {str(entry).split(":")[0].rpartition(".")[0] for entry in results.plan.identity.get("weakened", ())}
    if weak := [r.step.name for r in all_claimed if r.step.name in weakened]:
        doubts.append(f"claimed attacks were changed by --set, so the number is not the claim's: {', '.join(weak)}")
    return tuple(doubts)


def _obstacles(found: Comparison, results: Results, diagnoses: Sequence[Diagnosis]) -> list[str]:
    """What stands between the numbers and an answer, what matters most first."""
    obstacles = list(found.doubts)
    unknown, rejected = int(results.unknown.sum()), int(rejected_images(results).sum())
    if found.undecided and not results.missing:
        obstacles.append(OPEN)
    if unknown:
        obstacles.append(f"{unknown} images are unknown because an attack failed on them")
    if found.crashed:
        obstacles.append(f"{found.crashed} images that others broke may not count: a claimed attack crashed on them")
    if rejected:
        obstacles.append(
            f"{rejected} images are unknown because their adversarial image was rejected when judged again"
        )
    if found.refuted and not found.doubts and results.checks.get("rejected", 0) and not rejected:
        obstacles.append(
            "run_integrity failed and it is not recorded for which images, so none can be counted as broken; "
            "type python -m audit verify RUN"
        )
    if results.missing:
        obstacles.append(f"{results.missing} units of the plan have not run")
    said = {"flagged": "", "not_measured": " was not measured"}
    return obstacles + [
        f"{in_words(d.name)}{said[d.status]}: {d.sentence}" for d in diagnoses if d.blocking and d.status in said
    ]


def _masking(results: Results) -> list[str]:
    found = masking(results)
    return [] if found == NONE else [f"gradient masking, {found}"]


def _causes(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """Why the claimed number was wrong: the diagnoses that fired, gradient masking first; obstacles are no causes."""
    fired = [d for d in diagnoses if d.status in ("flagged", "resolved") and not _obstacle(d)]
    return [f"{in_words(d.name)}: {d.sentence}" for d in fired]


def _obstacle(d: Diagnosis) -> bool:
    return d.name in OBSTACLES or d.name.startswith("declared_")
