"""Exact intervals and paired tests, free of torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binomtest, norm, t

from audit.types import Estimate

CONFIDENCE = 0.95

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]
Counts = NDArray[np.int64]


def clopper_pearson(successes: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided binomial interval (Clopper and Pearson 1934), exact for counts. n = 0 gives (0, 1).

    `successes` may be a sum of n independent values in [0,1], such as shares of correct draws: no such value varies
    more than a coin of the same mean, so the interval covers images and draws alike, and errs on the wide side.
    Raises ValueError when `successes` is not in [0, n].
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in [0, {n}], got {successes}")
    if n == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def estimate(correct: float, n: int) -> Estimate:
    """`correct` of `n` as an accuracy with its 95 % interval."""
    correct = min(max(float(correct), 0.0), n)
    correct = int(correct) if correct.is_integer() else correct
    return Estimate(correct, n, correct / n if n else 0.0, clopper_pearson(correct, n))


def total(shares: Floats) -> float:
    """The sum of shares (n,) in float64."""
    return float(np.sum(shares, dtype=np.float64))


def paired_interval(first: Floats, second: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the mean of first - second, both shares in [0,1] of shape (n,), over images.

    The wider of Student's t, which few or equal differences make too narrow, and of `clopper_pearson` on their sum.
    Fewer than 2 images give (-1, 1).
    """
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    n = len(difference)
    if n < 2:
        return -1.0, 1.0
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * float(difference.std(ddof=1)) / n**0.5
    mean = float(difference.mean())
    low, high = clopper_pearson(min(max(float(difference.sum()), 0.0), n), n, confidence)
    return min(mean - half, low), max(mean + half, high)


def mcnemar(first: Bools, second: Bools) -> float:
    """Exact two-sided McNemar p-value for two paired boolean outcomes of shape (n,).

    Only the discordant pairs count: under the null each falls to either side with probability 1/2.
    """
    only_first = int(np.sum(first & ~second))
    discordant = only_first + int(np.sum(second & ~first))
    return 1.0 if discordant == 0 else float(binomtest(only_first, discordant, 0.5).pvalue)


def drop_p_value(before: Counts, after: Counts) -> float:
    """Exact one-sided p-value of the drop from `before` to `after`, counts of correct draws per image, int64 (n,).

    The null: what became of an image before and after could as well have come the other way round. Then each difference
    bears either sign with probability 1/2, and the p-value is the share of all signings in which the images lose as
    much in sum as they did (the sign-flip test; Fisher 1935). It holds for any n, and for one draw per image it is
    the one-sided exact McNemar test. Images without a difference have no say; 1 when none has one.
    """
    difference = np.asarray(before, np.int64) - np.asarray(after, np.int64)
    sizes = np.abs(difference[difference != 0])
    if not len(sizes):
        return 1.0
    unit = int(np.gcd.reduce(sizes))
    sizes, lost = sizes // unit, int(difference[difference > 0].sum()) // unit
    chance = np.zeros(int(sizes.sum()) + 1)  # chance[s]: that the images which lose do so by s in sum
    chance[0] = 1.0
    for size in sizes:
        chance[size:] = (chance[size:] + chance[:-size]) / 2
        chance[:size] /= 2
    return min(float(chance[lost:].sum()), 1.0)


def difference_interval(first: Estimate, second: Estimate, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the difference of two accuracies on different images: first - second.

    Square-and-add (Newcombe 1998, method 10; Zou and Donner 2008) on the intervals of `clopper_pearson`.
    """
    (low1, high1), (low2, high2) = (clopper_pearson(e.correct, e.n, confidence) for e in (first, second))
    difference = first.accuracy - second.accuracy
    down = np.hypot(first.accuracy - low1, high2 - second.accuracy)
    up = np.hypot(high1 - first.accuracy, second.accuracy - low2)
    return difference - float(down), difference + float(up)


def paired_score_interval(first: Floats, second: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the mean of first - second, both P(correct) in [0,1] of shape (n,) on the same images.

    Newcombe 1998 (Statistics in Medicine 17:2635), method 10, on who is right at least half the time; where P is not 0
    or 1, widened to Student's t on the differences.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    low, high = _newcombe(first >= 0.5, second >= 0.5, confidence)
    if len(first) > 1 and not np.isin([first, second], (0, 1)).all():
        difference = first - second
        half = float(t.ppf((1 + confidence) / 2, len(first) - 1) * difference.std(ddof=1)) / len(first) ** 0.5
        low, high = min(low, float(difference.mean()) - half), max(high, float(difference.mean()) + half)
    return max(low, -1.0), min(high, 1.0)


def _newcombe(first: Bools, second: Bools, confidence: float) -> tuple[float, float]:
    """The score intervals of both shares, joined with the correlation of the pairs (continuity-corrected)."""
    n = len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    one, other = int((first & ~second).sum()), int((~first & second).sum())
    own, ref = (both + one) / n, (both + other) / n
    (low1, high1), (low2, high2) = (_wilson(share, n, confidence) for share in (own, ref))
    product = float(both * neither - one * other)
    product = max(product - n / 2, 0.0) if product > 0 else product
    scale = ((both + one) * (other + neither) * (both + other) * (one + neither)) ** 0.5
    phi = product / float(scale) if scale else 0.0

    def joined(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    return own - ref - joined(own - low1, high2 - ref), own - ref + joined(high1 - own, ref - low2)


def _wilson(share: float, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share of n."""
    z = float(norm.ppf((1 + confidence) / 2))
    middle, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
