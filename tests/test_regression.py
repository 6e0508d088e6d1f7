"""A planted drop fails, an unchanged model does not, and what was measured otherwise is not compared."""

from __future__ import annotations

import dataclasses
import json
from itertools import product
from math import comb
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from audit.baselines import snapshot
from audit.engine import LocalEngine, Target
from audit.errors import BadInput, NotComparable
from audit.ledger import Ledger
from audit.plan import Plan
from audit.regression import ALPHA, compare
from audit.runner import Silent
from audit.stats import difference_interval, drop_p_value, estimate, mcnemar
from audit.summary import load_run
from audit.types import Step
from tests.built import claimed, mask, ran
from tests.frozen import IDENTITY, audited, frozen, standing
from tests.planted import Noisy, TinyCNN, images

SEEDS = 100


# --- the exact test


def test_the_p_value_counts_every_signing():
    before, after = np.array([5, 3, 9, 2, 7]), np.array([1, 3, 4, 3, 5])  # differences 4, 0, 5, -1, 2
    sizes = (4, 5, 1, 2)
    as_much = sum(sum(s for s, loses in zip(sizes, signs, strict=True) if loses) >= 11
                  for signs in product((False, True), repeat=4))  # fmt: skip
    assert drop_p_value(before, after) == as_much / 16 == 2 / 16


@pytest.mark.parametrize(("lost", "won"), [(1, 0), (5, 0), (8, 2), (3, 3), (40, 25), (0, 4)])
def test_of_one_draw_it_is_mcnemars(lost, won):
    before = np.array([1] * lost + [0] * won + [1] * 20)
    after = np.array([0] * lost + [1] * won + [1] * 20)
    expected = sum(comb(lost + won, k) for k in range(lost, lost + won + 1)) / 2 ** (lost + won)
    assert drop_p_value(before, after) == pytest.approx(expected)
    if lost > won:
        assert 2 * drop_p_value(before, after) == pytest.approx(mcnemar(before.astype(bool), after.astype(bool)))


def test_without_a_difference_nothing_is_proven():
    same = np.arange(50)
    assert drop_p_value(same, same) == 1.0
    assert drop_p_value(same, same + 1) == 1.0


def test_the_unit_does_not_matter():
    dice = np.random.default_rng(1)
    before, after = dice.integers(0, 21, 60), dice.integers(0, 21, 60)
    assert drop_p_value(before, after) == pytest.approx(drop_p_value(97 * before, 97 * after), rel=1e-12)


def test_the_exact_p_value_keeps_its_level():
    """Under the null P(p <= level) <= level, and for many small differences nearly equal."""
    dice = np.random.default_rng(2)
    p = [drop_p_value(*dice.binomial(20, dice.beta(2, 1, 60), (2, 60))) for _ in range(2000)]
    for level in (0.01, 0.025, 0.1):
        assert level / 2 < np.mean(np.array(p) <= level) < level + 3 * (level / 2000) ** 0.5


@pytest.mark.parametrize(("n", "true"), [(30, 0.1), (60, 0.5), (100, 0.95)])
@pytest.mark.parametrize("level", [0.025, 0.005])
def test_the_interval_of_a_difference_keeps_its_level_exactly(n, true, level):
    """Over every pair of counts: how often two samples of one accuracy are called different."""
    chance = binom.pmf(np.arange(n + 1), n, true)
    likely = np.flatnonzero(chance > 1e-7)
    alarms = sum(
        chance[a] * chance[b]
        for a in likely
        for b in likely
        if a > b and difference_interval(estimate(float(a), n), estimate(float(b), n), 1 - 2 * level)[0] > 0
    )
    assert alarms <= level


# --- what fails, what passes


def drawn(n, dice, lost, won, rate=0.5):
    """Two outcomes of n images: each that was right is lost with chance `lost`, each that was wrong won with `won`."""
    before = (np.arange(n) < rate * n).astype(np.int64)
    chance = dice.random(n)
    return before, np.where(before == 1, chance >= lost, chance < won).astype(np.int64)


@pytest.mark.parametrize(("n", "points"), [(1000, 3), (1000, 5), (200, 6), (500, 4)])
def test_a_planted_drop_is_caught_in_95_of_100_seeds(n, points):
    caught = 0
    for seed in range(SEEDS):
        before, after = drawn(n, np.random.default_rng(seed), lost=2 * points / 100, won=0)
        caught += bool(compare(frozen(before), frozen(after)).regressed)
    assert caught >= 95


