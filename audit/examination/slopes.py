"""Is the gradient the slope of the function? Compared with finite differences along random smooth directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.examination.frozen import Frozen, cosines, median
from audit.margins import margin_loss

DIRECTIONS = 16
STEPS = (1e-3, 1e-1)  # of eps
IMAGES = 16
PATCH = 2  # pixels: directions this smooth cross many kinks of a ReLU network, which average out


def differences(ask: Frozen, x: Tensor, y: Tensor, eps: float) -> dict[str, Any]:
    """The slopes of the margin along 16 random directions at up to 16 images x (n, c, h, w) with labels y (n,).

    A central difference over each direction is compared with the gradient's own slope there, in float64 where the model
    runs in it. The points lie inside the box, a little away from the images, so that no clamp at 0 or 1 takes part.
    Keys: difference_cosine ({step relative to eps: median over images of the cosine between the 16 slopes by gradient
    and the 16 by differences}); difference_ratio ({the same: median of |slope by gradient| / |by differences|}; a
    gradient far above the true slope explodes, one far below vanishes). None where there is no gradient.
    """
    x, y = x[:IMAGES], y[:IMAGES]
    wide = ask.widened(x[:1]) if len(x) else None
    if wide is not None:
        ask, x = wide, x.double()
    edge = 2 * max(STEPS) * eps
    x = (x + edge * (2 * torch.rand_like(x) - 1)).clamp(min(edge, 0.5), max(1 - edge, 0.5))
    found: dict[str, Any] = {"difference_cosine": None, "difference_ratio": None, "slope_agreement": None}
    gradient = ask.gradient(x, y, margin_loss)[1] if len(x) else None
    if gradient is None or not bool(gradient.any()):
        return found
    directions = [_smooth(x) for _ in range(DIRECTIONS)]
    own = torch.stack([(gradient * d).flatten(1).sum(1) for d in directions], 1)
    true = {f"{step:g}": _slopes(ask, x, y, step * eps, directions) for step in STEPS}
    return {
        "difference_cosine": {step: median(cosines(own, slopes)) for step, slopes in true.items()},
        "difference_ratio": {step: median(_ratio(own, slopes)) for step, slopes in true.items()},
        "slope_agreement": median(cosines(*true.values())),
    }


def _slopes(ask: Frozen, x: Tensor, y: Tensor, t: float, directions: Sequence[Tensor]) -> Tensor:
    """The central difference quotient over t along each direction: (n, directions)."""
    rises = [ask.value(x + t * d, y, margin_loss) - ask.value(x - t * d, y, margin_loss) for d in directions]
    return torch.stack(rises, 1) / (2 * t)


def _ratio(own: Tensor, true: Tensor) -> Tensor:
    size: Tensor = own.norm(dim=1) / true.norm(dim=1).clamp_min(torch.finfo(true.dtype).tiny)
    return size.clamp_max(1e12)


def _smooth(x: Tensor) -> Tensor:
    """A random image without high frequencies for each of x (n, c, h, w), scaled to a largest entry of 1."""
    sides = [max(2, -(-side // PATCH)) for side in x.shape[2:]]
    coarse = torch.randn(*x.shape[:2], *sides, dtype=x.dtype, device=x.device)
    fine = F.interpolate(coarse, size=x.shape[2:], mode="bilinear", align_corners=True)
    return fine / fine.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
