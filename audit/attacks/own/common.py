"""What our own attacks share: losses by name, gradients without NaN, steps and the best image so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.attacks.common import margin_loss
from audit.errors import BadInput
from audit.registry import closest
from audit.types import Norm

LIBRARY = "ours"
T = TypeVar("T")
Loss = Callable[[Tensor, Tensor], Tensor]
TINY = torch.finfo(torch.float32).tiny


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


LOSSES: Mapping[str, Loss] = {"ce": _cross_entropy, "margin": margin_loss}


def choice(attack: str, option: str, value: str, known: Mapping[str, T]) -> T:
    """What an option of several named values stands for. Raises BadInput with the nearest known value."""
    if value not in known:
        raise BadInput(f"attack {attack!r} has no {option} {value!r}: {closest(value, sorted(known))}")
    return known[value]


def one_of(attack: str, option: str, known: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], None]:
    """The `check` of an attack with one option of several named values. It raises BadInput, as `choice` does."""

    def check(params: Mapping[str, Any]) -> None:
        choice(attack, option, params[option], known)

    return check


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """values (n,) shaped to multiply with `like` (n, c, h, w)."""
    return values.view(-1, *[1] * (like.ndim - 1))


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


class Best:
    """The images with the highest margin so far: `x` (n, c, h, w), at first the clean ones."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self._y = x.clone(), y
        self._margin = torch.full((len(x),), float("-inf"), device=x.device)

    def keep(self, z: Tensor, logits: Tensor) -> None:
        """Look at images z of which `logits` (n, k) are known."""
        margin = margin_loss(logits.detach(), self._y).to(self._margin.dtype)
        better = margin > self._margin  # false for NaN
        self.x = torch.where(per_row(better, z), z.detach(), self.x)
        self._margin = torch.where(better, margin, self._margin)
