"""Attacks that are ill, where the defense is not. Each does as much as its name says and no more."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from audit.attacks.common import Function, WrappedAttack, attack
from audit.margins import margin_loss
from audit.types import ThreatModel
from tests.patients.networks import from_zoo


def _patient(name: str, steps: int) -> Callable[[Function], WrappedAttack]:
    return attack(
        name, library="patients", norms=("Linf",), needs="gradient", reference="none", cost=lambda _: (steps, steps)
    )


def _slope(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Margins (n,) and their gradient (n, c, h, w)."""
    x = x.detach().requires_grad_()
    margins = margin_loss(model(x), y)
    (gradient,) = torch.autograd.grad(margins.sum(), x)
    return margins.detach(), gradient


def _moved(adv: Tensor, step: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    return torch.minimum(torch.maximum(adv + step, x - threat.eps), x + threat.eps).clamp(*threat.bounds)


@_patient("last-iterate", 40)
def last_iterate(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Walks to the boundary and back across it, 40 steps of eps / 10, and returns the place where it stands."""
    adv = x
    for _ in range(40):
        margins, gradient = _slope(model, adv, y)
        side = torch.where(margins > 0, -1.0, 1.0)[:, None, None, None]
        adv = _moved(adv, side * threat.eps / 10 * gradient.sign(), x, threat)
    return adv


@_patient("two-steps", 2)
def two_steps(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Two steps of eps / 10 up the margin."""
    adv = x
    for _ in range(2):
        adv = _moved(adv, threat.eps / 10 * _slope(model, adv, y)[1].sign(), x, threat)
    return adv


@cache
def _stranger() -> nn.Module:
    return from_zoo("undefended-fashion_mnist-small")


@_patient("foreign-gradient", 20)
def foreign_gradient(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Twenty steps of eps / 10 up the margin of the undefended network, whatever the model."""
    adv = x
    for _ in range(20):
        adv = _moved(adv, threat.eps / 10 * _slope(_stranger(), adv, y)[1].sign(), x, threat)
    return adv