def test_a_planted_drop_is_caught_among_images_that_flip_by_chance():
    """Three points lost in the mean, with ten images flipped each way by the seeds of the attacks."""
    caught = 0
    for seed in range(SEEDS):
        before, after = drawn(1000, np.random.default_rng(seed), lost=0.06 + 0.02, won=0.02)
        caught += bool(compare(frozen(before), frozen(after)).regressed)
    assert caught >= 95


@pytest.mark.parametrize(("n", "flips"), [(1000, 0.0), (1000, 0.02), (1000, 0.05), (200, 0.02)])
def test_no_drop_passes_in_95_of_100_seeds(n, flips):
    """As many images are won by chance as are lost."""
    passed = 0
    for seed in range(SEEDS):
        before, after = drawn(n, np.random.default_rng(seed), lost=flips, won=flips)
        passed += not compare(frozen(before), frozen(after)).regressed
    assert passed >= 95


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 1000])
def test_the_rate_of_false_alarms_over_a_thousand_seeds_is_at_most_the_stated_one(n):
    """Four figures of which every one flips a tenth of its images: 36 and 40 alarms in 1,000 seeds, 50 are allowed."""
    assert sum(alarm(n, 0.1, seed) for seed in range(1000)) <= ALPHA * 1000


def alarm(n, flips, seed, **rules):
    """Does an unchanged model fail whose worst case and three attacks flip images by luck, independent of each other?"""
    dice = np.random.default_rng(seed)
    sides = [dice.binomial(1, np.where(np.arange(n) % 2, 1 - flips, flips), (4, n)) for _ in range(2)]
    pair = [frozen(s[0], attacks={f"a{i}": s[i] for i in range(1, 4)}) for s in sides]
    return bool(compare(*pair, **rules).regressed)


def plausible(failed, runs, rate=ALPHA):
    """May a share of at most `rate` fail so often? No more than one such test of 1,000 says no by chance."""
    return binom.sf(failed - 1, runs, rate) > 0.001


@pytest.mark.parametrize(("n", "flips"), [(200, 0.02), (200, 0.1), (1000, 0.005), (1000, 0.1)])
def test_an_unchanged_model_fails_no_more_often_than_stated(n, flips):
    """A quick look at a hundred seeds, with no drop allowed: a rate of just what is stated may show a few more than five."""
    strict = sum(alarm(n, flips, seed, max_drop=0.0) for seed in range(SEEDS))
    usual = sum(alarm(n, flips, seed) for seed in range(SEEDS))
    assert plausible(strict, SEEDS)
    assert usual <= strict


def test_without_chance_an_unchanged_model_never_fails():
    same = frozen(standing(100, 200), attacks={"pgd": standing(120, 200)})
    found = compare(same, same, max_drop=0.0)
    assert [(row.drop, row.p, row.status) for row in found.rows] == [(0.0, 1.0, "held")] * 3


def test_an_unchanged_random_defense_fails_no_more_often_than_stated():
    failed = passed = 0
    for seed in range(SEEDS):
        dice = np.random.default_rng(seed)
        right = dice.beta(0.5, 0.4, 100)  # most images are right nearly always or nearly never
        sides = [frozen(dice.binomial(97, right), dice.binomial(97, right), draws=97) for _ in range(2)]
        failed += bool(compare(*sides, max_drop=0.0).regressed)
        weaker = frozen(dice.binomial(97, right * 0.9), dice.binomial(97, right), draws=97)
        passed += not compare(sides[0], weaker).regressed
    assert failed <= ALPHA * SEEDS
    assert passed <= 0.05 * SEEDS  # a tenth of all that was right is gone: that is caught


def test_other_images_of_one_model_fail_no_more_often_than_stated():
    failed = caught = 0
    for seed in range(SEEDS):
        dice = np.random.default_rng(seed)
        before, after, worse = (
            frozen(dice.binomial(1, p, 500), digest=d * 64) for p, d in ((0.5, "0"), (0.5, "1"), (0.3, "1"))
        )
        failed += bool(compare(before, after, max_drop=0.0).regressed)
        caught += bool(compare(before, worse).regressed)
    assert failed <= ALPHA * SEEDS
    assert caught >= 0.99 * SEEDS


