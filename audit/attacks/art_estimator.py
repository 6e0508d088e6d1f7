"""How the Adversarial Robustness Toolbox (ART 1.20.1) sees a model: numpy in, numpy out, and nothing else changed.

ART's own `PyTorchClassifier` is not used. It switches the modes of the model's parts, writes to the gradients of the
parameters, takes an `nn.Sequential` apart and so runs past what is wrapped around it, hands float64 to the model
(HopSkipJump and Boundary compute in float64 under numpy 2), and differentiates once for every label of the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from art.attacks import EvasionAttack
from art.estimators.classification.classifier import ClassGradientsMixin, ClassifierMixin
from art.estimators.estimator import BaseEstimator
from numpy.typing import NDArray
from torch import Tensor, nn

from audit.geometry import distance
from audit.types import Norm

BATCH = 256
NEGLIGIBLE = 1e-6  # nearer than float32 can tell: nothing is left to find
HALVINGS = 10
SECURE = 1e-3
Array = NDArray[Any]
logging.getLogger("art").setLevel(logging.ERROR)  # it reports success rates and failed draws, which are ours to judge


class Spent(Exception):
    """The queries of an attack are used up, or its image is broken at distance zero."""


class Estimator(ClassGradientsMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """`model` for images like x (n, c, h, w). bounds: where ART may search; the model sees float32 in [0,1] only."""

    def __init__(self, model: nn.Module, x: Tensor, *, bounds: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(model=model, clip_values=bounds)
        self.device, self._input_shape, self.channels_first = x.device, tuple(x.shape[1:]), True
        with torch.no_grad():
            self.nb_classes = int(model(x[:1]).shape[1])

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._input_shape

    def fit(self, x: Array, y: Array, **kwargs: Any) -> None:
        raise NotImplementedError("an attack has no business training the model")

    def tensor(self, x: Array) -> Tensor:
        return torch.from_numpy(np.asarray(x, dtype=np.float32)).to(self.device).clamp(0, 1)

    def predict(self, x: Array, **_: Any) -> Array:
        """Logits float32 (n, k) of images x (n, c, h, w)."""
        with torch.no_grad():
            answer: Array = torch.cat([self.model(part).float() for part in self.tensor(x).split(BATCH)]).cpu().numpy()
        return answer

    def class_gradient(self, x: Array, label: Array | None = None, **_: Any) -> Array:
        """Gradient of the logit `label` (n,) of each image x (n, c, h, w): float32 (n, 1, c, h, w)."""
        leaf, index = self.tensor(x).requires_grad_(), torch.as_tensor(label, device=self.device)
        with torch.enable_grad():
            chosen = self.model(leaf).gather(1, index[:, None]).sum()
        gradient: Array = torch.autograd.grad(chosen, leaf)[0].cpu().numpy()[:, None]
        return gradient


class Masked(Estimator):
    """Images whose second half of channels says which values may move (1) or are fixed (0).

    The mask travels with the image because ART queries subsets of a batch and does not say which.
    """

    def predict(self, x: Array, **_: Any) -> Array:
        return super().predict(np.split(x, 2, axis=1)[0])

    def class_gradient(self, x: Array, label: Array | None = None, **_: Any) -> Array:
        image, mask = np.split(x, 2, axis=1)
        gradient = super().class_gradient(image, label) * mask.round()[:, None]
        return np.concatenate([gradient, np.zeros_like(gradient)], axis=2)


class Watched(Estimator):
    """`model` for one image x (1, c, h, w) of label y (1,): it keeps the nearest adversarial query in `norm`.

    What ART returns is not always the best that it met: its HopSkipJump ends with a step away from the boundary.
    queries: how many images may be asked about; then Spent. decision: answers are 0 or 1 instead of logits.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, norm: Norm, *, queries: int, decision: bool,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:  # fmt: skip
        super().__init__(model, x, bounds=bounds)
        self._x, self._y, self._norm, self._left, self._decision = x, y, norm, queries, decision
        self.nearest, self.reach = x.clone(), float("inf")

    def predict(self, x: Array, **_: Any) -> Array:
        """Logits or decisions float32 (n, k) of images x (n, c, h, w). Raises Spent."""
        return torch.cat([self._ask(part) for part in self.tensor(x).split(BATCH)]).cpu().numpy()

    @torch.no_grad()
    def _ask(self, rows: Tensor) -> Tensor:
        short = len(rows) > self._left
        rows = rows[: self._left]
        self._left -= len(rows)
        if len(rows):
            logits = self.model(rows).float()
            self._keep(rows, logits.argmax(1) != self._y)
        if short or self.reach < NEGLIGIBLE:
            raise Spent
        return nn.functional.one_hot(logits.argmax(1), self.nb_classes).float() if self._decision else logits

    def _keep(self, rows: Tensor, wrong: Tensor) -> None:
        away = distance(rows, self._x.expand_as(rows), self._norm).masked_fill(~wrong, float("inf"))
        best = int(away.argmin())
        if float(away[best]) < self.reach:
            self.nearest, self.reach = rows[best : best + 1].clone(), float(away[best])


def run(attack: EvasionAttack, x: Tensor, y: Tensor, **more: Any) -> Tensor:
    """What ART's `attack` makes of images x with labels y. Divisions by zero make NaN, which it checks for."""
    labels = nn.functional.one_hot(y, attack.estimator.nb_classes).float()  # two classes as well need two columns
    with np.errstate(all="ignore"):
        found = attack.generate(x.cpu().numpy(), labels.cpu().numpy(), **more)
    return torch.from_numpy(np.asarray(found, dtype=np.float32)).to(x.device)


def each(x: Tensor, y: Tensor, search: Callable[[Tensor, Tensor], Watched]) -> Tensor:
    """The nearest adversarial image that `search` met for each image x (n, c, h, w) by itself, or the image."""
    return torch.cat([search(x[i : i + 1], y[i : i + 1]).nearest for i in range(len(x))])


def secure(model: nn.Module, x: Tensor, near: Tensor, y: Tensor) -> Tensor:
    """Images `near` (n, c, h, w), each moved from x by a thousandth of its distance where it stays adversarial.

    So close to the boundary the logits differ by rounding alone, and in a batch of another size the same image is
    classified otherwise: one of eight images of a network with large logits.
    """
    beyond = (x + (1 + SECURE) * (near - x)).clamp(0, 1)
    return torch.where(fools(Estimator(model, x), beyond, y).view(-1, 1, 1, 1), beyond, near)


def fools(estimator: Estimator, images: Tensor, y: Tensor) -> Tensor:
    """Which images (n, c, h, w) are not of their class y (n,): bool (n,)."""
    return torch.from_numpy(estimator.predict(images.cpu().numpy()).argmax(1)).to(y.device) != y


def pull_back(estimator: Estimator, x: Tensor, found: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """The nearest adversarial image between x and `found` (n, c, h, w) by bisection; x where `found` is none.

    The way leads along the line (L2), or through the balls around x (Linf).
    """
    span = distance(found, x, "Linf").view(-1, 1, 1, 1)

    def at(t: Tensor) -> Tensor:
        move = (found - x).clamp(-t * span, t * span) if norm == "Linf" else t * (found - x)
        return (x + move).clamp(0, 1)

    best = torch.where(fools(estimator, found, y).view(-1, 1, 1, 1), found, x)
    low, high = torch.zeros_like(span), torch.ones_like(span)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        hit = fools(estimator, at(middle), y).view(-1, 1, 1, 1)
        best = torch.where(hit, at(middle), best)
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    return best
