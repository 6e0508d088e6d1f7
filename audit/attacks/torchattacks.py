"""FGSM, BIM and PGD from torchattacks 3.5.1: the attacks that most papers report, under cross-entropy.

torchattacks averages the loss over the batch before it differentiates, so gradients below about 1e-38 times the
batch size vanish. That is part of what a reported "PGD" number means, and is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torchattacks
from torch import Tensor, nn

from audit.attacks.common import attack
from audit.types import ThreatModel

LIBRARY = "torchattacks"


def _per_step(params: Mapping[str, Any]) -> tuple[int, int]:
    return int(params["steps"]), int(params["steps"])


@attack(
    "fgsm", library=LIBRARY, norms=("Linf",), needs="gradient", cost=lambda _: (1, 1),
    reference="Goodfellow et al. 2015, arXiv 1412.6572",
)  # fmt: skip
def fgsm(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """One step of size eps along the sign of the cross-entropy gradient, without random start."""
    result: Tensor = torchattacks.FGSM(model, eps=threat.eps)(x, y)
    return result


@attack(
    "bim", library=LIBRARY, norms=("Linf",), needs="gradient", cost=_per_step,
    reference="Kurakin et al. 2017, arXiv 1607.02533",
)  # fmt: skip
def bim(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    rel_stepsize: float = 0.1,
) -> Tensor:
    """Iterated FGSM from the clean image; each step is `rel_stepsize` times eps."""
    result: Tensor = torchattacks.BIM(model, eps=threat.eps, alpha=rel_stepsize * threat.eps, steps=steps)(x, y)
    return result


@attack(
    "pgd", library=LIBRARY, norms=("Linf",), needs="gradient", cost=_per_step,
    reference="Madry et al. 2018, arXiv 1706.06083",
)  # fmt: skip
def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    rel_stepsize: float = 0.1,
) -> Tensor:
    """BIM from a uniformly random point of the ball, one restart."""
    result: Tensor = torchattacks.PGD(model, eps=threat.eps, alpha=rel_stepsize * threat.eps, steps=steps)(x, y)
    return result
