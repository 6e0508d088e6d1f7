"""The losses under which a gradient is examined: one number per image, larger where the attack does better."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from audit.margins import margin_loss


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """CE of logits (n, k) and labels y (n,): (n,)."""
    return F.cross_entropy(logits, y, reduction="none")


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The margin over the gap from the largest to the third logit (Croce and Hein 2020); with two, the margin."""
    if logits.shape[1] < 3:
        return margin_loss(logits, y)
    top = logits.topk(3).values
    return margin_loss(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)
