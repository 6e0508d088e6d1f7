"""From records to a verdict, on results built by hand: who may be refuted, who may be upheld, and why not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from audit import diagnoses
from audit.diagnoses import diagnose
from audit.plan import Plan
from audit.results import Results, StepResult
from audit.types import Claim, Diagnosis, Step, ThreatModel
from audit.verdict import judge_claim

N = 1000
PROFILE = {
    "n": N, "clean_correct": 900, "classes": 10, "logit_gap": 5.0, "zero_gradient": 0.0, "saturated": 0.0,
    "max_draw_difference": 0.0, "softmax_output": False,
}  # fmt: skip
CHECKS = {"forward_mismatch": {"rescaled-ce": 0.0}, "model_unchanged": True, "verified": 40, "rejected": 0}
BLOCKING = (
    "vanishing_gradient", "unbounded_control", "black_box_beats_white_box", "randomized", "softmax_output",
    "clean_accuracy_handshake", "adapter_forward", "run_integrity",
)  # fmt: skip
ALL = (
    "vanishing_gradient", "saturated_softmax", "claimed_attacks_too_weak", "unbounded_control", "silent_success",
    "black_box_beats_white_box", "randomized", "softmax_output", "clean_accuracy_handshake", "adapter_forward",
    "run_integrity",
)  # fmt: skip


def mask(*spans: tuple[int, int], n: int = N) -> np.ndarray:
    made = np.zeros(n, bool)
    for start, stop in spans:
        made[start:stop] = True
    return made


NONE = mask()


def ran(name, broken=NONE, *, suite="adaptive", scope="survivors", attacked=None, returned=None, errors=NONE, done=True,
        messages=(), n=N) -> StepResult:  # fmt: skip
    step = Step(name, "pgd", suite, scope)
    attacked = mask((0, 900), n=n) if attacked is None else attacked
    returned = broken if returned is None else returned
    own = (mask((0, 900), n=n) & ~broken).astype(np.float32)
    views = {"returned": (mask((0, 900), n=n) & ~returned).astype(np.float32)}
    return StepResult(step, attacked, broken, returned, errors, own, own, views, 1, 1, 0.0, messages, (), done)


def claimed(name="pgd-20", broken=NONE, **changes) -> StepResult:
    return ran(name, broken, **{"suite": "claimed", "scope": "all", **changes})


def control(broken=None, **changes) -> StepResult:
    first = mask((0, 100))
    broken = first if broken is None else broken
    return ran("unbounded", broken, **{"suite": "control", "scope": "control", "attacked": first, **changes})


def built(*steps: StepResult, missing=0, checks=CHECKS, profile=None, expected=0.9, prediction=None) -> Results:
    """900 of 1,000 images are correct: the first 900."""
    identity = {"n": N, "seed": 0, "batch_size": 250, "norm": "Linf", "eps": 8 / 255, "expected_clean_acc": expected}
    plan = Plan(identity, tuple(s.step for s in steps), {**PROFILE, **(profile or {})})
    label = np.zeros(N, np.int64)
    seen = np.where(mask((0, 900)), 0, 1) if prediction is None else prediction
    right = seen == label
    logits = np.zeros((N, 10), np.float32)
    return Results(plan, right, right.astype(np.float32), right, label, seen, logits, steps, missing, checks)


def typed(robust: float, basis="typed", tolerance=0.02) -> Claim:
    return Claim("d", "s", "a", ThreatModel(), "pgd", robust, basis, tolerance=tolerance, basis=basis)


MEASURED = typed(0.9, "measured")


def finding(status="clear", *, blocking=True, name="finding") -> Diagnosis:
    return Diagnosis(name, status, 0.0, 0.0, 1, "the sentence", "the remedy", blocking, "reference")


CLEAR = (finding(), finding("clear", blocking=False))


# the typed or printed claim


@pytest.mark.parametrize("basis", ["typed", "paper"])
@pytest.mark.parametrize(
    ("standing", "robust", "outcome"),
    [
        (600, 0.90, "refuted"),
        (850, 0.90, "refuted"),  # upper end 0.8716 < 0.88
        (860, 0.90, "inconclusive"),  # upper end 0.8809 > 0.88, but 0.86 < 0.88
        (879, 0.90, "inconclusive"),
        (880, 0.90, "upheld"),
        (900, 0.90, "upheld"),
        (900, 0.85, "upheld"),
        (0, 0.90, "refuted"),
        (0, 0.02, "upheld"),
    ],
)
def test_a_stated_number_is_compared_with_the_worst_case(basis, standing, robust, outcome):
    results = built(ran("apgd-margin", mask((standing, 900))))
    upper = binomtest(standing, N).proportion_ci(method="exact").high
    assert (upper < robust - 0.02) == (outcome == "refuted")  # the table above, worked out independently
    verdict = judge_claim(typed(robust, basis), results, CLEAR)
    assert verdict.outcome == outcome
    assert verdict.reasons[0].startswith(outcome.capitalize())
    assert f"the claim is {robust:.1%} ({basis})" in verdict.reasons[0]
    assert "n = 1000, Linf 8/255" in verdict.reasons[0]


def test_the_tolerance_is_the_claims_own():
    results = built(ran("apgd-margin", mask((850, 900))))
    assert judge_claim(typed(0.9, tolerance=0.05), results, CLEAR).outcome == "upheld"
    assert judge_claim(typed(0.9, tolerance=0.0), results, CLEAR).outcome == "refuted"


def test_the_worst_case_is_per_image_over_all_steps():
    overlapping = (claimed("fgsm", mask((0, 40))), claimed("pgd-20", mask((20, 60))), ran("square", mask((60, 90))))
    results = built(*overlapping)
    assert results.survives_all.sum() == 900 - 90
    assert judge_claim(typed(0.9), results, CLEAR).outcome == "refuted"
    assert judge_claim(typed(0.9), built(*overlapping[:1]), CLEAR).outcome == "inconclusive"


def test_a_control_has_no_say():
    results = built(control())
    assert results.survives_all.sum() == 900
    assert judge_claim(typed(0.9), results, CLEAR).outcome == "upheld"


def test_unknown_images_never_refute():
    crashed = ran("apgd-margin", errors=mask((0, 900)), messages=("RuntimeError: no memory",))
    results = built(crashed)
    verdict = judge_claim(typed(0.9), results, CLEAR)
    assert (verdict.outcome, verdict.unknown) == ("inconclusive", 900)
    assert "900 images are unknown because an attack failed on them" in verdict.reasons


def test_unknown_images_count_as_broken_before_anything_is_upheld():
    crashed = ran("apgd-margin", errors=mask((0, 15)), messages=("RuntimeError",))
    strict = judge_claim(typed(0.9, tolerance=0.01), built(crashed), CLEAR)
    assert strict.outcome == "inconclusive"
    assert any("leaves both answers open" in reason for reason in strict.reasons)
    # even where the number would still fit, a crash is no proof
    verdict = judge_claim(typed(0.9), built(crashed), CLEAR)
    assert (verdict.outcome, verdict.unknown) == ("inconclusive", 15)
    assert not any("leaves both answers open" in reason for reason in verdict.reasons)


def test_an_image_that_another_attack_breaks_is_not_unknown():
    crashed = ran("apgd-margin", errors=mask((0, 300)), messages=("RuntimeError",))
    results = built(crashed, ran("square", mask((0, 300))))
    verdict = judge_claim(typed(0.9), results, CLEAR)
    assert (verdict.outcome, verdict.unknown) == ("refuted", 0)


def test_verified_breaks_refute_in_spite_of_unknown_images():
    results = built(ran("square", mask((0, 300)), errors=mask((300, 900)), messages=("RuntimeError",)))
    assert judge_claim(typed(0.9), results, CLEAR).outcome == "refuted"


def test_images_that_were_never_looked_at_do_not_refute():
    seen = np.full(N, -1)
    seen[:250] = np.where(np.arange(250) < 225, 0, 1)  # one clean shard of four has run
    verdict = judge_claim(typed(0.85), built(missing=3, prediction=seen), CLEAR)
    assert verdict.outcome == "inconclusive"
    assert "3 units of the plan have not run" in verdict.reasons
    assert judge_claim(typed(0.85), built(missing=4, prediction=np.full(N, -1)), CLEAR).outcome == "inconclusive"


def test_missing_units_are_no_proof_of_survival_but_breaks_are():
    survived, broken = built(ran("apgd-margin"), missing=2), built(ran("apgd-margin", mask((0, 300))), missing=2)
    verdict = judge_claim(typed(0.9), survived, CLEAR)
    assert verdict.outcome == "inconclusive"
    assert verdict.reasons[1:] == ("2 units of the plan have not run",)
    assert judge_claim(typed(0.9), broken, CLEAR).outcome == "refuted"


# diagnoses and the verdict


@pytest.mark.parametrize(
    ("status", "blocking", "outcome"),
    [
        ("clear", True, "upheld"),
        ("resolved", True, "upheld"),
        ("flagged", True, "inconclusive"),
        ("not_measured", True, "inconclusive"),
        ("flagged", False, "upheld"),
        ("not_measured", False, "upheld"),
    ],
)
@pytest.mark.parametrize("claim", [typed(0.9), MEASURED], ids=["typed", "measured"])
def test_upheld_needs_every_blocking_diagnosis(claim, status, blocking, outcome):
    found = (finding(), finding(status, blocking=blocking, name="suspect"))
    verdict = judge_claim(claim, built(claimed(), ran("apgd-margin")), found)
    assert verdict.outcome == outcome
    if outcome == "inconclusive":
        wanted = {"flagged": "suspect: the sentence", "not_measured": "suspect was not measured"}[status]
        assert verdict.reasons[1:] == (wanted,)
    else:
        assert verdict.reasons[1:] == ("every control and blocking diagnosis is clear or resolved",)


@pytest.mark.parametrize("status", ["flagged", "not_measured"])
def test_no_diagnosis_saves_a_refuted_claim(status):
    results = built(claimed(), ran("apgd-margin", mask((0, 300))))
    assert judge_claim(typed(0.9), results, (finding(status),)).outcome == "refuted"


def test_a_refutation_names_the_causes():
    found = (
        finding("resolved", name="vanishing_gradient"),
        finding("flagged", name="saturated_softmax", blocking=False),
        finding("resolved", name="silent_success"),
        finding("clear", name="randomized"),
        finding("not_measured", name="adapter_forward"),
    )
    verdict = judge_claim(typed(0.9), built(ran("apgd-margin", mask((0, 300)))), found)
    assert verdict.reasons[1:] == (
        "vanishing gradients: the sentence",
        "saturated softmax: the sentence",
        "silent success: the sentence",
    )


# no claim


@pytest.mark.parametrize("steps", [(), (ran("apgd-margin", mask((0, 900))),)])
def test_without_a_claim_there_is_nothing_to_judge(steps):
    verdict = judge_claim(None, built(*steps), CLEAR)
    assert verdict.outcome == "inconclusive"
    assert "no claim to judge" in verdict.reasons[0]
    assert "--claim-robust" in verdict.reasons[0]


def test_without_a_claim_unknown_images_are_still_counted():
    crashed = ran("apgd-margin", errors=mask((0, 7)), messages=("RuntimeError",))
    assert judge_claim(None, built(crashed), CLEAR).unknown == 7


# the measured claim


@pytest.mark.parametrize(
    ("gap", "outcome"),
    [
        (0, "upheld"),
        (11, "upheld"),  # upper end 0.0196 <= 0.02
        (12, "inconclusive"),  # upper end 0.0209
        (29, "inconclusive"),  # lower end 0.0195
        (30, "refuted"),  # lower end 0.0203 > 0.02
        (300, "refuted"),
    ],
)
def test_a_measured_claim_is_compared_image_by_image(gap, outcome):
    interval = binomtest(gap, N).proportion_ci(method="exact")
    assert (interval.high <= 0.02, interval.low > 0.02) == (outcome == "upheld", outcome == "refuted")
    results = built(claimed(broken=mask((0, 50))), ran("apgd-margin", mask((50, 50 + gap))))
    verdict = judge_claim(MEASURED, results, CLEAR)
    assert verdict.outcome == outcome
    assert "the claimed attacks leave 85.0%" in verdict.reasons[0]


def test_what_the_claimed_attacks_return_does_not_refute_their_own_number():
    results = built(
        claimed("fgsm", mask((0, 100))), claimed("pgd-20", mask((0, 800))), ran("apgd-margin", mask((0, 800)))
    )
    assert judge_claim(MEASURED, results, CLEAR).outcome == "upheld"


def test_what_the_claimed_attacks_passed_through_and_did_not_return_refutes():
    results = built(claimed(broken=mask((0, 300)), returned=mask((0, 10))))
    assert judge_claim(MEASURED, results, CLEAR).outcome == "refuted"


def test_unknown_images_neither_refute_nor_uphold_a_measured_claim():
    results = built(claimed(), ran("apgd-margin", errors=mask((0, 400)), messages=("RuntimeError",)))
    verdict = judge_claim(MEASURED, results, CLEAR)
    assert (verdict.outcome, verdict.unknown) == ("inconclusive", 400)
    assert any("leaves both answers open" in reason for reason in verdict.reasons)


def test_a_claimed_attack_that_has_not_run_everywhere_cannot_be_shown_too_weak():
    # pgd-20 has run on 500 images and broken them; on a whole run it would be what is claimed
    half = claimed("pgd-20", mask((0, 500)), attacked=mask((0, 500)), done=False)
    results = built(claimed("fgsm"), half, missing=2)
    verdict = judge_claim(MEASURED, results, CLEAR)
    assert verdict.outcome == "inconclusive"
    assert "2 units of the plan have not run" in verdict.reasons
    # nor do images count that it has not come to, whoever breaks them
    half = claimed("pgd-20", attacked=mask((0, 500)), done=False)
    elsewhere = built(claimed("fgsm"), half, ran("apgd-margin", mask((500, 900))), missing=2)
    assert judge_claim(MEASURED, elsewhere, CLEAR).outcome == "inconclusive"


def test_a_claimed_attack_that_crashed_cannot_be_shown_too_weak():
    # on 600 images it crashed; 250 of them were harvested on the way, the rest a later attack broke
    crashed = claimed("pgd-20", mask((0, 250)), errors=mask((250, 600)), messages=("RuntimeError",))
    results = built(claimed("fgsm"), crashed, ran("apgd-margin", mask((250, 600))))
    assert results.unknown.sum() == 0
    assert judge_claim(MEASURED, results, CLEAR).outcome != "refuted"
    # images on which every claimed attack has spoken still count
    more = built(claimed("fgsm"), crashed, ran("apgd-margin", mask((250, 800))))
    assert judge_claim(MEASURED, more, CLEAR).outcome == "refuted"


def test_a_claimed_attack_that_crashed_or_is_unfinished_measures_nothing():
    crashed = claimed("bim-20", errors=mask((0, 900)), attacked=mask((0, 900)), messages=("RuntimeError",))
    partly = claimed("pgd-20", mask((0, 100)), errors=mask((100, 105)), messages=("RuntimeError",))
    results = built(claimed("fgsm"), crashed, partly, claimed("pgd-100", done=False), ran("square", mask((200, 900))))
    assert [r.step.name for r in results.claimed] == ["fgsm", "pgd-20"]
    assert results.survives_claimed.sum() == 795  # what crashed did not survive: nobody knows
    assert judge_claim(MEASURED, results, CLEAR).outcome == "inconclusive"


# each diagnosis


REMEDY = (ran("apgd-margin"), control())


def status_of(name: str, results: Results) -> str:
    return getattr(diagnoses, name)(results).status


def test_a_sound_run_is_clear_throughout():
    results = built(claimed(), ran("apgd-margin"), ran("square"), control())
    found = diagnose(results)
    assert tuple(d.name for d in found) == ALL
    assert tuple(d.name for d in found if d.blocking) == BLOCKING
    assert {d.status for d in found} == {"clear"}
    assert judge_claim(MEASURED, results, found).outcome == "upheld"
    assert all(d.sentence and d.remedy and d.reference for d in found)


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


@pytest.mark.parametrize(("gap", "status"), [(0, "clear"), (10, "clear"), (11, "flagged"), (400, "flagged")])
def test_claimed_attacks_too_weak(gap, status):
    found = diagnoses.claimed_attacks_too_weak(built(claimed(), ran("square", mask((0, gap)))))
    assert (found.status, found.value) == (status, pytest.approx(gap / N))


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


@pytest.mark.parametrize(("extra", "status"), [(0, "clear"), (5, "clear"), (6, "flagged")])
def test_black_box_beats_white_box(extra, status):
    found = diagnoses.black_box_beats_white_box(built(ran("apgd-margin"), ran("square", mask((0, extra)))))
    assert (found.status, found.value) == (status, pytest.approx(extra / N))


@pytest.mark.parametrize(
    "steps", [(ran("square"),), (ran("apgd-margin"),), (ran("apgd-margin"), ran("square", done=False))]
)
def test_black_and_white_box_must_both_have_run(steps):
    assert status_of("black_box_beats_white_box", built(*steps)) == "not_measured"


@pytest.mark.parametrize("expected", [0.85, 0.87, 0.89, 0.9, 0.91, 0.92, 0.93, 0.95])
def test_handshake_is_the_exact_binomial_test(expected):
    status = "flagged" if binomtest(900, N, expected).pvalue < 1e-3 else "clear"
    assert status_of("clean_accuracy_handshake", built(expected=expected)) == status


def test_handshake_asks_about_the_normalisation_when_half_is_gone():
    seen = np.where(np.arange(N) < 200, 0, 1)
    found = diagnoses.clean_accuracy_handshake(built(prediction=seen))
    assert found.status == "flagged"
    assert found.sentence == "clean accuracy is 20.0%, recorded is 90.0%; is the input normalised twice?"


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
    assert verdict.reasons[1:] == ("adapter_forward was not measured", "run_integrity was not measured")
