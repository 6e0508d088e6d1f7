"""Run the classifier in float64, so that exp(-150) is a number and not zero.

Float32 loses the cross-entropy gradient once the logit gap passes about 103 (log of the smallest denormal);
float64 keeps it to about 744. The gradient that comes back may be as small as 1e-300, far below float32, so
each image's gradient is divided by its largest entry before it is cast. Attacks that step along the sign, or
along the normalised gradient, do not see the difference.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class _Widen(torch.autograd.Function):
    """float32 -> float64 forward; backward, each row scaled to unit largest entry, then cast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        return x.double()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        peak = grad.abs().flatten(1).amax(1).clamp_min(torch.finfo(torch.float64).tiny)
        narrow: Tensor = (grad / peak.view(-1, *[1] * (grad.ndim - 1))).to(ctx.dtype)
        return narrow


class Float64(nn.Module):
    """A float64 copy of `model`: images (n, c, h, w) of any float type in, float64 logits (n, k) out.

    Gradients that reach the images are rescaled per image (see the module's docstring).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(_Widen.apply(x))
        return logits