@pytest.mark.parametrize(
    ("n", "lost", "won", "max_drop", "status"),
    [
        (200, 0, 0, 0.01, "held"),
        (200, 5, 0, 0.01, "unclear"),  # 1/32 > 0.025
        (200, 6, 0, 0.01, "regressed"),  # 1/64
        (25, 1, 0, 0.01, "unclear"),  # four points, and one image
        (1000, 10, 0, 0.01, "held"),  # just what is allowed
        (1000, 11, 0, 0.01, "regressed"),
        (1000, 9, 0, 0.01, "held"),  # certain, and allowed
        (1000, 9, 0, 0.0, "regressed"),
        (1000, 30, 0, 0.05, "held"),
        (1000, 60, 30, 0.01, "regressed"),
        (1000, 400, 370, 0.01, "unclear"),
        (1000, 0, 30, 0.01, "improved"),
        (1000, 0, 5, 0.0, "held"),
    ],
)
def test_the_line_between_pass_and_fail(n, lost, won, max_drop, status):
    before = np.concatenate([np.ones(lost), np.zeros(won), np.arange(n - lost - won) % 2])
    after = np.concatenate([np.zeros(lost), np.ones(won), np.arange(n - lost - won) % 2])
    row = compare(frozen(before), frozen(after), max_drop=max_drop).rows[0]
    assert (row.status, row.lost, row.won) == (status, lost, won)
    assert row.drop == pytest.approx((lost - won) / n)
    assert row.fails == (status == "regressed")
    assert row.interval[0] <= row.drop <= row.interval[1]


def test_clean_accuracy_and_attacks_are_judged_at_their_own_share_of_alpha():
    worst = standing(10, 200)
    before = frozen(worst, standing(180, 200), attacks={"pgd": standing(100, 200), "fgsm": standing(120, 200)})
    after = frozen(worst, standing(150, 200), attacks={"pgd": standing(93, 200), "fgsm": standing(113, 200)})
    found = {row.name: row for row in compare(before, after).rows}
    assert [row.level for row in found.values()] == [0.025, *[0.025 / 3] * 3]
    assert found["worst case"].status == "held"
    assert {name for name, row in found.items() if row.fails} == {"clean", "pgd", "fgsm"}  # 1/128 < 0.025 / 3


def test_an_attack_on_survivors_is_shown_and_cannot_fail():
    before = snapshot(audited())
    after = snapshot(audited(claimed("pgd-20", mask((0, 300))), ran("apgd", mask((0, 480)), attack="apgd-margin")))
    found = {row.name: row for row in compare(before, after).rows}
    assert found["apgd"].status == "regressed"
    assert not found["apgd"].judged
    assert [row.name for row in compare(before, after).regressed] == ["worst case"]


def test_the_sentence_says_what_moved_by_how_much_and_how_sure():
    row = compare(frozen(standing(500, 1000)), frozen(standing(460, 1000))).rows[0]
    assert row.sentence == ("worst case: 50.0% -> 46.0%, -4.0 points [-5.4, -2.8], 40 images lost, 0 won, p = 9.1e-13")
    assert compare(frozen(standing(5, 9)), frozen(standing(5, 9))).rows[0].sentence == "worst case: 55.6% as before"
    row = compare(frozen(standing(40, 100)), frozen(standing(60, 100), digest="ef" * 32)).rows[0]
    assert row.sentence.startswith("worst case: 40.0% -> 60.0%, +20.0 points [+")
    assert row.sentence.endswith("], not the same images")


def test_images_lost_to_crashes_count_as_lost():
    before = snapshot(audited())
    after = snapshot(audited(claimed("pgd-20", mask((0, 300))),
                             ran("apgd", mask((0, 400)), attack="apgd-margin", errors=mask((400, 430)))))  # fmt: skip
    found = compare(before, after)
    assert [row.name for row in found.regressed] == ["worst case"]
    assert found.rows[0].lost == 30
    assert any("30 images that nobody could judge count as broken; type --retry-errors" in note for note in found.notes)


# --- what is not compared


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"eps": 0.1}, 'eps: "8/255" -> "0.1"'),
        ({"eps": 16 / 255}, "eps: \"8/255\" -> \"16/255\""),
        ({"norm": "L2"}, "norm: \"Linf\" -> \"L2\""),
        ({"dataset": "mnist"}, 'dataset: "fashion_mnist" -> "mnist"'),
        ({"suite": "adaptive"}, 'suite: "quick" -> "adaptive"'),
        ({"draws": 20}, "draws: 1 -> 20"),
        ({"steps": {"pgd-20": {"attack": "pgd", "params": {"steps": 9}}}}, "steps.pgd-20.params.steps: 20 -> 9"),
        ({"steps": {}}, "steps.pgd-20: {"),
    ],
)  # fmt: skip
def test_what_was_measured_otherwise_is_refused_by_name(change, said):
    with pytest.raises(NotComparable, match="audit with the baseline's settings, or freeze this run") as caught:
        compare(frozen(standing(5, 10)), frozen(standing(5, 10), **change))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_field_that_differs_is_named():
    with pytest.raises(NotComparable, match=r"eps: .*; n: 10 -> 20; suite: "):
        compare(frozen(standing(5, 10)), frozen(standing(5, 20), eps=0.1, suite="full"))


