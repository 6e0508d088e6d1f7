"""Exact intervals against scipy's own and against closed forms; McNemar against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from audit.stats import clopper_pearson, estimate, mcnemar, paired_interval


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 50), (27, 50), (839, 1000), (999, 1000)])
def test_clopper_pearson_equals_scipy(k, n, confidence):
    expected = binomtest(k, n).proportion_ci(confidence, method="exact")
    assert clopper_pearson(k, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 7, 100, 1000])
def test_clopper_pearson_in_closed_form_at_the_ends(n):
    edge = 0.025 ** (1 / n)
    assert clopper_pearson(n, n) == pytest.approx((edge, 1.0))
    assert clopper_pearson(0, n) == pytest.approx((0.0, 1 - edge))


def test_clopper_pearson_is_symmetric():
    low, high = clopper_pearson(13, 40)
    assert clopper_pearson(27, 40) == pytest.approx((1 - high, 1 - low))


def test_no_images_say_nothing():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 10), (11, 10), (1, 0)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(ValueError, match=rf"successes must be in \[0, {n}\], got {k}"):
        clopper_pearson(k, n)


@pytest.mark.parametrize(("correct", "n", "accuracy"), [(3, 4, 0.75), (0, 9, 0.0), (0, 0, 0.0)])
def test_estimate(correct, n, accuracy):
    found = estimate(correct, n)
    assert (found.correct, found.n, found.accuracy) == (correct, n, accuracy)
    assert found.interval == clopper_pearson(correct, n)


def paired(both: int, only_first: int, only_second: int, neither: int):
    first = [True] * both + [True] * only_first + [False] * only_second + [False] * neither
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return np.array(first), np.array(second)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * (1/2)
        (5, 0, 2 / 32),
        (10, 0, 2 / 1024),
        (4, 1, 2 * (1 + 5) / 32),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (3, 3, 1.0),
    ],
)
def test_mcnemar_by_hand(only_first, only_second, p):
    assert mcnemar(*paired(20, only_first, only_second, 5)) == pytest.approx(p)
    assert mcnemar(*paired(20, only_second, only_first, 5)) == pytest.approx(p)


def test_concordant_pairs_do_not_matter():
    assert mcnemar(*paired(0, 6, 1, 0)) == mcnemar(*paired(500, 6, 1, 300))


def test_the_paired_interval_covers_and_is_never_a_point():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        first, second = generator.binomial(20, 0.6, 50) / 20, generator.binomial(20, 0.5, 50) / 20
        low, high = paired_interval(first, second)
        covered += low <= 0.1 <= high
    assert covered >= 0.93 * 400
    for n in (2, 3, 5):  # equal differences say little when there are few
        low, high = paired_interval(np.ones(n), np.ones(n))
        assert high > 0.4
    assert paired_interval(np.ones(1), np.zeros(1)) == (-1.0, 1.0)
    assert paired_interval(np.ones(1000), np.ones(1000))[1] < 0.01
