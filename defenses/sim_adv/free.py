"""Free-Adv: every batch is replayed m times, and one backward pass serves weights and images (Shafahi et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.recipes import Batch


@dataclass(frozen=True)
class FreeBuffers:
    """The perturbation of one batch (batch_size, c, h, w), from 0; it outlives the batch, as in Algorithm 1."""

    batch_size: int

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        return {"delta": torch.zeros(min(self.batch_size, len(x)), *x.shape[1:], device=x.device)}


def free_images(batch: Batch) -> Tensor:
    """x + delta in [0,1], as a leaf: the backward pass of the training step leaves the gradient in it."""
    return (batch.x + batch.memory["delta"][: len(batch.x)]).clamp(0, 1).detach().requires_grad_()


@dataclass(frozen=True)
class FreeStep:
    """Algorithm 1, lines 11-12: delta takes a step of eps, the whole radius, and is clipped to eps."""

    eps: float

    def __call__(self, batch: Batch) -> None:
        gradient = batch.adv.grad
        assert gradient is not None  # free_images returned a leaf
        delta = batch.memory["delta"][: len(batch.x)]
        delta.copy_((delta + self.eps * gradient.sign()).clamp(-self.eps, self.eps))
