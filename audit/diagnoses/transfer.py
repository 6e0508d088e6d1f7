"""Were the images of an attack made for another model than the defense? Pintor et al. 2022, indicator 5, attack by attack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from audit.diagnoses.common import ran_clean, status, unmeasured, white_box
from audit.results import Results
from audit.routes import end_to_end_ran
from audit.step_results import StepResult
from audit.types import Diagnosis

KEPT = 0.01  # of all images; the paper counts a single one
MOSTLY = 0.5  # above it, most images of an attack were made for nothing, and that is part of how the gradient hides


@dataclass(frozen=True)
class Moved:
    """One attack on another model. made: its images that fooled that model (all of them where that model is not known);
    kept: those that the defense still classifies rightly.
    """

    step: str
    made: int
    kept: int
    foreign: bool
    claimed: bool

    @property
    def mostly_kept(self) -> bool:
        return self.made > 0 and self.kept / self.made > MOSTLY

    @property
    def sentence(self) -> str:
        how = "made for another model" if self.foreign else "that lose the bare network its answer"
        return f"of {self.made} images of {self.step} {how}, the defense keeps {self.kept}"


def transfer_failure(results: Results) -> Diagnosis:
    """Images that were made for another model and leave the defense standing: the attack solved another problem.

    That model is the bare network of a defense with a test-time part, or whatever a claimed attack asked in place of the
    defense. Of several, the claimed one of which most images are kept counts, and where none is claimed the one of all; the
    paper asks the same of each image.
    """
    name, remedy, reference = "transfer_failure", "attack the whole defense, end to end", "Pintor et al. 2022, indicator 5; Croce et al. 2022, arXiv 2202.13711"  # fmt: skip
    found = worst_transfer(results)
    if found is None:
        return unmeasured(name, "no attack was made on another model than the defense", remedy, reference, KEPT)
    share = found.kept / len(results.correct)
    followed = any(ran_clean(r) for r in white_box(results))
    return Diagnosis(
        name, status(share > KEPT, resolved=end_to_end_ran(results) and (followed or not found.foreign)), share, KEPT,
        len(results.correct), found.sentence + _over_all(results), remedy, True, reference,
    )  # fmt: skip


def worst_transfer(results: Results) -> Moved | None:
    """The attack on another model of which the defense keeps most images, a claimed one if there is any; None without one."""
    return max(_moved(results), key=lambda moved: (moved.claimed, moved.kept), default=None)


def _moved(results: Results) -> Iterator[Moved]:
    for r in results.counted:
        if r.done and "base" in r.views and r.step.transfers:
            fell = r.attacked & (r.views["base"] < 0.5) & (results.p_clean >= 0.5)
            kept = fell & (r.views.get("returned", r.p_own) >= 0.5)
            claimed = r.step.suite == "claimed"
            yield Moved(r.step.name, int(fell.sum()), int(kept.sum()), foreign=False, claimed=claimed)
        elif _foreign(r):
            kept = r.attacked & ~r.returned
            yield Moved(r.step.name, int(r.attacked.sum()), int(kept.sum()), foreign=True, claimed=True)


def _foreign(result: StepResult) -> bool:
    """A claimed attack that never asked the defense anything, or one that says that it transfers."""
    step = result.step
    asked = result.backwards > 0 or (result.forwards > 0 and step.attack != "transfer")
    ran = ran_clean(result) and bool(result.attacked.any())
    return step.suite == "claimed" and not step.transfers and ran and not asked


def _over_all(results: Results) -> str:
    """What the worst case over all attacks on the bare network says beside one attack."""
    bare, received = results.p_base, [r.p_own for r in results.counted if r.step.transfers and r.done]
    if bare is None or not received:
        return ""
    fell, whole = (bare < 0.5) & (results.p_clean >= 0.5), np.minimum.reduce(received)
    return f"; of {int(fell.sum())} that lose it by any attack, {int((fell & (whole >= 0.5)).sum())} stand them all"
