"""Has each loss a gradient, at the images and in the ball around them, and is it the gradient that exact numbers give?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from audit.examination.frozen import Frozen, Loss, cosines, median, somewhere
from audit.examination.losses import cross_entropy, dlr
from audit.examination.structure import gradient_at
from audit.margins import margin_loss

SATURATED = 1e-7


def gradients(ask: Frozen, x: Tensor, y: Tensor, eps: float) -> dict[str, Any]:
    """The gradients of five losses at images x (n, c, h, w), all classified rightly, with labels y (n,).

    eps: radius in each pixel of the random point in the ball.
    Keys: loss_gradients ({loss: shares}; losses ce, ce-rescaled (logits over their median gap), ce-float64 (None where
    the model does not run in float64), margin, dlr; shares of images whose gradient is exactly zero at the image (zero)
    and at the random point (zero_in_ball), of images where it is NaN or infinite (bad), and the median share of pixels
    where it is exactly zero (zero_pixels): sign(0) moves nothing); softmax_saturated (share of images whose largest
    probability is above 1 - 1e-7); ce_cosine_float64, ce_cosine_rescaled (median cosine of the float32 CE gradient
    with the other two, a zero gradient counting as 0; None where nothing was measured).
    """
    if not len(x):
        return {
            "loss_gradients": None,
            "softmax_saturated": None,
            "ce_cosine_float64": None,
            "ce_cosine_rescaled": None,
        }
    here, logits = _every(ask, x, y)
    there, _ = _every(ask, somewhere(x, eps), y)
    top = logits.double().softmax(1).scatter(1, logits.argmax(1, keepdim=True), 0.0).sum(1)
    ce, wide = here["ce"], here["ce-float64"]
    return {
        "loss_gradients": {name: None if g is None else _shares(g, there[name]) for name, g in here.items()},
        "softmax_saturated": float((top < SATURATED).float().mean()),
        "ce_cosine_float64": None if ce is None or wide is None else median(cosines(ce, wide)),
        "ce_cosine_rescaled": None if ce is None else median(cosines(ce, _some(here["ce-rescaled"], ce))),
    }


def _every(ask: Frozen, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor | None], Tensor]:
    """The gradient of each loss, None where there is none, and the logits (n, k)."""
    images = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = ask(images).float()
        top = logits.detach().topk(2).values
        gap = max(float((top[:, 0] - top[:, 1]).median()), 1e-6)
        losses: dict[str, Loss] = {
            "ce": cross_entropy, "ce-rescaled": lambda z, labels: cross_entropy(z / gap, labels),
            "margin": margin_loss, "dlr": dlr,
        }  # fmt: skip
        found = {name: gradient_at(loss(logits, y), images) for name, loss in losses.items()}
    wide = ask.widened(x[:1])
    found["ce-float64"] = None if wide is None else wide.gradient(x.double(), y, cross_entropy)[1]
    return found, logits.detach()


def _shares(here: Tensor, there: Tensor | None) -> dict[str, float | None]:
    flat = here.flatten(1)
    return {
        "zero": _share((flat == 0).all(1)),
        "zero_in_ball": _share((there.flatten(1) == 0).all(1)) if there is not None else None,
        "bad": _share(~torch.isfinite(flat).all(1)),
        "zero_pixels": median((flat == 0).double().mean(1)),
    }


def _some(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())
