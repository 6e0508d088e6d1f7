"""A model whose random numbers are the same in every pass, so that two answers differ by their inputs alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from audit.examination.borrowed import NO_COPY
from audit.examination.structure import gradient_at
from audit.rng import Stream

Loss = Callable[[Tensor, Tensor], Tensor]


class Frozen:
    """`model` with the global generators reseeded for each pass; a deterministic model is unchanged by that."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model, self._seed = model, seed

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (n, k) of images x (n, c, h, w)."""
        with Stream(self._seed):
            logits: Tensor = self.model(x)
        return logits

    @torch.no_grad()
    def value(self, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
        """The loss of each image: (n,)."""
        return loss(self(x), y)

    def gradient(self, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """The loss of each image (n,) and its gradient (n, c, h, w), None where there is none."""
        images = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            values = loss(self(images), y)
        return values.detach(), gradient_at(values, images)

    def widened(self, x: Tensor) -> Frozen | None:
        """The same in float64; None where the model has no copy in float64, or does not run there on images x."""
        try:
            wide = Frozen(copy.deepcopy(self.model).double(), self._seed)
            with torch.no_grad():
                return wide if wide(x.double()).dtype == torch.float64 else None
        except torch.OutOfMemoryError:
            raise
        except NO_COPY:  # RuntimeError among them: a float32 constant in the model's own code
            return None


def somewhere(x: Tensor, radius: float, bounds: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """Images x (n, c, h, w) moved by uniform noise of up to `radius` in each pixel, inside `bounds`."""
    return (x + radius * (2 * torch.rand_like(x) - 1)).clamp(*bounds)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of each row of a and b (n, ...), in float64; 0 where one of them is zero or not finite: (n,)."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    bad = ~(torch.isfinite(a).all(1) & torch.isfinite(b).all(1))
    a, b = (side / side.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny) for side in (a, b))
    return torch.nn.functional.cosine_similarity(a, b, dim=1).masked_fill(bad, 0.0)


def median(values: Tensor) -> float | None:
    """The median of (n,), None of nothing."""
    return float(values.median()) if len(values) else None
