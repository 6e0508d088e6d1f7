"""Every diagnosis in one line, and by its name in words, for lists, documents and reports."""

from __future__ import annotations

from collections.abc import Mapping

INDEX: Mapping[str, str] = {
    "vanishing_gradient": "the cross-entropy gradient is exactly zero in float32",
    "shattered_gradient": "no gradient leads from the logits to the image",
    "dynamic": "the defense takes gradients inside its forward pass",
    "saturated_softmax": "softmax gives every other class exactly zero",
    "ce_precision": "the cross-entropy gradient is another in float64, or with rescaled logits",
    "exploding_gradient": "the gradient is NaN, infinite or far above the slope",
    "masked_gradient": "the gradient is not the slope that finite differences find",
    "unstable_gradient": "the loss is so rough that no gradient can be its slope",
    "local_linearity": "the gradient foretells the loss badly a tenth of the radius away",
    "sign_of_zero": "steps along the sign of the gradient leave most pixels where they are",
    "zero_gradient_in_attack": "gradients are exactly zero along an attack",
    "claimed_attacks_too_weak": "other attacks break what the claimed ones leave standing",
    "unbounded_control": "an attack with no bound but the box leaves images standing",
    "silent_success": "an attack met an adversarial image and returned another",
    "black_box_beats_white_box": "Square breaks images that every gradient attack left standing",
    "white_box_misses": "image by image, transfer or scores break what gradients do not",
    "one_step_beats_iterative": "one step breaks more images than many",
    "random_search_beats_gradient": "random points break images that gradient attacks left standing",
    "larger_eps_does_not_help": "a larger ball does not break more",
    "incomplete_optimisation": "every attack was still gaining when it ended",
    "more_steps_help": "twice the steps and restarts still break more",
    "transfer_failure": "images made for another model, as the bare network, leave the defense standing",
    "binarisation": "the attack misses adversarial images that are there by construction",
    "randomized": "the same question has different answers",
    "unstable_predictions": "small noise changes the loss by much",
    "batch_dependent": "an image's answer depends on the other images of its batch",
    "stateful": "answers depend on what was asked before",
    "quantised_output": "the logits are rounded",
    "too_few_classes": "there are too few classes for some losses",
    "softmax_output": "the model returns probabilities instead of logits",
    "reject_class": "attacked images end in a class that no image has, as a detector's",
    "declared_stochastic": "the defense says that it is random",
    "declared_nondifferentiable": "the defense says that a part of it has no gradient",
    "declared_test_time_optimisation": "the defense says that it optimises at test time",
    "declared_rejects": "the defense says that it may refuse to answer",
    "declared_stateful": "the defense says that it remembers queries",
    "end_to_end": "no attack has seen the whole of a defense with a test-time part",
    "weakened_attacks": "an attack was made weaker than its suite has it",
    "clean_accuracy_handshake": "the clean accuracy is not the expected one",
    "adapter_forward": "an adapted model answers otherwise than the defense",
    "reference_controls": "the attacks fail on models whose answer is known",
    "run_integrity": "the model was changed, or stored images do not stand up again",
}

SAID: Mapping[str, str] = {
    "vanishing_gradient": "vanishing gradients",
    "shattered_gradient": "shattered gradients",
    "ce_precision": "cross-entropy precision",
}


def in_words(name: str) -> str:
    """The name of a diagnosis as a sentence says it."""
    return SAID.get(name, name.replace("_", " "))
