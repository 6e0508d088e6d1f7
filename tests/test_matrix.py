"""The diagonal: each patient raises its own flag and no other blocking one, the healthy raise none."""

from __future__ import annotations

import pytest

from audit import execution
from audit.diagnoses.index import in_words
from audit.suites import SUITES
from audit.verdict import judge_claim
from tests.matrix import SLACK, examined, models
from tests.patients import PATIENTS

QUICKEST = ("logits_times_1000",)
SLOW = (
    "plain", "stateful", "softmax_appended", "quantised_input", "pgd_at", "sleeper", "quantised_logits", "bit_depth", "jpeg", "gradient_clipped", "ripple", "detached_fgsm_purifier",
    "anti_adversary", "uniform_noise", "detector", "expects_255",
)  # fmt: skip
ILL = ("last_iterate", "foreign_gradient")
BROKEN = (
    "softmax_appended", "logits_times_1000", "quantised_input", "gradient_clipped", "thermometer", "quantised_logits", "bit_depth", "jpeg", "ripple",
    "detached_fgsm_purifier", "anti_adversary", "k_winners", "stateful", "batch_statistics",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _cheap(monkeypatch):
    """What is the same for every patient, or costs more than all its attacks, has tests of its own."""
    monkeypatch.setattr(execution, "run_controls", lambda plan, device: [])
    monkeypatch.setattr(execution, "binarised", lambda plan, prepared, view: [])


def check(name, out, seed=0):
    row = examined(PATIENTS[name], "diagnose", seed, out)
    assert not row.problems, str(row)
    assert row.audit.verdict.outcome != "upheld"


@pytest.mark.parametrize("name", QUICKEST)
def test_the_diagonal_in_short(name, tmp_path):
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logits_times_1000", pytest.param("quantised_input", marks=pytest.mark.slow)])
def test_a_masked_defense_that_stands_is_not_upheld_for_its_own_flag_alone(name, tmp_path):
    """Without the steps that answer the finding, the numbers bear the claim out, and nothing else speaks against it."""
    blind = tuple(step for step in SUITES["diagnose"].steps if step.suite == "claimed")
    row = examined(PATIENTS[name], "diagnose", 0, tmp_path, steps=blind)
    results, claim = row.audit.results, row.audit.claim
    assert judge_claim(claim, results, ()).outcome == "upheld"
    (own,) = [
        d
        for d in row.audit.diagnoses
        if d.name in ("vanishing_gradient", "shattered_gradient") and d.status == "flagged"
    ]
    assert judge_claim(claim, results, (own,)).outcome == "inconclusive"
    assert row.audit.verdict.outcome == "inconclusive"
    assert any(reason.startswith(in_words(own.name)) for reason in row.audit.verdict.reasons)


@pytest.mark.parametrize("name", ["two_steps", *(pytest.param(name, marks=pytest.mark.slow) for name in ILL)])
def test_an_ill_attack_is_found_out_on_a_healthy_model(name, tmp_path):
    row = examined(PATIENTS[name], "diagnose", 0, tmp_path, 24)
    assert not row.problems, str(row)
    assert row.audit.verdict.outcome != "upheld"


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_diagonal(name, tmp_path):
    check(name, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", [p.name for p in models() if p.name not in {*QUICKEST, *SLOW}])
def test_the_rest_of_the_diagonal(name, tmp_path):
    check(name, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", BROKEN)
def test_the_rules_alone_get_as_far_as_the_attack_by_hand(name, tmp_path):
    row = examined(PATIENTS[name], "adaptive", 0, tmp_path)
    assert row.audit.adaptive.accuracy <= row.patient.by_hand + SLACK, str(row)
    assert row.audit.verdict.outcome == "refuted", str(row)
