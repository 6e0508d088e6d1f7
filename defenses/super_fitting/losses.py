"""Losses of the super-fitting paper, averaged over the batch. Logits (n, k), labels (n,) -> scalar."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from audit.margins import margin_loss

KAPPA = 150.0


def mucs(logits: Tensor, y: Tensor) -> Tensor:
    """Eq. 17, "minimize unrelated category scores": z_s - z_y, s being the largest other logit. Unbounded below."""
    return margin_loss(logits, y).mean()


def ce_mucs(logits: Tensor, y: Tensor) -> Tensor:
    """Eq. 18: CE + (z_s - z_y). Unbounded below: on small networks it diverges with the paper's learning rate."""
    return F.cross_entropy(logits, y) + mucs(logits, y)


def bounded_mucs(logits: Tensor, y: Tensor) -> Tensor:
    """CE + relu(kappa + z_s - z_y), kappa = 150. Ours, not the paper's: Eq. 18 that stops pushing at a gap of kappa.

    float32 softmax underflows at a gap of 103, so the state that it reaches is the paper's (Eq. 16).
    """
    return F.cross_entropy(logits, y) + F.relu(KAPPA + margin_loss(logits, y)).mean()
