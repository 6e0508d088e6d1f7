"""EOT: the attack sees the mean over k draws of a random defense: the first in a pass over the plain batch, the others
in one pass over a batch k - 1 times as large (in parts of `max_batch` rows), or in a pass for each where one draw serves
a whole batch.

Source: Athalye, Engstrom, Ilyas and Kwok 2018 (expectation over transformation); Athalye, Carlini and Wagner 2018,
Sec. 4.2, for random defenses. Three estimators go by this name in attack libraries, so one is named here:

- "logits": the mean of the logits.
- "probs": the logarithm of the mean softmax probability.
- "losses": forward the mean of the logits; backward the mean over draws of the named loss's gradient, whatever loss
  the attack itself uses. What the attack sends back decides, per image, only size and sign: the gradient at the logits
  gets the largest entry that the attack's had, and is turned round where the attack descends the loss. Not for attacks
  that ask for the gradients of single logits.

Where the draws come from. A module with an attribute `generators` (None, or one torch.Generator per row) is given
generators whose seeds are hashes of seed, image and draw: the adapted model is then a function of image and seed, up to
rounding, whatever else is in the batch; another image, and so each step of an attack, has other draws. All other
modules draw from the global generators, which the audit seeds around each pass.

The mean's class may differ from that of a single draw: an audit compares classes before and after adapters only where
nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from adapters import draws, structure
from audit.errors import BadInput
from audit.margins import margin_loss
from audit.registry import closest

ESTIMATORS = ("logits", "probs", "losses")
Loss = Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The margin over the gap from the largest to the third logit (Croce and Hein 2020); with two, the margin."""
    if logits.shape[1] < 3:
        return margin_loss(logits, y)
    top = logits.topk(3).values
    return margin_loss(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


LOSSES: dict[str, Loss] = {"ce": _cross_entropy, "margin": margin_loss, "dlr": _dlr}


class _MeanOfLosses(torch.autograd.Function):
    """Logits of draws (n, k, c) -> their mean (n, c); backward, the direction of the mean loss's gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, y: Tensor, loss: Loss) -> Tensor:
        ctx.save_for_backward(logits, y)
        ctx.loss = loss
        return logits.mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (upstream,) = grads
        logits, y = ctx.saved_tensors
        gradient = _loss_gradient(ctx.loss, logits, y) / logits.shape[1]
        total = gradient.sum(1)
        # Divide before multiplying: products of nearly saturated gradients would underflow.
        size, own_size = _peak(upstream.double()), _peak(total)
        sign = (upstream / _nonzero(size) * (total / _nonzero(own_size))).sum(1, keepdim=True).sign()
        answer = (sign * size)[:, None] * (gradient / _nonzero(own_size)[:, None])
        return answer.to(logits.dtype), None, None


def _loss_gradient(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:
    """The gradient of each draw's loss: float64 (n, k, c), for the range of its exponents.

    A saturated softmax rounds p_y to 1, which loses the label's entry p_y - 1. The losses depend on differences of
    logits alone, so that entry is minus the sum of the others.
    """
    labels = y.repeat_interleave(logits.shape[1])
    with torch.enable_grad():
        leaf = logits.detach().flatten(0, 1).double().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf, labels).sum(), leaf)
    others = gradient.scatter(1, labels[:, None], 0.0)
    return others.scatter(1, labels[:, None], -others.sum(1, keepdim=True)).view_as(logits)


def _peak(gradient: Tensor) -> Tensor:
    """The largest absolute entry of each row: (n, 1)."""
    return gradient.abs().amax(1, keepdim=True)


def _nonzero(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, torch.ones_like(size))


class Eot(nn.Module):
    """The mean of `k` draws of `model`: images (n, c, h, w) in [0,1] -> logits (n, classes).

    estimator: "logits", "probs" or "losses" (see the module's docstring). loss: "ce", "margin" or "dlr", for "losses" only.
    seed: of the draws of modules that take generators. max_batch: rows of one pass through the model, beyond the
    batch's own size.
    With "losses" the module has `takes_labels = True` and needs the labels y (n,) whenever a gradient is wanted, so it
    must be the outermost adapter.
    The first draw is a pass over the plain batch. Where it moves no generator and a second one gives the same bits,
    nothing is random: the first is the answer, value and gradient to the bit, whichever the estimator. That costs two
    passes instead of k.
    Raises BadInput for a k or max_batch that is not a positive whole number, for unknown names, for missing labels.
    """

    def __init__(
        self, model: nn.Module, k: float = 20, estimator: str = "logits", seed: float = 0, loss: str = "ce",
        max_batch: float = 1024,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, number in (("k", k), ("max_batch", max_batch)):
            if not (number >= 1 and number == int(number)):
                raise BadInput(f"{name} is {number}, expected a positive whole number such as 20")
        for kind, known, name in (("estimator", list(ESTIMATORS), estimator), ("loss", list(LOSSES), loss)):
            if name not in known:
                raise BadInput(f"unknown {kind} {name!r}: {closest(name, known)}")
        self.model = structure.mirror(model)
        self.k, self.seed, self.max_batch = int(k), int(seed), int(max_batch)
        self.estimator, self.loss, self.takes_labels = estimator, LOSSES[loss], estimator == "losses"
        self._layers = draws.noise_layers(self.model)
        self._shared = False  # does one draw serve a whole pass?

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if self.takes_labels and y is None and torch.is_grad_enabled() and x.requires_grad:
            raise BadInput("estimator 'losses' got no labels, expected forward(x, y); make eot the outermost adapter")
        first, random = self._first(x)
        if not random:
            return first
        logits = torch.cat([first[:, None], self._others(x)], 1) if self.k > 1 else first[:, None]
        if self.estimator == "probs":
            return logits.log_softmax(2).logsumexp(1) - math.log(self.k)
        if self.takes_labels and y is not None:
            mean: Tensor = _MeanOfLosses.apply(logits, y, self.loss)
            return mean
        return logits.mean(1)

    def _first(self, x: Tensor) -> tuple[Tensor, bool]:
        """The first draw (n, classes), and whether anything in it was random.

        A larger batch may round differently, so equal bits are only to be had from the plain batch. The second pass
        finds modules with random numbers of their own.
        """
        generators = draws.row_generators(x, self.seed, range(1)) if self._layers else None
        foreign = draws.foreign()
        with _Lent(self._layers, generators):
            before = draws.save(self._layers)
            logits: Tensor = self.model(x)
            if draws.moved(before) or draws.foreign() != foreign:
                return logits, True
            return logits, not torch.equal(self.model(x).detach(), logits.detach())

    def _others(self, x: Tensor) -> Tensor:
        """Draws 1 to k - 1: logits (n, k - 1, classes)."""
        if self._shared:
            return torch.stack([self.model(x) for _ in range(self.k - 1)], 1)
        rows = x.repeat_interleave(self.k - 1, 0).split(self.max_batch)
        generators = draws.row_generators(x, self.seed, range(1, self.k)) if self._layers else None
        parts, start = [], 0
        for chunk in rows:
            lent = generators[start : start + len(chunk)] if generators else None
            with _Lent(self._layers, lent):
                parts.append(self.model(chunk))
            start += len(chunk)
            if start == len(chunk) and not self._layers and _alike(parts[0].detach(), self.k - 1):
                self._shared = True
                return self._others(x)
        return torch.cat(parts).view(len(x), self.k - 1, -1)


def _alike(logits: Tensor, copies: int) -> bool:
    """Do all copies of an image, `copies` rows of logits (m, c) after another, have the same answer, up to rounding?

    Then the model draws once for the whole batch, as random resizing does (Xie et al. 2018), and a larger batch holds
    one draw many times. Rows with draws of their own hardly ever agree, and if they do, a pass for each is right, too.
    """
    rounding = 1e-5 * float(logits.abs().amax())
    several = [part for part in logits.split(copies) if len(part) > 1]
    return bool(several) and all(float((part - part[0]).abs().amax()) <= rounding for part in several)


class _Lent:
    """Lends row generators to noise layers for one pass."""

    def __init__(self, layers: list[nn.Module], generators: list[torch.Generator] | None) -> None:
        self._layers, self._generators = layers, generators

    def __enter__(self) -> None:
        self._set(self._generators)

    def __exit__(self, *_: object) -> None:
        self._set(None)

    def _set(self, generators: list[torch.Generator] | None) -> None:
        for layer in self._layers:
            layer.generators = generators  # type: ignore[assignment]
