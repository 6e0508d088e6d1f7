"""The ratio rho of Sec. 4, Eq. 13: how near an attack comes to its strongest setting, measured on a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from defenses.adversaries import BIM, ascend
from defenses.overfitting import PART, accuracy
from defenses.recipes import Batch

SETTINGS = range(31)  # "each n1 = n2 value in the range Z[0, 30]"; 0 steps leave the clean images


def rho(error_rates: Mapping[int, float]) -> dict[int, float]:
    """Error rates in [0,1] by setting (n1 = n2 for Fig. 3, the step for Fig. 4), each divided by that of the largest.

    Raises ValueError for no rates, or where the largest setting leaves no error to compare with.
    """
    if not error_rates:
        raise ValueError("rho needs at least one error rate; measure the attack at one setting or more")
    strongest = error_rates[max(error_rates)]
    if not strongest > 0:
        raise ValueError(f"the error rate at {max(error_rates)} is {strongest}, expected more than 0; raise eps")
    return {setting: rate / strongest for setting, rate in sorted(error_rates.items())}


def rho_curve(
    network: nn.Module, x: Tensor, y: Tensor, *, eps: float, settings: Iterable[int] = SETTINGS
) -> dict[int, float]:
    """Fig. 3: rho by n1 = n2, the number of BIM's steps of eps/n1, 0 being the clean images.

    x: images (n, c, h, w) in [0,1]; y: labels (n,); network: in evaluation mode. Each setting costs as many forward and
    backward passes an image as it has steps. Raises ValueError as `rho` does.
    """
    return rho({k: 1 - accuracy(network, x, y, BIM(eps, k, k) if k else None) for k in settings})


def rho_steps(network: nn.Module, x: Tensor, y: Tensor, *, eps: float, n1: int = 10, n2: int = 30) -> dict[int, float]:
    """Fig. 4: rho by the steps done so far of one BIM(n1, n2), which takes steps of eps/n1; arguments as `rho_curve`'s.

    The paper's n1 is 10 on MNIST and Fashion-MNIST and 7 on CIFAR-10, its n2 30.
    """
    wrong = dict.fromkeys(range(n2 + 1), 0)
    for images, labels in zip(x.split(PART), y.split(PART), strict=True):
        batch = Batch(network, images, labels, torch.arange(len(images), device=x.device), 0, 0, 0, {}, images)
        shown = images
        for step in wrong:
            shown = ascend(batch, shown, eps, eps / n1, 1) if step else shown
            with torch.no_grad():
                wrong[step] += int((network(shown).argmax(1) != labels).sum())
    return rho({step: count / len(x) for step, count in wrong.items()})
