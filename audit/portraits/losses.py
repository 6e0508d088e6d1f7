"""What two losses see: cross-entropy and margin of each image, their gradients, and both over a plane around an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.examination.frozen import Frozen
from audit.examination.losses import cross_entropy
from audit.margins import margin_loss
from audit.portraits.subject import BATCH
from audit.types import ThreatModel

SIDE = 15  # points of the surface along each direction
REACH = 1.0  # of eps, to either side


def both_losses(logits: Tensor, y: Tensor) -> NDArray[np.float64]:
    """Cross-entropy in float32, as an attack would see it, and the right class's logit less the best other: (n, 2)."""
    found = torch.stack([cross_entropy(logits.float(), y).double(), -margin_loss(logits.double(), y)], 1)
    return np.asarray(found.detach().cpu().numpy(), np.float64)


def gradient_norms(ask: Frozen, x: Tensor, y: Tensor) -> NDArray[np.float64] | None:
    """2-norms of the gradients of cross-entropy and margin at each image: (n, 2); None where there is no gradient."""
    columns = []
    for loss in (cross_entropy, margin_loss):
        parts = [ask.gradient(a, b, loss)[1] for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True)]
        if any(part is None for part in parts):
            return None
        columns.append(torch.cat([part.double().flatten(1).norm(dim=1) for part in parts if part is not None]))
    return np.asarray(torch.stack(columns, 1).cpu().numpy(), np.float64)


def surface(ask: Frozen, guide: Frozen, x: Tensor, y: Tensor, threat: ThreatModel) -> dict[str, Any]:
    """Both losses, each a mean over images x (m, c, h, w), on a plane around them: surface float32 (2, 15, 15), of CE and of
    margin, rows along the first direction from -eps to eps, columns along a random one; along: what the first one is.

    guide: the model whose margin gradient gives the first direction; without one both are random. All points lie in [0,1].
    surface_distance: float32 (15, 15), how far a point is moved before it is kept in [0,1], in eps, the most of the images:
    the corners of the plane lie beyond the ball, at 2 eps under Linf. Absent in L0, whose distance no such step has.
    """
    gradient = guide.gradient(x, y, margin_loss)[1]
    known = gradient is not None and bool(torch.isfinite(gradient).all()) and bool(gradient.any())
    first = scaled(gradient if known and gradient is not None else torch.randn_like(x), threat)
    second = scaled(torch.randn_like(x), threat)
    ends = torch.linspace(-REACH, REACH, SIDE, device=x.device)
    values = torch.zeros(len(x), 2, SIDE, SIDE, dtype=torch.float64)
    far = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    for i in range(len(x)):
        moves = (ends.view(-1, 1, 1, 1, 1) * first[i] + ends.view(-1, 1, 1, 1) * second[i]).flatten(0, 1)
        far = torch.maximum(far, _length(moves, threat).reshape(SIDE, SIDE).double().cpu() / threat.eps)
        points = (x[i] + moves).clamp(0, 1)
        with torch.no_grad():
            logits = torch.cat([ask(part) for part in points.split(BATCH)])
        found = both_losses(logits, y[i].expand(len(points)))
        values[i] = torch.from_numpy(found).T.reshape(2, SIDE, SIDE)
    measured: dict[str, Any] = {
        "surface": values.mean(0).numpy().astype(np.float32),
        "along": "gradient" if known else "random",
    }
    return measured if threat.norm == "L0" else {**measured, "surface_distance": far.numpy().astype(np.float32)}


def _length(moves: Tensor, threat: ThreatModel) -> Tensor:
    """The length (n,) of moves (n, c, h, w) in the norm of the ball; in L0, where it means nothing here, their 1-norm."""
    order = {"Linf": float("inf"), "L2": 2.0}.get(threat.norm, 1.0)
    found: Tensor = moves.flatten(1).norm(p=order, dim=1)
    return found


def scaled(direction: Tensor, threat: ThreatModel) -> Tensor:
    """The direction (n, c, h, w) with length eps: signs under Linf, else divided by its 2-norm or 1-norm."""
    if threat.norm == "Linf":
        return threat.eps * direction.sign()
    order = 2 if threat.norm == "L2" else 1
    size = direction.flatten(1).norm(p=order, dim=1).clamp_min(1e-30).view(-1, 1, 1, 1)
    scaled: Tensor = threat.eps * direction / size
    return scaled
