"""How far does the loss, and its gradient, hold around an image? Far less than the ball, and a gradient leads nowhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from audit.examination.frozen import Frozen, cosines, median, somewhere
from audit.margins import margin_loss

NOISES = 16
IMAGES = 32
NEAR = (0.01, 0.1)  # of eps


def stability(ask: Frozen, x: Tensor, y: Tensor, eps: float) -> dict[str, Any]:
    """At up to 32 images x (n, c, h, w) with labels y (n,), all for the margin; eps: the radius in each pixel.

    Keys: loss_change (Pintor et al. 2022, indicator 2: mean over images and 16 uniform noises of width eps, that is of
    up to eps/2, of |L(x) - L(x+u)| / |L(x)|, each at most 1); linearity_gap ({distance relative to eps: median of
    |L(x+d) - L(x) - d.g| / (|L(x+d) - L(x)| + |d.g|) for d along sign(g)}: 0 for a linear loss, at most 1);
    gradient_cosine ({distance: median cosine of the gradients at x and at a random point that far in each pixel}).
    The last two are None where there is no gradient.
    """
    x, y = x[:IMAGES], y[:IMAGES]
    empty = {"loss_change": None, "linearity_gap": None, "gradient_cosine": None}
    if not len(x):
        return empty
    value, gradient = ask.gradient(x, y, margin_loss)
    changes = [(value - ask.value(somewhere(x, eps / 2), y, margin_loss)).abs() for _ in range(NOISES)]
    relative = torch.stack(changes) / torch.where(value == 0, torch.ones_like(value), value.abs())
    found = {**empty, "loss_change": float(relative.clamp_max(1).mean())}
    if gradient is None or not bool(gradient.any()):
        return found
    gaps = {f"{r:g}": median(_gap(ask, x, y, r * eps, value, gradient)) for r in (*NEAR, 1.0)}
    near = {r: ask.gradient(somewhere(x, r * eps), y, margin_loss)[1] for r in NEAR}
    turned = {f"{r:g}": median(cosines(gradient, g)) for r, g in near.items() if g is not None}
    return {**found, "linearity_gap": gaps, "gradient_cosine": turned}


def _gap(ask: Frozen, x: Tensor, y: Tensor, radius: float, value: Tensor, gradient: Tensor) -> Tensor:
    moved = (x + radius * gradient.sign()).clamp(0, 1)
    rise = (ask.value(moved, y, margin_loss) - value).double()
    foretold = ((moved - x) * gradient).flatten(1).sum(1).double()
    return (rise - foretold).abs() / (rise.abs() + foretold.abs()).clamp_min(torch.finfo(torch.float64).tiny)
