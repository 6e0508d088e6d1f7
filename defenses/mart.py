"""MART (Wang et al. 2020, ICLR): adversarial training that weighs misclassified images more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.adversaries import Madry
from defenses.base import NetworkDefense
from defenses.recipes import Batch, Recipe
from defenses.trades import divergence

PAPER = "Wang et al. 2020, ICLR"
EPS = 0.1


def boosted_cross_entropy(adv: Tensor, y: Tensor) -> Tensor:
    """The paper's BCE: -log p_y - log(1 - max over k != y of p_k), for logits (n, k): (n,)."""
    probabilities = F.softmax(adv, 1)
    rival = probabilities.scatter(1, y[:, None], 0).amax(1)
    smallest = torch.finfo(rival.dtype).eps  # 1 - rival rounds to 0 where the rival is certain
    return F.cross_entropy(adv, y, reduction="none") - torch.log((1 - rival).clamp_min(smallest))


@dataclass(frozen=True)
class MARTLoss:
    """The objective of Algorithm 1: BCE(adv, y) + weight KL(clean || adv) (1 - p_y(clean)), averaged over the batch. weight: lambda."""

    weight: float = 5.0

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        clean, adv = batch.network(batch.x), batch.network(batch.adv)
        doubt = 1 - F.softmax(clean, 1).gather(1, batch.y[:, None])[:, 0]
        each = boosted_cross_entropy(adv, batch.y) + self.weight * divergence(clean, adv) * doubt
        return each.mean(), clean


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "small", MARTLoss(), "middle_cnn", 0.25, 8, f"{PAPER}, Algorithm 1, at eps 0.1 on a quarter-width network",
            images=30_000, decay="linear", adversary=Madry(EPS, 4, 10), eps=EPS,
        ),
        Recipe(
            "paper", MARTLoss(), "resnet18", 1.0, 120, f"{PAPER}, its CIFAR-10 settings for ResNet-18", lr=0.01, optimizer="sgd",
            weight_decay=3.5e-3, decay="milestones", milestones=(75, 90), augment="crop-flip",
            adversary=Madry(8 / 255, 4, 10), eps=8 / 255,
        ),
    )
}  # fmt: skip

MART = NetworkDefense(
    "mart",
    "boosted cross-entropy, and a divergence weighted by the doubt in the clean image",
    RECIPES,
    zoo={"fashion_mnist": "mart-fashion_mnist-small.safetensors"},
)
