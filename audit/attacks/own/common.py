"""What our own attacks share: losses by name, gradients without NaN, steps and projected gradient ascent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.attacks.rounds import per_row
from audit.geometry import project
from audit.margins import margin_loss
from audit.types import Norm, ThreatModel

LIBRARY = "ours"
Loss = Callable[[Tensor, Tensor], Tensor]
TINY = torch.finfo(torch.float32).tiny


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


LOSSES: Mapping[str, Loss] = {"ce": _cross_entropy, "margin": margin_loss}


def ascent(model: nn.Module, z: Tensor, objective: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Logits (n, k) of images z, detached, and the gradient of objective(logits) (n,) with respect to each image.

    Where the gradient is NaN or infinite it is 0: such a pixel stays.
    """
    z = z.detach().requires_grad_()
    logits = model(z)
    (gradient,) = torch.autograd.grad(objective(logits).sum(), z)
    return logits.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The unit step along a gradient (n, ...): its sign under Linf, else scaled to L2 length 1; 0 where it is 0."""
    if norm == "Linf":
        return gradient.sign()
    size = per_row(gradient.flatten(1).abs().amax(1).clamp_min(TINY), gradient)
    scaled = gradient / size  # squares of small gradients would vanish in float32
    length: Tensor = torch.linalg.vector_norm(scaled.flatten(1), dim=1)
    return scaled / per_row(length.clamp_min(TINY), gradient)


def moved(z: Tensor, direction: Tensor, x: Tensor, threat: ThreatModel, rel_stepsize: float) -> Tensor:
    """Images z (n, c, h, w) a step of `rel_stepsize` * eps up `direction`, back in the ball around x and the box."""
    return project(z + rel_stepsize * threat.eps * steepest(direction, threat.norm), x, threat)


def pgd(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, loss: Loss, steps: int, rel_stepsize: float
) -> Tensor:
    """Where plain PGD up `loss` ends, from a random point of the Linf ball or of the L2 sphere: (n, c, h, w)."""
    noise = 2 * torch.rand_like(x) - 1 if threat.norm == "Linf" else steepest(torch.randn_like(x), threat.norm)
    z = project(x + threat.eps * noise, x, threat)
    for _ in range(steps):
        _, gradient = ascent(model, z, lambda logits: loss(logits, y))
        z = moved(z, gradient, x, threat, rel_stepsize)
    return z
