"""Signs of obfuscated gradients (Athalye et al. 2018, Sec. 3.1); two of the five are with AutoAttack's and Pintor's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from audit.diagnoses.common import NOT_EXAMINED, bridged, ran_clean, remedied, status, unmeasured
from audit.diagnoses.settled import gain
from audit.results import Results
from audit.stats import mcnemar
from audit.step_results import StepResult
from audit.types import Diagnosis

ONE_STEP, ITERATIVE = ("fgsm",), ("bim", "pgd", "mi-fgsm", "apgd-ce")
GAP = 0.005
SIGNIFICANT = 0.01
RISE = 0.05  # two of 32 images
ABOVE_GUESSING = 0.2


def one_step_beats_iterative(results: Results) -> Diagnosis:
    """Paired on the same images and along the same route; of several iterative attacks, the one that breaks most."""
    name, remedy, reference = "one_step_beats_iterative", "other losses, smaller steps, BPDA: the gradient leads the iterative attack astray", "Athalye et al. 2018, sign 1; McNemar's exact test"  # fmt: skip
    found = [_paired(fast, best) for fast, best in _pairs(results)]
    if not found:
        return unmeasured(name, "no one-step attack ran beside an iterative one on all images", remedy, reference, GAP)
    share, p, sentence = max(found)
    flagged = share >= GAP and p < SIGNIFICANT
    return Diagnosis(
        name, status(flagged, resolved=remedied(results) or bridged(results)), share, GAP, len(results.correct),
        sentence, remedy, True, reference,
    )  # fmt: skip


def _pairs(results: Results) -> Iterable[tuple[StepResult, StepResult]]:
    for transfers in (False, True):
        every = (r for r in results.counted if r.step.scope == "all" and not r.step.after and not r.step.limit)
        ran = [r for r in every if r.done and r.step.transfers is transfers]
        slow = [r for r in ran if r.step.attack in ITERATIVE]
        for fast in (r for r in ran if r.step.attack in ONE_STEP):
            if slow:
                yield fast, max(slow, key=lambda r: int(r.returned.sum()))


def _paired(fast: StepResult, slow: StepResult) -> tuple[float, float, str]:
    known = ~(fast.crashed | slow.crashed)
    a, b = fast.returned & known, slow.returned & known
    share = float(np.mean(a.astype(int) - b.astype(int)))
    p = mcnemar(a, b)
    said = f"{fast.step.name} breaks {int(a.sum())} images, {slow.step.name} {int(b.sum())} (McNemar p = {p:.2g})"
    return share, p, said


def random_search_beats_gradient(results: Results) -> Diagnosis:
    """Paired on the images that gradient attacks left standing: what random points break there they all missed.

    All discordant images lie on one side, so McNemar's exact test is a sign test. Where the step looked at some of the
    images that stood, the share is counted up to all. Athalye et al. draw 100,000 points; here the suites
    draw 200 corners of the ball (100 images in adaptive) or 1,000 (full), which is what a run can afford on two cores.
    """
    name, remedy, reference = "random_search_beats_gradient", "other losses, BPDA or EOT: the gradient does not lead where random points do", "Athalye et al. 2018, sign 4; McNemar's exact test"  # fmt: skip
    steps = [
        r for r in results.counted if r.step.attack == "random-search" and r.step.scope == "survivors" and ran_clean(r)
    ]
    if not steps:
        return unmeasured(
            name, "no random search has run on what gradient attacks leave standing", remedy, reference, GAP
        )
    if not any(r.attacked.any() for r in steps):
        return unmeasured(name, "the attacks before left random points no image to try", remedy, reference, GAP)
    extra, tried = (
        sum(int(mask.sum()) for mask in masks) for masks in ([r.broken for r in steps], [r.attacked for r in steps])
    )
    share, p = sum(gain(r, results) for r in steps), 0.5**extra
    return Diagnosis(
        name, status(share > GAP and p < SIGNIFICANT), share, GAP, tried,
        f"random points of the ball break {extra} of {tried} images that the attacks before left standing "
        f"(McNemar p = {p:.2g})", remedy, True, reference,
    )  # fmt: skip


def larger_eps_does_not_help(results: Results) -> Diagnosis:
    """A short attack at growing radii: accuracy must not rise, and must end at guessing where a grey image is in reach.

    A symptom, so it does not block: what causes it does, and the unbounded control asks the same of the real attack. A
    curve of 32 images under 15 steps is too coarse to forbid a verdict by itself.
    """
    name, remedy, reference = "larger_eps_does_not_help", "change the loss or the adapters until a larger ball breaks more", "Athalye et al. 2018, sign 5; Carlini et al. 2019, accuracy over eps"  # fmt: skip
    profile = results.plan.profile
    curve: Sequence[dict[str, float]] | None = profile.get("eps_curve")
    if not curve:
        why = "this attack needs a gradient, and a ball in Linf or L2" if "eps_curve" in profile else NOT_EXAMINED
        return unmeasured(name, why, remedy, reference, RISE)
    left = [point["accuracy"] for point in curve]
    rise = max((b - a for a, b in pairwise(left)), default=0.0)
    guessing = 1 / int(profile["classes"]) + ABOVE_GUESSING
    images = int(curve[0].get("n", profile["examined"]))
    shown = ", ".join(f"{point['accuracy']:.0%} at {point['eps']:.3g}" for point in curve)
    return Diagnosis(
        name, status(rise > RISE or left[-1] > guessing), max(rise, 0.0), RISE, images,
        f"of {images} images that were right a short attack leaves {shown}", remedy, False, reference,
    )  # fmt: skip
