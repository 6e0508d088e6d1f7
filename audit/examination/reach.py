"""Does a larger ball break more? A short attack at several radii, whose curve must fall."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from audit.examination.frozen import Frozen
from audit.examination.losses import margin
from audit.geometry import distance, project
from audit.types import ThreatModel

MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)
ITERATIONS = 15
IMAGES = 32


def pixel_radius(threat: ThreatModel, x: Tensor) -> float:
    """How far each pixel may move when all move alike: eps under Linf, eps / sqrt(d) under L2, eps / d under L1 and L0."""
    d = x[0].numel()
    return threat.eps / {"Linf": 1.0, "L2": math.sqrt(d), "L1": float(d), "L0": float(d)}[threat.norm]


def eps_curve(ask: Frozen, x: Tensor, y: Tensor, threat: ThreatModel) -> dict[str, Any]:
    """Accuracy left on up to 32 images x (n, c, h, w) with labels y (n,) by 15 steps of PGD on the margin.

    Key eps_curve: [{"eps", "accuracy", "n"}] for a quarter of the radius, half, once, twice and four times it, n being
    the images, each attacked from the image itself, and last for the radius at which a grey image is in reach, where nobody can do better than guess; None in L1
    and L0, where this attack does not exist, and where there is no gradient.
    """
    x, y = x[:IMAGES], y[:IMAGES]
    if threat.norm not in ("Linf", "L2") or not len(x):
        return {"eps_curve": None}
    grey = float(distance(x, torch.full_like(x, 0.5), threat.norm).max())
    radii = sorted({*(m * threat.eps for m in MULTIPLES if m * threat.eps < grey), grey})
    left = [_left(ask, x, y, ThreatModel(threat.norm, eps)) for eps in radii]
    if any(count is None for count in left):
        return {"eps_curve": None}
    return {
        "eps_curve": [
            {"eps": e, "accuracy": c / len(x), "n": len(x)} for e, c in zip(radii, left, strict=True) if c is not None
        ]
    }


def _left(ask: Frozen, x: Tensor, y: Tensor, threat: ThreatModel) -> int | None:
    """How many images stand after the attack; None without a gradient."""
    images, size = x.clone(), 2.5 * threat.eps / ITERATIONS
    for number in range(ITERATIONS):
        value, gradient = ask.gradient(images, y, margin)
        if gradient is None or (number == 0 and not bool(gradient.any())):
            return None
        alive = value <= 0
        x, y, images, gradient = x[alive], y[alive], images[alive], gradient[alive]
        if not len(x):
            return 0
        images = project(images + size * _direction(gradient, threat), x, threat)
    return int((ask.value(images, y, margin) <= 0).sum())


def _direction(gradient: Tensor, threat: ThreatModel) -> Tensor:
    gradient = gradient.nan_to_num(0.0)
    if threat.norm == "Linf":
        return gradient.sign()
    unit: Tensor = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return unit
