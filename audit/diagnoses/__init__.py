"""Reasons that a robust accuracy may lie, each a pure function of the results. Free of torch.

A diagnosis that is flagged has a remedy; it is "resolved" when the steps that are the remedy ran without error and
their own records show that they could work. Names and thresholds follow the sources cited in each. What has no
automatic remedy stays flagged.
"""

from __future__ import annotations

from dataclasses import replace

from audit.diagnoses.athalye import larger_eps_does_not_help, one_step_beats_iterative, random_search_beats_gradient
from audit.diagnoses.autoattack import (
    black_box_beats_white_box,
    dynamic,
    randomized,
    softmax_output,
    too_few_classes,
    zero_gradient_in_attack,
)
from audit.diagnoses.behaviour import batch_dependent, quantised_output, reject_class, stateful
from audit.diagnoses.carlini import claimed_attacks_too_weak, more_steps_help, weakened_attacks, white_box_misses
from audit.diagnoses.common import BLACK_BOX, UNSATURATED
from audit.diagnoses.conduct import FORWARD_SAMPLE, adapter_forward, clean_accuracy_handshake, run_integrity
from audit.diagnoses.explained import explained
from audit.diagnoses.gradients import (
    exploding_gradient,
    masked_gradient,
    saturated_softmax,
    unstable_gradient,
    vanishing_gradient,
)
from audit.diagnoses.index import INDEX
from audit.diagnoses.kind import Kind, kind_of_masking
from audit.diagnoses.numerics import ce_precision, local_linearity, sign_of_zero
from audit.diagnoses.pintor import (
    incomplete_optimisation,
    shattered_gradient,
    silent_success,
    unbounded_control,
    unstable_predictions,
)
from audit.diagnoses.references import reference_controls
from audit.diagnoses.settled import nothing_stands, settled
from audit.diagnoses.traits import declared_traits, end_to_end
from audit.diagnoses.transfer import transfer_failure
from audit.diagnoses.zimmermann import binarisation
from audit.results import Results
from audit.types import Diagnosis

__all__ = [
    "BLACK_BOX",
    "FORWARD_SAMPLE",
    "INDEX",
    "UNSATURATED",
    "Kind",
    "adapter_forward",
    "batch_dependent",
    "binarisation",
    "black_box_beats_white_box",
    "ce_precision",
    "claimed_attacks_too_weak",
    "clean_accuracy_handshake",
    "declared_traits",
    "diagnose",
    "dynamic",
    "end_to_end",
    "exploding_gradient",
    "incomplete_optimisation",
    "kind_of_masking",
    "larger_eps_does_not_help",
    "local_linearity",
    "masked_gradient",
    "more_steps_help",
    "one_step_beats_iterative",
    "quantised_output",
    "random_search_beats_gradient",
    "randomized",
    "reference_controls",
    "reject_class",
    "run_integrity",
    "saturated_softmax",
    "shattered_gradient",
    "sign_of_zero",
    "silent_success",
    "softmax_output",
    "stateful",
    "too_few_classes",
    "transfer_failure",
    "unbounded_control",
    "unstable_gradient",
    "unstable_predictions",
    "vanishing_gradient",
    "weakened_attacks",
    "white_box_misses",
    "zero_gradient_in_attack",
]  # fmt: skip

ORDER = (
    vanishing_gradient, shattered_gradient, dynamic, saturated_softmax, ce_precision, exploding_gradient,
    masked_gradient, unstable_gradient, local_linearity, sign_of_zero, zero_gradient_in_attack, claimed_attacks_too_weak, unbounded_control, silent_success,
    black_box_beats_white_box, white_box_misses, one_step_beats_iterative, random_search_beats_gradient,
    larger_eps_does_not_help, incomplete_optimisation, more_steps_help, transfer_failure, binarisation, randomized, unstable_predictions,
    batch_dependent, stateful, quantised_output, too_few_classes, softmax_output, reject_class,
)  # fmt: skip
# What these break is not attacked again: their remedy ran on what stood after them.
STOOD = "; stronger gradient attacks on what stood after it broke hardly more"
BEATEN = ("black_box_beats_white_box", "random_search_beats_gradient", "one_step_beats_iterative")
AFTER = {"black_box_beats_white_box": STOOD, "random_search_beats_gradient": STOOD}
FALLEN = "; in the end nothing stands that a stronger attack could break"
LAST = (weakened_attacks, clean_accuracy_handshake, adapter_forward, reference_controls, run_integrity)


def diagnose(results: Results) -> tuple[Diagnosis, ...]:
    """Every diagnosis of a run, in a fixed order, and one more for each trait that the defense declares.

    What a round answered is "resolved": its steps ran, and the worst case no longer moves. So is an attack outdone by a
    weaker one, once nothing stands. What follows from another finding leaves the blocking to that one.
    """
    answered = {name: AFTER.get(name, "") for name in settled(results)}
    if nothing_stands(results):
        answered |= dict.fromkeys(BEATEN, FALLEN)
    return explained(tuple(
        replace(d, status="resolved", sentence=d.sentence + answered[d.name])
        if d.status == "flagged" and d.name in answered else d
        for d in _all(results)
    ))  # fmt: skip


def _all(results: Results) -> tuple[Diagnosis, ...]:
    return (
        *(judge(results) for judge in ORDER),
        *declared_traits(results),
        *end_to_end(results),
        *(judge(results) for judge in LAST),
    )
