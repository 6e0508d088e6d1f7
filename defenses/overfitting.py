"""What overfitting to the attack trained with looks like in numbers, for the table of a training and for its end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from defenses.adversaries import BIM, FGSM
from defenses.recipes import Adversary, Batch

SAMPLE = 200
PART = 250


def overfitting_probe(eps: float, steps: int = 10) -> Callable[[nn.Module, Tensor, Tensor], dict[str, float]]:
    """Columns of the training table, on the first 200 images of the probe's sample: accuracies at radius eps.

    probe_clean; probe_fgsm; probe_pgd (`steps` steps of eps/4 from the clean image). Catastrophic overfitting is the
    epoch in which probe_pgd falls to zero while probe_fgsm rises.
    """

    def probe(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
        x, y = x[:SAMPLE], y[:SAMPLE]
        return {
            "probe_clean": accuracy(network, x, y),
            "probe_fgsm": accuracy(network, x, y, FGSM(eps)),
            "probe_pgd": accuracy(network, x, y, BIM(eps, 4, steps)),
        }

    return probe


def accuracy(network: nn.Module, x: Tensor, y: Tensor, adversary: Adversary | None = None) -> float:
    """The share of images x (n, c, h, w) that `network` gives their labels y (n,), as they are or as `adversary` makes
    them; 250 at a time.
    """
    right = 0
    for images, labels in zip(x.split(PART), y.split(PART), strict=True):
        shown = images if adversary is None else perturbed(network, images, labels, adversary)
        with torch.no_grad():
            right += int((network(shown).argmax(1) == labels).sum())
    return right / len(x)


def perturbed(network: nn.Module, x: Tensor, y: Tensor, adversary: Adversary) -> Tensor:
    """What `adversary` makes of images x (n, c, h, w) with labels y (n,), outside of a training."""
    rows = torch.arange(len(x), device=x.device)
    return adversary(Batch(network, x, y, rows, 0, 0, 0, {}, x))
