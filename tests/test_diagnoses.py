"""Each diagnosis on results built by hand: when it fires, when it is resolved, and what it says unmeasured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from audit import diagnoses
from audit.diagnoses import diagnose
from audit.diagnoses.traits import RULES
from audit.results import Results
from audit.step_results import StepResult
from audit.types import TRAITS
from audit.verdict import judge_claim
from tests.built import CHECKS, MEASURED, NONE, N, built, claimed, control, mask, ran, traced

BLOCKING = (
    "vanishing_gradient", "shattered_gradient", "dynamic", "exploding_gradient", "masked_gradient", "unstable_gradient",
    "zero_gradient_in_attack", "unbounded_control", "black_box_beats_white_box", "incomplete_optimisation", "randomized",
    "batch_dependent", "stateful", "softmax_output", "weakened_attacks", "clean_accuracy_handshake", "adapter_forward",
    "run_integrity",
)  # fmt: skip
OPTIONAL = (
    "one_step_beats_iterative",
    "random_search_beats_gradient",
    "more_steps_help",
    "transfer_failure",
    "binarisation",
    "reject_class",
    "reference_controls",
)  # not in this run
ALL = tuple(name for name in diagnoses.INDEX if name != "end_to_end" and not name.startswith("declared_"))

REMEDY = (ran("apgd-margin"), control())


def status_of(name: str, results: Results) -> str:
    return getattr(diagnoses, name)(results).status


def test_a_sound_run_is_clear_throughout():
    results = built(claimed(), ran("apgd-margin"), ran("square", attack="square"), control())
    found = diagnose(results)
    assert tuple(d.name for d in found) == ALL
    assert tuple(d.name for d in found if d.blocking) == BLOCKING
    assert tuple(d.name for d in found if d.status != "clear") == OPTIONAL
    assert {d.status for d in found} == {"clear", "not_measured"}
    assert diagnoses.kind_of_masking(results) is None
    assert judge_claim(MEASURED, results, found).outcome == "upheld"
    assert all(d.sentence and d.remedy and d.reference for d in found)


CUT = {"gradient_cut": True, "zero_gradient": 1.0}
BRIDGE = ran("rescaled-ce", adapters=("bpda", "rescale"))


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ((ran("apgd-margin"),), "flagged"),  # without BPDA it followed nothing
        ((BRIDGE,), "resolved"),
        ((ran("unroll-margin", adapters=("unroll",)),), "resolved"),
        ((ran("rescaled-ce", adapters=("bpda",), zero=1.0),), "flagged"),
        ((ran("rescaled-ce", adapters=("bpda",), errors=mask((0, 1))),), "flagged"),
    ],
)
def test_a_gradient_that_is_cut_asks_for_a_bridge(steps, status):
    results = built(*steps, profile=CUT)
    assert status_of("shattered_gradient", results) == status
    assert diagnoses.vanishing_gradient(results).status == "not_measured"
    assert not diagnoses.vanishing_gradient(results).blocking


def test_a_test_time_part_asks_for_an_attack_on_the_whole():
    grey = claimed(adapters=("base",))
    assert diagnoses.end_to_end(built(grey)) == ()
    assert diagnoses.end_to_end(built(grey, staged=True))[0].status == "flagged"
    assert diagnoses.end_to_end(built(grey, BRIDGE, staged=True))[0].status == "clear"
    crashed = replace(BRIDGE, errors=mask((0, 3)))
    assert diagnoses.end_to_end(built(grey, crashed, staged=True))[0].status == "flagged"
    surrogate = ran("transfer", attack="transfer")  # its images were made for another network
    assert diagnoses.end_to_end(built(grey, surrogate, staged=True))[0].status == "flagged"


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("vanishing_gradient", {"zero_gradient": 0.5}),
        ("saturated_softmax", {"saturated": 0.5}),
        ("softmax_output", {"softmax_output": True}),
    ],
)
@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ((), "flagged"),
        (REMEDY[:1], "flagged"),  # no control has shown that the attack can break this model
        (REMEDY[1:], "flagged"),
        (REMEDY, "resolved"),
        ((ran("square"), control()), "flagged"),  # not a loss that cannot saturate
        ((ran("apgd-margin", done=False), control()), "flagged"),
        ((ran("apgd-margin", errors=mask((0, 1)), messages=("RuntimeError",)), control()), "flagged"),
        ((ran("apgd-margin"), control(mask((0, 99)))), "flagged"),
        ((ran("apgd-margin", zero=1.0), control()), "flagged"),  # it had no gradient either
        ((ran("apgd-margin", zero=0.02), control()), "flagged"),
        ((ran("apgd-margin", zero=0.01), control()), "resolved"),
        ((ran("apgd-margin", zero=float("nan")), control()), "flagged"),  # nothing recorded, nothing shown
        ((ran("apgd-margin", zero=1.0), ran("fab-t", zero=float("nan")), control()), "flagged"),
        ((ran("float64-ce", zero=0.15), ran("apgd-margin"), ran("fab-t", zero=float("nan")), control()), "resolved"),
        ((ran("apgd-margin", mask((0, 900)), zero=None), control()), "resolved"),  # it broke all there was
        ((ran("apgd-margin", attacked=NONE, zero=None), control()), "flagged"),  # it had nothing to attack
    ],
)
def test_masking_is_resolved_by_an_unsaturated_loss_and_a_control(name, profile, steps, status):
    assert status_of(name, built(*steps, profile=profile)) == status
    assert status_of(name, built(*steps)) == "clear"


@pytest.mark.parametrize("name", diagnoses.UNSATURATED)
def test_each_unsaturated_step_is_a_remedy(name):
    assert status_of("vanishing_gradient", built(ran(name), control(), profile={"zero_gradient": 0.92})) == "resolved"


@pytest.mark.parametrize(
    ("name", "key", "edge", "beyond"),
    [
        ("vanishing_gradient", "zero_gradient", 0.01, 0.011),
        ("saturated_softmax", "saturated", 0.01, 0.011),
        ("randomized", "max_draw_difference", 1e-4, 1.1e-4),
    ],
)
def test_thresholds_of_the_profile(name, key, edge, beyond):
    assert status_of(name, built(profile={key: edge})) == "clear"
    found = getattr(diagnoses, name)(built(profile={key: beyond}))
    assert (found.status, found.value, found.threshold) == ("flagged", beyond, edge)


@pytest.mark.parametrize("name", ["vanishing_gradient", "saturated_softmax"])
def test_without_a_correct_image_no_gradient_is_measured(name):
    found = getattr(diagnoses, name)(built(profile={"clean_correct": 0, "zero_gradient": 0.0}))
    assert (found.status, found.value) == ("not_measured", None)


@pytest.mark.parametrize(("gap", "status"), [(0, "clear"), (10, "clear"), (11, "resolved"), (400, "resolved")])
def test_claimed_attacks_too_weak(gap, status):
    steps = claimed(broken=mask((0, 400))), ran("square", mask((400, 400 + gap)))
    found = diagnoses.claimed_attacks_too_weak(built(*steps))
    assert (found.status, found.value) == (status, pytest.approx(gap / N))
    assert (
        f"of the 50.0% of all images that the claimed attacks leave standing, others break {gap / 500:.1%}"
        in found.sentence
    )
    assert f"({gap / 10:.1f} points of all images" in found.sentence


UNCHECKED = ({}, {**CHECKS, "rejected": 1}, {**CHECKS, "rejected": 1, "rejected_ids": [20, 40]})
PASSED = {**CHECKS, "rejected": 1, "rejected_ids": [999]}


@pytest.mark.parametrize("name", ["claimed_attacks_too_weak", "silent_success", "white_box_misses"])
def test_what_the_worst_case_answers_stays_flagged_until_it_is_judged_again(name):
    steps = (
        claimed(broken=mask((0, 30)), returned=mask((0, 10))),
        ran("apgd-margin"),
        ran("square", mask((30, 60)), attack="square"),
    )
    for checks in UNCHECKED:
        assert status_of(name, built(*steps, checks=checks)) == "flagged"
    for checks in (CHECKS, PASSED):
        assert status_of(name, built(*steps, checks=checks)) == "resolved"
    assert status_of(name, built(*steps, missing=1)) == "flagged"


def test_claimed_attacks_that_did_not_run_are_not_weak():
    found = diagnoses.claimed_attacks_too_weak(built(ran("square", mask((0, 400)))))
    assert (found.status, found.value) == ("not_measured", None)


@pytest.mark.parametrize(("fell", "status", "share"), [(100, "clear", 0.0), (99, "flagged", 0.01), (0, "flagged", 1.0)])
def test_unbounded_control(fell, status, share):
    found = diagnoses.unbounded_control(built(control(mask((0, fell)))))
    assert (found.status, found.value, found.samples) == (status, pytest.approx(share), 100)
    assert f"{100 - fell} of 100 images survive" in found.sentence


@pytest.mark.parametrize("steps", [(), (ran("apgd-margin"),), (control(NONE, attacked=NONE, done=False),)])
def test_a_control_that_has_not_run_is_not_measured(steps):
    assert status_of("unbounded_control", built(*steps)) == "not_measured"


def test_silent_success_is_resolved_by_counting_it():
    found = diagnoses.silent_success(built(claimed(broken=mask((0, 30)), returned=mask((0, 10)))))
    assert (found.status, found.value) == ("resolved", pytest.approx(0.02))
    assert status_of("silent_success", built(claimed(broken=mask((0, 30))))) == "clear"
    assert status_of("silent_success", built(ran("apgd-margin", mask((0, 3)), returned=NONE))) == "not_measured"


@pytest.mark.parametrize(("extra", "status"), [(0, "clear"), (5, "clear"), (6, "clear"), (7, "flagged")])
def test_black_box_beats_white_box(extra, status):
    found = diagnoses.black_box_beats_white_box(built(ran("apgd-margin"), ran("square", mask((0, extra)))))
    assert (found.status, found.value) == (status, pytest.approx(extra / N))


@pytest.mark.parametrize(
    "steps", [(ran("square"),), (ran("apgd-margin"),), (ran("apgd-margin"), ran("square", done=False))]
)
def test_black_and_white_box_must_both_have_run(steps):
    assert status_of("black_box_beats_white_box", built(*steps)) == "not_measured"


def test_square_that_had_nothing_to_attack_is_not_measured_and_blocks_nothing():
    idle = ran("square", attack="square", attacked=NONE)
    found = diagnoses.black_box_beats_white_box(built(ran("apgd-margin", mask((0, 900))), idle))
    assert (found.status, found.blocking) == ("not_measured", False)
    assert "no image" in found.sentence


@pytest.mark.parametrize("expected", [0.85, 0.87, 0.89, 0.9, 0.91, 0.92, 0.93, 0.95])
def test_handshake_is_the_exact_binomial_test(expected):
    status = "flagged" if binomtest(900, N, expected).pvalue < 1e-3 else "clear"
    assert status_of("clean_accuracy_handshake", built(expected=expected)) == status


def test_handshake_asks_about_the_normalisation_when_half_is_gone():
    seen = np.where(np.arange(N) < 200, 0, 1)
    found = diagnoses.clean_accuracy_handshake(built(prediction=seen))
    assert found.status == "flagged"
    assert found.sentence == "clean accuracy is 20.0%, expected is 90.0%; is the input normalised twice?"


def test_handshake_needs_a_record_and_the_whole_clean_pass():
    assert status_of("clean_accuracy_handshake", built(expected=None)) == "not_measured"
    half = np.where(mask((0, 500)), 0, -1)
    assert status_of("clean_accuracy_handshake", built(prediction=half, missing=2)) == "not_measured"


@pytest.mark.parametrize(
    ("mismatch", "status", "value"),
    [
        ({}, "clear", 0.0),
        ({"a": 0.01}, "clear", 0.01),
        ({"a": 0.0, "b": 0.02}, "flagged", 0.02),
        (None, "not_measured", None),
    ],
)
def test_adapter_forward(mismatch, status, value):
    checks = {k: v for k, v in {**CHECKS, "forward_mismatch": mismatch}.items() if v is not None}
    found = diagnoses.adapter_forward(built(checks=checks))
    assert (found.status, found.value) == (status, value)


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        (CHECKS, "clear"),
        ({**CHECKS, "rejected": 1}, "flagged"),
        ({**CHECKS, "model_unchanged": False}, "flagged"),
        ({}, "not_measured"),
    ],
)
def test_run_integrity(checks, status):
    found = diagnoses.run_integrity(built(checks=checks))
    assert found.status == status
    assert ("CHANGED" in found.sentence) == (not checks.get("model_unchanged", True))


def test_an_unfinished_run_blocks_by_its_missing_checks():
    results = replace(built(claimed(), ran("apgd-margin"), ran("square"), control()), checks={})
    verdict = judge_claim(MEASURED, results, diagnose(results))
    assert verdict.outcome == "inconclusive"
    late = "the run has not come to its last checks"
    assert verdict.reasons[1:] == (
        f"adapter forward was not measured: {late}", f"run integrity was not measured: {late}",
    )  # fmt: skip


def test_an_image_of_any_shard_counts_in_the_share_of_zero_gradients():
    mixed = replace(ran("apgd-margin"), traces=traced(0.0, 0.5))  # 0.25 on average
    assert status_of("vanishing_gradient", built(mixed, control(), profile={"zero_gradient": 0.9})) == "flagged"


def test_a_square_that_crashed_clears_nothing():
    crashed = ran("square", errors=mask((0, 5)), messages=("RuntimeError",))
    found = diagnoses.black_box_beats_white_box(built(ran("apgd-margin"), crashed))
    assert (found.status, found.value) == ("not_measured", None)
    extra = ran("square", mask((0, 8)), errors=mask((8, 11)), messages=("RuntimeError",))
    assert status_of("black_box_beats_white_box", built(ran("apgd-margin"), extra)) == "flagged"


def test_a_control_that_crashed_says_so():
    found = diagnoses.unbounded_control(built(control(mask((0, 60)), errors=mask((60, 100)), messages=("E",))))
    assert found.status == "flagged"
    assert "40 of 100 images survive, 40 of them because the attack crashed" in found.sentence


def test_what_is_not_measured_says_why_and_prints_no_number():
    bare = replace(built(profile={"clean_correct": 0}, expected=None, examined=False), checks={})
    unmeasured = [d for d in diagnose(bare) if d.status == "not_measured"]
    assert len(unmeasured) == len(ALL) - 5
    for found in unmeasured:
        assert "nan" not in found.sentence
        assert " 0 of 0" not in found.sentence
        assert found.value is None


# weakened attacks


@pytest.mark.parametrize(("identity", "status"), [({}, "clear"), ({"weakened": []}, "clear"),
                         ({"weakened": ["square.n_queries: 5000 -> 10"]}, "flagged")])  # fmt: skip
def test_weakened_attacks(identity, status):
    found = diagnoses.weakened_attacks(built(**identity))
    assert (found.status, found.blocking) == (status, True)
    assert ("square.n_queries: 5000 -> 10" in found.sentence) == (status == "flagged")
    assert "--set" in found.remedy


def test_a_weakened_attack_upholds_nothing():
    steps = claimed(), ran("apgd-margin"), ran("square"), control()
    for weakened, outcome in ([], "upheld"), (["square.n_queries: 5000 -> 10"], "inconclusive"):
        results = built(*steps, weakened=weakened)
        assert judge_claim(MEASURED, results, diagnose(results)).outcome == outcome


# the clean accuracy to compare with


@pytest.mark.parametrize(
    ("recorded", "claimed_clean", "status", "shown"),
    [
        (0.9, None, "clear", "90.0%"),
        (None, 0.9, "clear", "90.0%"),
        (None, 0.7, "flagged", "70.0%"),
        (0.9, 0.7, "clear", "90.0%"),  # what was recorded, or typed, comes first
        (None, None, "not_measured", "--claim-clean 0.91"),
    ],
)
def test_handshake_takes_the_claims_clean_accuracy_when_none_is_recorded(recorded, claimed_clean, status, shown):
    found = diagnoses.clean_accuracy_handshake(built(expected=recorded, claim={"clean_acc": claimed_clean}))
    assert (found.status, shown in found.sentence) == (status, True)


def test_bare_steps_may_answer_otherwise():
    bare = ran("pgd-base", adapters=("base",))
    checks = {**CHECKS, "forward_mismatch": {"pgd-base": 0.4, "rescaled-ce": 0.0}}
    assert status_of("adapter_forward", built(bare, ran("rescaled-ce"), checks=checks)) == "clear"
    assert status_of("adapter_forward", built(ran("pgd-base"), checks=checks)) == "flagged"


# declared traits


def declared(trait: str, *steps: StepResult) -> str:
    (found,) = [d for d in diagnose(built(*steps, traits=[trait])) if d.name == f"declared_{trait}"]
    assert found.blocking
    assert found.remedy
    return found.status


BPDA, BASE = ran("apgd-bpda", adapters=("bpda",)), ran("apgd-base", adapters=("base",))
SQUARE = ran("square", attack="square")
CRASHED = {"errors": mask((0, 1)), "messages": ("RuntimeError",)}


def test_a_defense_that_declares_nothing_has_no_such_diagnosis():
    assert not any(d.name.startswith("declared_") for d in diagnose(built(traits=[])))


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ((), "flagged"),
        ((ran("apgd-margin"),), "flagged"),
        ((ran("a", adapters=("eot",)),), "resolved"),
        ((ran("a", params={"eot_iter": 20}),), "resolved"),
        ((ran("a", params={"eot_iter": 1}),), "flagged"),
        ((ran("a", adapters=("eot",), done=False),), "flagged"),
        ((ran("a", adapters=("eot",), **CRASHED),), "flagged"),
        ((ran("a", adapters=("eot",), scope="control"),), "flagged"),
    ],
)
def test_declared_stochastic(steps, status):
    assert declared("stochastic", *steps) == status
    drift = {"max_draw_difference": 0.1}
    assert status_of("randomized", built(*steps, profile=drift, traits=["stochastic"])) == status
    assert status_of("randomized", built(*steps, profile=drift)) == "flagged"  # randomness that was not declared


@pytest.mark.parametrize("trait", ["nondifferentiable", "test_time_optimisation"])
@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ((BPDA, BASE, SQUARE), "resolved"),
        ((ran("u", adapters=("unroll", "rescale")), BASE, SQUARE), "resolved"),
        ((BASE, SQUARE), "flagged"),
        ((BPDA, SQUARE), "flagged"),
        ((BPDA, BASE), "flagged"),
        ((BPDA, BASE, ran("square", attack="square", adapters=("base",))), "flagged"),
        ((replace(BPDA, done=False), BASE, SQUARE), "flagged"),
        ((BPDA, replace(BASE, errors=mask((0, 1))), SQUARE), "flagged"),
        ((BPDA, BASE, replace(SQUARE, errors=mask((0, 1)))), "flagged"),
    ],
)
def test_declared_parts_without_a_gradient(trait, steps, status):
    assert declared(trait, *steps) == status


@pytest.mark.parametrize("trait", ["rejects", "stateful", "something_new"])
def test_traits_that_no_attack_fits_are_never_resolved(trait):
    assert declared(trait, BPDA, BASE, SQUARE, ran("a", adapters=("eot",))) == "flagged"


def test_every_trait_has_a_rule():
    assert set(RULES) == TRAITS


def test_a_declared_trait_forbids_upheld_until_its_steps_ran():
    sound = claimed(), ran("apgd-margin"), SQUARE, control()
    for steps, outcome in (sound, "inconclusive"), ((*sound, BPDA, BASE), "upheld"):
        results = built(*steps, traits=["nondifferentiable"])
        assert judge_claim(MEASURED, results, diagnose(results)).outcome == outcome


@pytest.mark.parametrize(
    ("checks", "why"),
    [({**CHECKS, "controls": []}, "these images and this norm"), (CHECKS, "this suite does not try"), ({}, "at hand")],
)
def test_models_of_known_answer_that_are_not_there_block_nothing(checks, why):
    found = diagnoses.reference_controls(built(checks=checks))
    assert (found.status, found.blocking, why in found.sentence) == ("not_measured", False, True)
