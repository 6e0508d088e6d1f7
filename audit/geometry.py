"""Distances, balls and boxes of batches of images. The one place where "inside the ball" is defined."""

from __future__ import annotations

import torch
from torch import Tensor

from audit.types import Norm, ThreatModel

SLACK = 1e-6  # float32 rounding of x + eps


def distance(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """Distance of each row of a and b (n, ...) in `norm`: float (n,)."""
    delta = (a - b).flatten(1)
    if norm == "Linf":
        return delta.abs().amax(1)
    if norm == "L2":
        length: Tensor = torch.linalg.vector_norm(delta, dim=1)
        return length
    return delta.abs().sum(1) if norm == "L1" else (delta != 0).sum(1).float()


def project(candidate: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """The nearest point of the ball around x and of the box (Linf), or a scaled-back one (L2, L1); else unchanged.

    The Oracle judges what this returns, so an attack that oversteps by rounding loses nothing and one that leaves
    the ball gains nothing. What lies inside stays as it is, bit for bit. L0 candidates outside fall back to x.
    """
    low, high = threat.bounds
    if threat.norm == "Linf":
        nearest = torch.min(torch.max(candidate, x - threat.eps), x + threat.eps)
        return nearest.clamp(low, high)
    clipped = candidate.clamp(low, high)
    radius = distance(clipped, x, threat.norm).view(-1, *[1] * (x.ndim - 1))
    back = x if threat.norm == "L0" else (x + (clipped - x) * (threat.eps / radius.clamp_min(1e-12))).clamp(low, high)
    return torch.where(radius <= threat.eps, clipped, back)


def contains(candidate: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """Which rows of candidate (n, ...) lie in the ball around x and in the box, up to rounding: bool (n,)."""
    low, high = threat.bounds
    flat = candidate.flatten(1)
    boxed = (flat.amin(1) >= low - SLACK) & (flat.amax(1) <= high + SLACK)
    return (distance(candidate, x, threat.norm) <= threat.eps * (1 + SLACK) + SLACK) & boxed
