"""A classifier that is not made of tensors: a scikit-learn estimator, a service, any Python callable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audit.errors import BadModel

TINY = 1e-12  # a probability of zero becomes a logit of about -28


class BlackBox(nn.Module):
    """Images (n, c, h, w) in [0,1] -> logits (n, k) made of what `answer` says of them; there is no gradient.

    answer: float32 images (n, c, h, w) as a numpy array -> scores (n, k), or whole numbers (n,) that name the class, of
    which there are `classes`. `answers` says which: "scores", or "decision" for names alone.
    """

    def __init__(self, answer: Callable[[NDArray[np.float32]], Any], *, classes: int | None = None) -> None:
        super().__init__()
        self.answer, self.classes = answer, classes
        self.answers = "scores" if classes is None else "decision"
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        said = np.asarray(self.answer(x.detach().float().cpu().numpy()))
        if self.classes is not None:
            return self._named(said, x)
        if said.ndim != 2 or len(said) != len(x) or said.dtype.kind not in "iuf":
            raise BadModel(
                f"the callable answered {said.dtype} of shape {said.shape} for {len(x)} images, expected scores "
                f"({len(x)}, classes); where it names classes only, give BlackBox(answer, classes=10)"
            )
        return torch.from_numpy(said.astype(np.float32)).to(x.device)

    def _named(self, said: NDArray[Any], x: Tensor) -> Tensor:
        names = said.reshape(-1)
        if names.shape != (len(x),) or names.dtype.kind not in "iu" or not self._known(names):
            raise BadModel(
                f"the callable answered {said.dtype} of shape {said.shape}, expected {len(x)} whole numbers from 0 to "
                f"{(self.classes or 1) - 1}"
            )
        one_hot = nn.functional.one_hot(torch.from_numpy(names.astype(np.int64)), int(self.classes or 1))
        return one_hot.float().to(x.device)

    def _known(self, names: NDArray[Any]) -> bool:
        return not len(names) or (int(names.min()) >= 0 and int(names.max()) < int(self.classes or 1))


def from_estimator(estimator: Any) -> BlackBox:
    """A fitted scikit-learn classifier on flattened images (n, c*h*w) in [0,1].

    Scores are log-probabilities, else the decision function; an estimator with neither names classes alone. Its classes
    must be 0 to k - 1, as labels are. Raises BadModel otherwise, or where it is not fitted.
    """
    classes = np.asarray(getattr(estimator, "classes_", ()))
    if not len(classes) or not np.array_equal(classes, np.arange(len(classes))):
        raise BadModel(
            f"{type(estimator).__name__} knows the classes {classes.tolist()[:5]}, expected 0, 1, ... as in the labels; fit it on "
            "whole numbers from 0"
        )
    if hasattr(estimator, "predict_proba"):
        return BlackBox(lambda x: np.log(np.maximum(estimator.predict_proba(x.reshape(len(x), -1)), TINY)))
    if hasattr(estimator, "decision_function"):
        return BlackBox(lambda x: _two_sided(estimator.decision_function(x.reshape(len(x), -1))))
    return BlackBox(lambda x: estimator.predict(x.reshape(len(x), -1)), classes=len(classes))


def _two_sided(scores: Any) -> Any:
    """Of two classes scikit-learn gives one column: how much the second is preferred."""
    return np.stack([-scores, scores], 1) if np.ndim(scores) == 1 else scores
