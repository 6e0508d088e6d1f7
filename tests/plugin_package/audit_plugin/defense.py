"""Feature squeezing (Xu et al. 2018, arXiv 1704.01155): fewer grey levels in front of a classifier, here a linear one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from audit import Found, ModelDefense
from audit.references import Reference
from audit_plugin.dataset import SIZE

LEVELS = 7


class Squeeze(nn.Module):
    """Images (n, c, h, w) in [0,1] -> the same in 8 grey levels."""

    def forward(self, x: Tensor) -> Tensor:
        return (LEVELS * x).round() / LEVELS


class Squeezed(nn.Module):
    """A classifier behind a purifier."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.purifier, self.network = Squeeze(), network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.purifier(x))


def compare_halves(weights: Path | None = None) -> nn.Module:
    """Logits: ten times the mean of the upper and of the lower half."""
    linear = nn.Linear(SIZE * SIZE, 2, bias=False)
    upper = (torch.arange(SIZE * SIZE) < SIZE * SIZE // 2).float()
    linear.weight.data = 10 * torch.stack([upper, 1 - upper]) / upper.sum()
    return nn.Sequential(nn.Flatten(), linear)


SQUEEZED = ModelDefense(
    "squeezed", lambda weights: Found(Squeezed(compare_halves(weights))), summary="eight grey levels",
    traits=frozenset({"nondifferentiable"}), dataset="halves",
)  # fmt: skip
BARE = Reference("audit_plugin.defense:compare_halves", "the same classifier without the purifier")
