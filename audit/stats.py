"""Exact intervals and paired tests, free of torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binomtest

from audit.types import Estimate

CONFIDENCE = 0.95

Bools = NDArray[np.bool_]


def clopper_pearson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided binomial interval (Clopper and Pearson 1934). n = 0 gives (0, 1).

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


def estimate(correct: int, n: int) -> Estimate:
    """`correct` of `n` as an accuracy with its 95 % interval."""
    return Estimate(correct, n, correct / n if n else 0.0, clopper_pearson(correct, n))


def mcnemar(first: Bools, second: Bools) -> float:
    """Exact two-sided McNemar p-value for two paired boolean outcomes of shape (n,).

    Only the discordant pairs count: under the null each falls to either side with probability 1/2.
    """
    only_first = int(np.sum(first & ~second))
    discordant = only_first + int(np.sum(second & ~first))
    return 1.0 if discordant == 0 else float(binomtest(only_first, discordant, 0.5).pvalue)
