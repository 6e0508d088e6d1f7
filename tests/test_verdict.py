"""From records to a verdict, on results built by hand: who may be refuted, who may be upheld, and why not."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import binomtest

from audit.diagnoses import diagnose
from audit.types import Claim
from audit.verdict import OBSTACLES, OPEN, _stated, judge_claim
from tests.built import CHECKS, MEASURED, NONE, N, built, claimed, control, finding, mask, ran, typed

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
        (900, 0.90, "inconclusive"),  # lower end 0.8797 < 0.88: the point estimate alone earns nothing
        (805, 0.85, "refuted"),  # upper end 0.8291 < 0.83
        (806, 0.85, "inconclusive"),
        (853, 0.85, "inconclusive"),  # lower end 0.8295
        (854, 0.85, "upheld"),  # lower end 0.8306
        (900, 0.85, "upheld"),
        (0, 0.90, "refuted"),
        (0, 0.02, "upheld"),
    ],
)
def test_a_stated_number_is_compared_with_the_worst_case(basis, standing, robust, outcome):
    results = built(ran("apgd-margin", mask((standing, 900))))
    interval = binomtest(standing, N).proportion_ci(method="exact")  # the table above, worked out independently
    assert (interval.high < robust - 0.02, interval.low >= robust - 0.02) == (outcome == "refuted", outcome == "upheld")
    verdict = judge_claim(typed(robust, basis), results, CLEAR)
    assert verdict.outcome == outcome
    assert verdict.reasons[0].startswith(outcome.capitalize())
    assert f"the claim is {robust:.1%} ({basis})" in verdict.reasons[0]
    assert "n = 1000, Linf 8/255" in verdict.reasons[0]
    assert (verdict.reasons[1:] == (OPEN,)) == (outcome == "inconclusive")


@pytest.mark.parametrize(("crashed", "outcome"), [(0, "upheld"), (46, "inconclusive"), (47, "inconclusive")])
def test_the_interval_that_decides_counts_unknown_images_as_broken(crashed, outcome):
    # 900 - 46 = 854 is the least that upholds 85 %; the crash blocks either way, the interval is never to blame
    results = built(ran("apgd-margin", errors=mask((0, crashed)), messages=("RuntimeError",)))
    verdict = judge_claim(typed(0.85), results, CLEAR)
    assert verdict.outcome == outcome
    assert _stated(typed(0.85), results).upheld == (crashed <= 46)
    assert OPEN not in verdict.reasons


def test_crashes_alone_are_named_when_they_alone_leave_the_answer_open():
    results = built(ran("apgd-margin", errors=mask((0, 300)), messages=("RuntimeError",)))
    verdict = judge_claim(typed(0.85), results, CLEAR)
    assert verdict.reasons[1:] == ("300 images are unknown because an attack failed on them",)
    assert "the worst case over all attacks at most 90.0%" in verdict.reasons[0]
    # were they all broken the claim would be refuted, were none it would be open: the crash is the reason to name
    few = built(ran("apgd-margin", mask((0, 60)), errors=mask((60, 100)), messages=("RuntimeError",)))
    assert judge_claim(typed(0.85), few, CLEAR).reasons[1:] == (
        "40 images are unknown because an attack failed on them",
    )


def test_interval_and_crashes_are_both_named_when_both_leave_the_answer_open():
    results = built(ran("apgd-margin", mask((0, 60)), errors=mask((60, 65)), messages=("RuntimeError",)))
    assert judge_claim(typed(0.85), results, CLEAR).reasons[1:] == (
        OPEN, "5 images are unknown because an attack failed on them",
    )  # fmt: skip


def test_the_tolerance_is_the_claims_own():
    results = built(ran("apgd-margin", mask((850, 900))))
    assert judge_claim(typed(0.9, tolerance=0.08), results, CLEAR).outcome == "upheld"
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
    assert judge_claim(typed(0.85), results, CLEAR).outcome == "upheld"


def test_unknown_images_never_refute():
    crashed = ran("apgd-margin", errors=mask((0, 900)), messages=("RuntimeError: no memory",))
    results = built(crashed)
    verdict = judge_claim(typed(0.9), results, CLEAR)
    assert (verdict.outcome, verdict.unknown) == ("inconclusive", 900)
    assert "900 images are unknown because an attack failed on them" in verdict.reasons


def test_unknown_images_count_as_broken_before_anything_is_upheld():
    crashed = ran("apgd-margin", errors=mask((0, 15)), messages=("RuntimeError",))
    assert OPEN in judge_claim(typed(0.9), built(crashed), CLEAR).reasons
    # even where the number would still fit, a crash is no proof
    verdict = judge_claim(typed(0.85), built(crashed), CLEAR)
    assert (verdict.outcome, verdict.unknown) == ("inconclusive", 15)
    assert OPEN not in verdict.reasons


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
@pytest.mark.parametrize("claim", [typed(0.85), MEASURED], ids=["typed", "measured"])
def test_upheld_needs_every_blocking_diagnosis(claim, status, blocking, outcome):
    found = (finding(), finding(status, blocking=blocking, name="suspect"))
    verdict = judge_claim(claim, built(claimed(), ran("apgd-margin")), found)
    assert verdict.outcome == outcome
    if outcome == "inconclusive":
        wanted = {"flagged": "suspect: the sentence", "not_measured": "suspect was not measured: the sentence"}[status]
        assert verdict.reasons[1:] == (wanted,)
    else:
        assert verdict.reasons[1:] == (
            "every control and blocking diagnosis is clear or resolved; the attack was tried on no network whose answer is known",
        )


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
        *(finding("flagged", name=name) for name in sorted(OBSTACLES - {"run_integrity"})),
        finding("flagged", name="declared_stochastic"),
    )
    verdict = judge_claim(typed(0.9), built(ran("apgd-margin", mask((0, 300)))), found)
    assert verdict.reasons[1:] == (
        "vanishing gradients: the sentence",
        "saturated softmax: the sentence",
        "silent success: the sentence",
    )


# images whose proof was rejected


def rejecting(ids=None, count=None, **checks) -> dict:
    known = {} if ids is None else {"rejected_ids": ids}
    return {**CHECKS, "rejected": len(ids) if count is None else count, **known, **checks}


INTEGRITY = (finding("flagged", name="run_integrity"),)
BROKEN = (claimed(), ran("apgd-margin", mask((0, 300))))


@pytest.mark.parametrize("claim", [typed(0.9), MEASURED], ids=["typed", "measured"])
def test_nothing_is_refuted_when_it_is_not_known_whose_proof_fell(claim):
    verdict = judge_claim(claim, built(*BROKEN, checks=rejecting(count=1)), INTEGRITY)
    assert verdict.outcome == "inconclusive"
    assert verdict.reasons[1].startswith("run_integrity failed and it is not recorded for which images")
    assert OPEN not in verdict.reasons


@pytest.mark.parametrize("claim", [typed(0.9), MEASURED], ids=["typed", "measured"])
def test_rejected_images_are_unknown_and_the_others_still_refute(claim):
    few = judge_claim(claim, built(*BROKEN, checks=rejecting(list(range(20)))), INTEGRITY)
    assert (few.outcome, few.unknown) == ("refuted", 20)
    assert "at most 62.0%" in few.reasons[0]
    most = judge_claim(claim, built(*BROKEN, checks=rejecting(list(range(290)))), INTEGRITY)
    assert (most.outcome, most.unknown) == ("inconclusive", 290)
    assert any("290 images are unknown because their adversarial image was rejected" in r for r in most.reasons)
    # the same images as in a run that is intact
    assert judge_claim(claim, built(*BROKEN), CLEAR).outcome == "refuted"


def test_a_rejected_image_counts_as_broken_where_another_proves_it():
    known = rejecting(list(range(290)), unproven_ids=[0, 1])
    verdict = judge_claim(typed(0.9), built(*BROKEN, checks=known), INTEGRITY)
    assert (verdict.outcome, verdict.unknown) == ("refuted", 2)


def test_a_model_that_changed_refutes_nothing():
    checks = rejecting([], model_unchanged=False)
    verdict = judge_claim(typed(0.9), built(*BROKEN, checks=checks), diagnose(built(*BROKEN, checks=checks)))
    assert verdict.outcome == "inconclusive"
    assert any("CHANGED" in reason for reason in verdict.reasons)


# no claim


@pytest.mark.parametrize("steps", [(), (ran("apgd-margin", mask((0, 900))),)])
def test_without_a_claim_there_is_nothing_to_judge(steps):
    verdict = judge_claim(None, built(*steps), CLEAR)
    assert verdict.outcome == "inconclusive"
    assert "no claim to judge" in verdict.reasons[0]
    assert "--claim-robust" in verdict.reasons[0]


def test_claimed_attacks_that_crashed_leave_no_claim_and_say_so():
    crashed = [claimed(name, errors=mask((0, 900)), messages=(f"RuntimeError: {name}",)) for name in ("fgsm", "pgd-20")]
    reason = judge_claim(None, built(*crashed, ran("square", mask((0, 900)))), CLEAR).reasons[0]
    assert "the claimed attacks crashed (fgsm, pgd-20); the first said: RuntimeError: fgsm" in reason
    assert "the suite ran none" not in reason


def test_claimed_attacks_without_a_number_say_why():
    late = judge_claim(None, built(claimed(done=False, attacked=NONE), missing=4), CLEAR)
    assert "have not run to their end" in late.reasons[0]
    wrong = built(claimed(attacked=NONE), prediction=np.ones(N, np.int64))
    assert "no image is classified correctly" in judge_claim(None, wrong, CLEAR).reasons[0]


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
    assert verdict.reasons[1:] == ("400 images are unknown because an attack failed on them",)


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


@pytest.mark.parametrize(("crashed", "broken_later"), [((250, 600), (250, 600)), ((100, 105), (100, 105))])
def test_a_crash_of_a_claimed_attack_upholds_nothing_even_when_others_break_its_images(crashed, broken_later):
    steps = claimed("pgd-20", errors=mask(crashed), messages=("RuntimeError",)), ran("apgd-t", mask(broken_later))
    results = built(*steps)
    assert not results.unknown.any()
    verdict = judge_claim(MEASURED, results, CLEAR)
    assert verdict.outcome == "inconclusive"
    count = crashed[1] - crashed[0]
    assert f"{count} images that others broke may not count: a claimed attack crashed on them" in verdict.reasons
    assert "the claimed attacks leave at least" in verdict.reasons[0]
    assert OPEN not in verdict.reasons


def test_a_claimed_attack_that_crashed_everywhere_is_named_and_not_the_interval():
    crashed = claimed("bim-20", errors=mask((0, 900)), messages=("RuntimeError",))
    verdict = judge_claim(MEASURED, built(claimed("fgsm"), crashed, ran("square", mask((0, 900)))), CLEAR)
    assert verdict.outcome == "inconclusive"
    assert verdict.reasons[1] == "claimed attacks crashed on every image that they came to: bim-20"
    assert OPEN not in verdict.reasons


def test_claimed_attacks_weakened_by_hand_measure_no_claim():
    steps = claimed("pgd-20"), ran("apgd-margin", mask((0, 300)))
    assert judge_claim(MEASURED, built(*steps, weakened=[]), CLEAR).outcome == "refuted"
    assert judge_claim(MEASURED, built(*steps, weakened=["apgd-margin.n_iter: 100 -> 10"]), CLEAR).outcome == "refuted"
    verdict = judge_claim(MEASURED, built(*steps, weakened=["pgd-20.steps: 20 -> 1"]), CLEAR)
    assert verdict.outcome == "inconclusive"
    assert verdict.reasons[1].endswith("so the number is not the claim's: pgd-20")
    # a typed number does not rest on what they measure
    assert judge_claim(typed(0.9), built(*steps, weakened=["pgd-20.steps: 20 -> 1"]), CLEAR).outcome == "refuted"


def test_a_checkpoint_that_misses_the_papers_number_is_audited_for_its_own(tmp_path):
    from audit.summary import Audit

    def claim_of(printed: float, basis: str) -> Claim:
        stated = {**asdict(typed(printed, basis)), "architecture": "lenet"}
        identity = {"claim": stated, "defense": "d", "dataset": "s", "architecture": {"name": "lenet"}}
        return Audit(tmp_path, built(claimed(broken=mask((0, 400))), control(), **identity)).claim

    assert claim_of(0.66, "paper").basis == "measured"  # its own attacks leave 50 %
    assert claim_of(0.66, "paper").robust_acc == 0.5
    assert claim_of(0.52, "paper").robust_acc == 0.52
    assert claim_of(0.66, "typed").robust_acc == 0.66


def test_upheld_says_whether_the_attack_was_tried_on_models_of_known_answer():
    known = {"n": 100, "left": 0, "expected": 0, "tolerance": 1, "attack": "a", "reference": "undefended", "eps": 0.1}
    results = built(claimed(), ran("apgd-margin"), checks={**CHECKS, "controls": [known]})
    assert judge_claim(MEASURED, results, ()).reasons[-1] == "every control and blocking diagnosis is clear or resolved"
