"""One step to a corner of the ball: the sign of the margin's gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audit.attacks.common import attack
from audit.types import ThreatModel


@attack("corner", library="audit-plugin", norms=("Linf",), needs="gradient", reference="none", cost=lambda _: (1, 1))
def corner(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Images x (n, c, h, w) in [0,1] moved by eps in each pixel."""
    x = x.requires_grad_()
    logits = model(x)
    own = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    (gradient,) = torch.autograd.grad((other - own).sum(), x)
    return (x + threat.eps * gradient.sign()).clamp(0, 1)
