"""ATDA's loss: cross-entropy plus domain adaptation between clean and adversarial logits (SIM-Adv, Eq. 7-12).

The method is Song et al. 2018, arXiv 1810.00740. What the papers leave open is as in the public code (JHL-HUST/ATDA,
fec0e5c), as the SIM-Adv paper experimented with it (Sec. 3.3): C(x) are logits, centres start at 0, and the adversarial
images step away from the network's own prediction (`FGSM(own_label=True)`). Papers and code differ in CORAL: Eq. 7 has
covariances, here over n - 1, and the code leaves them undivided, which makes the term 127 times as large at n = 128.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.recipes import Batch


def coral(clean: Tensor, adv: Tensor, *, divided: bool = True) -> Tensor:
    """Eq. 7: mean absolute difference of the covariances of two sets of logits (n, k) -> scalar.

    divided: by n - 1; the public code does not.
    """
    difference = (torch.cov(clean.T) - torch.cov(adv.T)).abs().mean()
    return difference if divided else (len(clean) - 1) * difference


def mmd(clean: Tensor, adv: Tensor) -> Tensor:
    """Eq. 8: mean absolute difference of the mean logits (n, k) -> scalar."""
    return (clean.mean(0) - adv.mean(0)).abs().mean()


def margin(logits: Tensor, y: Tensor, centres: Tensor) -> Tensor:
    """Eq. 10-11: softplus(distance to the own centre - distance to another), L1, averaged over the others.

    logits (n, k), y (n,), centres (k, k) -> scalar.
    """
    distances = (logits[:, None] - centres[None]).abs().sum(2)
    own = distances.gather(1, y[:, None])
    others = F.one_hot(y, len(centres)) == 0
    return F.softplus(own - distances)[others].mean()


def moved_centres(centres: Tensor, logits: Tensor, y: Tensor, beta: float) -> Tensor:
    """Eq. 12: each centre (k, k) moved by beta towards the logits (n, k) of its class."""
    member = F.one_hot(y, len(centres)).to(logits.dtype)
    count = member.sum(0)[:, None]
    return centres - beta * (count * centres - member.T @ logits) / (1 + count)


@dataclass(frozen=True)
class ATDALoss:
    """CE(x) + CE(adv) + weight (CORAL + MMD + margin), and the centres move once per step, untrained.

    weight: 1/3 in the public code. beta: 0.1 (Eq. 12). The centres are `memory["centres"]`, made
    in the first step, float32 under mixed precision, too, since they move by little.
    """

    weight: float = 1 / 3
    beta: float = 0.1
    divided: ClassVar[bool] = True

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        clean, adv = batch.network(batch.x), batch.network(batch.adv)
        k = clean.shape[1]
        centres = batch.memory.setdefault("centres", clean.new_zeros(k, k, dtype=torch.float32))
        both, labels = torch.cat([clean, adv]).float(), torch.cat([batch.y, batch.y])
        adaptation = coral(clean, adv, divided=self.divided) + mmd(clean, adv) + margin(both, labels, centres)
        batch.memory["centres"] = moved_centres(centres, both.detach(), labels, self.beta)
        fit = F.cross_entropy(clean, batch.y) + F.cross_entropy(adv, batch.y)
        return fit + self.weight * adaptation, clean


class UndividedATDALoss(ATDALoss):
    """ATDA's loss as the public code has it, with a CORAL that is not divided by n - 1."""

    divided: ClassVar[bool] = False
