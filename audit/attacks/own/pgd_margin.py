"""PGD on the margin of Carlini and Wagner: what papers call "CW" when they mean a ball and a number of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from audit.attacks.common import attack
from audit.attacks.own.common import LIBRARY, pgd
from audit.attacks.rounds import best_of
from audit.margins import margin_loss
from audit.types import ThreatModel


def _cost(params: Mapping[str, Any]) -> tuple[int, int]:
    runs, steps = int(params["restarts"]), int(params["steps"])
    return runs * steps + (runs if runs > 1 else 0), runs * steps


@attack(
    "pgd-margin", library=LIBRARY, norms=("Linf", "L2"), needs="gradient", cost=_cost,
    reference="Madry et al. 2018, arXiv 1706.06083, Sec. 5; loss of Carlini and Wagner 2017, arXiv 1608.04644",
)  # fmt: skip
def pgd_margin(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int,
    steps: int = 20, rel_stepsize: float = 0.1, restarts: int = 1, kappa: float = 0.0,
) -> Tensor:  # fmt: skip
    """PGD from a random point, up the margin until it is `kappa`: -max(z_y - max of the others + kappa, 0).

    kappa 0 is the paper's CW, which stands still once the image is misclassified; 50 is its CW+, and what the authors'
    public code uses. restarts as in `pgd`. torchattacks' PGD has no place for a loss, so the loop is ours.
    `apgd-margin` has the same loss, without kappa, and a step size that adapts: the stronger attack of the two.
    """

    def hinge(logits: Tensor, labels: Tensor) -> Tensor:
        margin = margin_loss(logits, labels)
        return torch.where(margin < kappa, margin, margin.detach())

    return best_of(
        "pgd-margin", lambda _: pgd(model, x, y, threat, hinge, steps, rel_stepsize), model, x, y, restarts=restarts
    )