def test_nearly_equal_radii_are_not_equal():
    with pytest.raises(NotComparable, match=r'eps: "0\.1" -> 0\.10000001'):
        compare(frozen(standing(5, 10), eps=0.1), frozen(standing(5, 10), eps=0.10000001))


def test_what_may_explain_a_difference_is_said_and_refuses_nothing():
    after = frozen(standing(5, 10), fingerprint="f1", record={"seed": 1, "versions": {"torch": "2.16"}, "command": "x"})
    (_, changed) = compare(frozen(standing(5, 10)), after).notes
    assert changed == 'what else differs: seed: 0 -> 1; versions.torch: "2.15" -> "2.16"'


def test_a_small_run_says_what_it_cannot_see():
    (same, small) = compare(frozen(standing(10, 24)), frozen(standing(10, 24))).notes
    assert same == "the plan is the baseline's: same weights, seed and versions"
    assert small == "at n = 24 a drop of the worst case fails from 6 images on (25.0%); audit more to see less"
    assert len(compare(frozen(standing(10, 600)), frozen(standing(10, 600))).notes) == 1
    assert not compare(frozen(standing(24, 24)), frozen(standing(19, 24))).regressed
    assert compare(frozen(standing(24, 24)), frozen(standing(18, 24))).regressed


def test_an_attack_that_only_one_run_needed_is_named():
    before = frozen(standing(5, 10), attacks={"pgd-20": standing(6, 10), "remedy": standing(7, 10)})
    after = dataclasses.replace(before, figures=before.figures[:3])
    for pair in ((before, after), (after, before)):
        found = compare(*pair)
        assert [row.name for row in found.rows] == ["worst case", "clean", "pgd-20"]
        assert any(note.endswith("count in the worst case: remedy") for note in found.notes)


@pytest.mark.parametrize(("name", "value"), [("max_drop", -0.1), ("max_drop", 1.0), ("alpha", 0.0), ("alpha", 0.6)])
def test_impossible_numbers_are_refused(name, value):
    for wrong in (value, float("nan")):
        with pytest.raises(BadInput, match=f"--{name.replace('_', '-')} is {wrong}, expected a .*; type "):
            compare(frozen(standing(5, 10)), frozen(standing(5, 10)), **{name: wrong})


# --- real attacks on a random defense


def noisy_runs(folder: Path, seeds, width=0.1, n=20):
    """Snapshots of audits of one random defense that differ in the seed alone."""
    model = TinyCNN()
    x, y = images(model, n)
    target = Target(Noisy(model, width), x, y, frozenset({"stochastic"}))
    steps = (
        Step("pgd", "pgd", "claimed", "all", params={"steps": 2}),
        Step("square", "square", "adaptive", params={"n_queries": 5}),
    )
    for seed in seeds:
        identity = {
            **IDENTITY, "n": n, "seed": seed, "batch_size": n, "norm": "Linf", "eps": 0.03, "draws": 20,
            "steps": json.loads(json.dumps([step.to_dict() for step in steps])),
        }  # fmt: skip
        plan = Plan(identity, steps, {"max_draw_difference": 1.0, "classes": 4})
        plan.write(folder / str(seed))
        LocalEngine(plan, target, Ledger(folder / str(seed), plan.fingerprint)).run(Silent())
        yield snapshot(load_run(folder / str(seed)))


def test_two_seeds_of_a_random_defense_differ_and_are_compared_by_shares(tmp_path):
    before, after = noisy_runs(tmp_path, (0, 1))
    assert before.comparable["draws"] == 20
    assert before.figures[0].hits.tolist() != after.figures[0].hits.tolist()
    assert 0 < before.figures[0].estimate.accuracy < before.figures[1].estimate.accuracy
    found = compare(before, after, max_drop=0.0)
    assert found.paired
    assert all(0 < row.p <= 1 for row in found.rows)


@pytest.mark.slow
def test_an_unchanged_random_defense_under_real_attacks_fails_no_more_often_than_stated(tmp_path):
    """200 seeds against 200 other seeds and these against those, without any drop being allowed; and a noisier model is
    caught.
    """
    before, after = (list(noisy_runs(tmp_path, range(k, 4 * SEEDS, 2))) for k in (0, 1))
    pairs = [*zip(before, after, strict=True), *zip(after, before, strict=True)]
    failed = sum(bool(compare(a, b, max_drop=0.0).regressed) for a, b in pairs)
    assert failed <= ALPHA * len(pairs)
    worse = list(noisy_runs(tmp_path / "worse", range(20), width=0.6))
    assert sum(bool(compare(a, b).regressed) for a, b in zip(before, worse, strict=False)) >= 19
