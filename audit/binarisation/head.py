"""The two-class layer: a logistic regression on features, moved and scaled.

scikit-learn's unpenalised logistic regression, which the published test uses, is scipy's L-BFGS-B on this objective;
so the solver is asked directly and no package is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
ITERATIONS = 2000


@dataclass(frozen=True)
class Head:
    """score = features @ weight + bias; the class is 1 ("far") above zero. The logits are -score and +score.

    weight: float64 (d,); accuracy: the share of training rows on the right side.
    """

    weight: Floats
    bias: float
    accuracy: float = 1.0

    def scores(self, features: Floats) -> Floats:
        """float64 (m,) for features (m, d)."""
        result: Floats = features.astype(np.float64) @ self.weight + self.bias
        return result


def fit(features: Floats, far: Bools) -> Head:
    """Logistic regression of `far` (m,) on features (m, d), without penalty.

    Features are centred and divided by their mean length first: the solution stays what it is, the solver gets there.
    """
    rows = features.astype(np.float64)
    centre = rows.mean(0)
    size = max(float(np.sqrt(np.square(rows - centre).sum(1).mean())), np.finfo(np.float64).tiny)
    scaled, sign = (rows - centre) / size, np.where(far, 1.0, -1.0)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        margin = sign * (scaled @ parameters[:-1] + parameters[-1])
        slope = -sign * expit(-margin) / len(sign)
        return float(np.logaddexp(0, -margin).mean()), np.append(scaled.T @ slope, slope.sum())

    limits = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "gtol": 1e-10, "ftol": 1e-12}
    found = minimize(loss, np.zeros(rows.shape[1] + 1), jac=True, method="L-BFGS-B", options=limits).x
    weight = found[:-1] / size
    head = Head(weight, float(found[-1] - centre @ weight))
    return Head(head.weight, head.bias, float(((head.scores(rows) > 0) == far).mean()))


def closer(head: Head, far_score: float, closeness: float) -> Head:
    """The head with its threshold moved by the fraction `closeness` of the way to a far point of that score.

    The nearer to 1, the fewer images are adversarial; the far point stays one.
    """
    return Head(head.weight, head.bias - closeness * far_score, head.accuracy)


def scaled_to(head: Head, scores: Floats, spread: float) -> Head:
    """The head scaled so that its logits on the training rows, whose scores are (m,), span `spread`."""
    factor = spread / max(2 * float(np.abs(scores).max()), np.finfo(np.float64).tiny)
    return Head(head.weight * factor, head.bias * factor, head.accuracy)
