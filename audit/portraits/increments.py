"""How much further each step of an attack moves the activations, and each step of blind noise: Zhao et al., Fig. 10.

The paper's figure shows networks under PGD-10; this attack follows the margin, which has a gradient where cross-entropy has lost it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.examination.frozen import Frozen
from audit.geometry import project
from audit.margins import margin_loss
from audit.portraits.losses import scaled
from audit.types import ThreatModel

STEPS, SIZE = 10, 0.25  # of eps: as PGD-10 with steps of 2.5 eps / 10


def increments(
    ask: Frozen, maps: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, threat: ThreatModel
) -> NDArray[np.float64] | None:
    """Mean |change| of `maps` (images -> activations) at each of 10 steps, of the attack and of random signs: (2, 10).

    ask: what the attack sees; x: images (n, c, h, w) with labels y (n,). None where there is no gradient, and in L0, which
    has no such steps.
    """
    gradient = None if threat.norm == "L0" else ask.gradient(x, y, margin_loss)[1]
    if gradient is None:
        return None

    def up(images: Tensor) -> Tensor:
        found = ask.gradient(images, y, margin_loss)[1]
        return torch.zeros_like(images) if found is None else found.nan_to_num(0.0)

    rows = [_walk(step, maps, x, threat) for step in (up, torch.randn_like)]
    return np.asarray(rows, np.float64)


@torch.no_grad()
def _walk(step: Callable[[Tensor], Tensor], maps: Any, x: Tensor, threat: ThreatModel) -> list[float]:
    images, before, found = x, maps(x), list[float]()
    for _ in range(STEPS):
        images = project(images + SIZE * scaled(step(images), threat), x, threat)
        after = maps(images)
        found.append(float((after.double() - before.double()).abs().mean()))
        before = after
    return found
