"""Robust overfitting, as Sec. 3.2 of TPAP defines it, and the numbers of it that a training table shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defenses.adversaries import BIM, FGSM
from defenses.recipes import Adversary, Batch

HIGH = 0.8
SAMPLE = 200


@dataclass(frozen=True, slots=True)
class RobustOverfitting:
    """The three conditions of Sec. 3.2. A network is robustly overfitted when all hold."""

    fits_its_attack: bool
    falls_to_others: bool
    generalises: bool

    def __bool__(self) -> bool:
        return self.fits_its_attack and self.falls_to_others and self.generalises


def robust_overfitting(
    train_known: float, train_others: Iterable[float], test_clean: float, test_known: float, *, high: float = HIGH
) -> RobustOverfitting:
    """Is a network robustly overfitted to its training attack? All accuracies are fractions in [0,1].

    train_known: on training images under the attack trained with, must exceed 0.9. train_others: on training images
    under every other attack measured, each must lie below 0.1; without any the condition does not hold.
    test_clean, test_known: on test images, clean and under the attack trained with, must both be "high", a word for
    which the paper gives no number: 0.8 is ours (its own network has 0.863 and 0.944, Table 6).
    """
    others = list(train_others)
    return RobustOverfitting(
        train_known > 0.9, bool(others) and max(others) < 0.1, min(test_clean, test_known) >= high
    )  # fmt: skip


def overfitting_probe(eps: float, steps: int = 10) -> Callable[[nn.Module, Tensor, Tensor], dict[str, float]]:
    """Columns of the training table, on the first 200 images of the probe's sample: accuracies at radius eps.

    probe_clean; probe_fgsm; probe_pgd (`steps` steps of eps/4 from the clean image). Catastrophic overfitting is the
    epoch in which probe_pgd falls to zero while probe_fgsm rises.
    """

    def probe(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
        x, y = x[:SAMPLE], y[:SAMPLE]
        return {
            "probe_clean": accuracy(network, x, y),
            "probe_fgsm": accuracy(network, perturbed(network, x, y, FGSM(eps)), y),
            "probe_pgd": accuracy(network, perturbed(network, x, y, BIM(eps, 4, steps)), y),
        }

    return probe


def perturbed(network: nn.Module, x: Tensor, y: Tensor, adversary: Adversary) -> Tensor:
    """What `adversary` makes of images x (n, c, h, w) with labels y (n,), outside of a training."""
    rows = torch.arange(len(x), device=x.device)
    return adversary(Batch(network, x, y, rows, 0, 0, 0, {}, x))


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of images x (n, c, h, w) that `network` gives their labels y (n,)."""
    return float((network(x).argmax(1) == y).float().mean())
