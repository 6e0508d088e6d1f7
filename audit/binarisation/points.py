"""Images around a clean one: inside its ball, and at a given distance."""

from __future__ import annotations

import torch
from torch import Tensor

from audit.attacks.own.random_search import DRAWS
from audit.errors import Unsupported
from audit.geometry import distance, project
from audit.types import Norm, ThreatModel

LONGEST = 64.0  # no draw needs to be stretched further before pixels with room reach the distance
HALVINGS = 32


def check_norm(norm: str) -> None:
    """Raise Unsupported for a norm in whose ball nothing can be drawn."""
    if norm not in DRAWS["uniform"]:
        raise Unsupported(
            f"the binarisation test supports {', '.join(DRAWS['uniform'])}, got {norm}; choose another --norm"
        )


def within(x: Tensor, count: int, threat: ThreatModel, share: float) -> Tensor:
    """`count` images uniform in the ball of radius share * eps around x (c, h, w), cut to the box: (count, c, h, w)."""
    return _moved(x, _directions(x, count, threat.norm, "uniform"), share * threat.eps, threat)


def at_distance(x: Tensor, count: int, threat: ThreatModel, share: float, where: str) -> Tensor:
    """Random images at the distance share * eps from x (c, h, w), in the box: (count, c, h, w).

    where: "surface" stretches uniform draws until, after the box has cut them, they lie at that distance; "corners"
    takes extreme points of the ball (all signs in Linf). Nearer only where the box leaves no room in either direction.
    """
    radius = share * threat.eps
    wider = ThreatModel(threat.norm, min(radius, 1.0) if threat.norm == "Linf" else radius, threat.bounds)
    direction = _directions(x, count, threat.norm, "corners" if where == "corners" else "uniform")
    found = _stretched(x, direction, wider)
    short = distance(found, x.expand_as(found), threat.norm) < 0.999 * wider.eps
    found[short] = _stretched(x, -direction[short], wider)
    return found


def attempts(x: Tensor, count: int, threat: ThreatModel) -> Tensor:
    """What an attacker without any knowledge tries, half of it anywhere in the ball and half at its extreme points."""
    kinds = [("uniform", count - count // 2), ("corners", count // 2)]
    tried = [_moved(x, _directions(x, many, threat.norm, kind), threat.eps, threat) for kind, many in kinds]
    return torch.cat(tried)[torch.randperm(count).to(x.device)]


def _directions(x: Tensor, count: int, norm: Norm, kind: str) -> Tensor:
    return DRAWS[kind][norm](x.flatten().expand(count, -1).contiguous()).view(count, *x.shape)


def _moved(x: Tensor, direction: Tensor, scale: Tensor | float, threat: ThreatModel) -> Tensor:
    return (x + scale * direction).clamp(*threat.bounds)


def _stretched(x: Tensor, direction: Tensor, threat: ThreatModel) -> Tensor:
    """Each direction (m, c, h, w) followed just so far that the image in the box lies at eps."""
    low = torch.zeros(len(direction), 1, 1, 1, device=x.device)
    high = torch.full_like(low, LONGEST * threat.eps)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        near = distance(_moved(x, direction, middle, threat), x.expand_as(direction), threat.norm) < threat.eps
        low, high = torch.where(near.view_as(low), middle, low), torch.where(near.view_as(low), high, middle)
    return project(_moved(x, direction, high, threat), x.expand_as(direction), threat)
