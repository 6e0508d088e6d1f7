"""One cause, not a list of its consequences: a comparison of attacks tells nothing new while a cause stands unanswered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from audit.diagnoses.index import in_words
from audit.types import Diagnosis

COMPARISONS = (
    "black_box_beats_white_box", "random_search_beats_gradient", "one_step_beats_iterative", "larger_eps_does_not_help",
    "incomplete_optimisation", "unbounded_control", "zero_gradient_in_attack", "binarisation",
)  # fmt: skip

# Cause -> what follows from it. A rounding or a purifier without a gradient makes every gradient attack stand still, so
# that blind ones get further and the unbounded one fails, too.
FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "dynamic": ("shattered_gradient", "masked_gradient", "unstable_gradient", *COMPARISONS),
    "shattered_gradient": COMPARISONS,
    "vanishing_gradient": COMPARISONS,
    "exploding_gradient": COMPARISONS,
    "masked_gradient": COMPARISONS,
    "unstable_gradient": COMPARISONS,
    "randomized": ("incomplete_optimisation",),  # the lowest of many noisy losses goes on falling without any gain
    "batch_dependent": (*COMPARISONS, "run_integrity"),  # a stored image need not stand up again
    "stateful": (*COMPARISONS, "run_integrity"),
    "clean_accuracy_handshake": COMPARISONS,  # another model, or other inputs: what attacks do to it says nothing
}


def explained(diagnoses: tuple[Diagnosis, ...]) -> tuple[Diagnosis, ...]:
    """The diagnoses, where one that follows from a blocking other says so and leaves the blocking to that one.

    Once the cause is resolved, what is still flagged stands for itself, and blocks.
    """
    flagged, fired = _because(diagnoses, "flagged"), _because(diagnoses, "flagged", "resolved")
    why = {"flagged": flagged, "resolved": fired}
    return tuple(
        replace(d, blocking=False, sentence=f"{d.sentence}; it follows from {in_words(cause)}")
        if (cause := why.get(d.status, {}).get(d.name)) else d
        for d in diagnoses
    )  # fmt: skip


def _because(diagnoses: tuple[Diagnosis, ...], *statuses: str) -> dict[str, str]:
    """Consequence -> the first cause among the blocking diagnoses with one of the statuses."""
    causes = [d.name for d in diagnoses if d.status in statuses and d.blocking and d.name in FOLLOWS]
    return {name: cause for cause in reversed(causes) for name in FOLLOWS[cause] if name != cause}
