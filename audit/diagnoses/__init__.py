"""Reasons that a robust accuracy may lie, each a pure function of the results. Free of torch.

A diagnosis that is flagged has a remedy; it is "resolved" when the steps that are the remedy ran without error and
their own records show that they could work. Names and thresholds follow the sources cited in each.
"""

from __future__ import annotations

from dataclasses import replace

from audit.diagnoses.attacks import (
    black_box_beats_white_box,
    claimed_attacks_too_weak,
    silent_success,
    unbounded_control,
    weakened_attacks,
)
from audit.diagnoses.common import BLACK_BOX, UNSATURATED
from audit.diagnoses.conduct import FORWARD_SAMPLE, adapter_forward, clean_accuracy_handshake, run_integrity
from audit.diagnoses.masking import (
    randomized,
    saturated_softmax,
    shattered_gradient,
    softmax_output,
    vanishing_gradient,
)
from audit.diagnoses.references import reference_controls
from audit.diagnoses.settled import settled
from audit.diagnoses.traits import declared_traits, end_to_end
from audit.results import Results
from audit.types import Diagnosis

__all__ = [
    "BLACK_BOX",
    "FORWARD_SAMPLE",
    "UNSATURATED",
    "adapter_forward",
    "black_box_beats_white_box",
    "claimed_attacks_too_weak",
    "clean_accuracy_handshake",
    "declared_traits",
    "diagnose",
    "end_to_end",
    "randomized",
    "reference_controls",
    "run_integrity",
    "saturated_softmax",
    "shattered_gradient",
    "silent_success",
    "softmax_output",
    "unbounded_control",
    "vanishing_gradient",
    "weakened_attacks",
]


def diagnose(results: Results) -> tuple[Diagnosis, ...]:
    """Every diagnosis of a run, in a fixed order, and one more for each trait that the defense declares.

    What a round answered is "resolved": its steps ran, and the worst case no longer moves.
    """
    answered = settled(results)
    return tuple(
        replace(d, status="resolved") if d.status == "flagged" and d.name in answered else d for d in _all(results)
    )


def _all(results: Results) -> tuple[Diagnosis, ...]:
    return (
        vanishing_gradient(results),
        shattered_gradient(results),
        saturated_softmax(results),
        claimed_attacks_too_weak(results),
        unbounded_control(results),
        silent_success(results),
        black_box_beats_white_box(results),
        randomized(results),
        softmax_output(results),
        *declared_traits(results),
        *end_to_end(results),
        weakened_attacks(results),
        clean_accuracy_handshake(results),
        adapter_forward(results),
        reference_controls(results),
        run_integrity(results),
    )
