"""TRADES (Zhang et al. 2019, arXiv 1901.08573): clean cross-entropy plus a divergence from clean to adversarial logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.adversaries import within
from defenses.base import NetworkDefense
from defenses.recipes import Batch, Recipe

PAPER = "Zhang et al. 2019, arXiv 1901.08573"
EPS = 0.1


def divergence(clean: Tensor, adv: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(adv)) of each row of logits (n, k): (n,)."""
    return F.kl_div(F.log_softmax(adv, 1), F.log_softmax(clean, 1), reduction="none", log_target=True).sum(1)


@dataclass(frozen=True)
class KLAdversary:
    """Algorithm 1: `steps` steps of `step` that raise the divergence from the clean logits, in the Linf ball of eps.

    It starts 0.001 times a standard normal away, since at the clean image the divergence has no gradient.
    """

    eps: float
    step: float
    steps: int

    def __call__(self, batch: Batch) -> Tensor:
        dice = torch.Generator(batch.x.device).manual_seed(batch.seed)
        with torch.no_grad():
            clean = batch.network(batch.x)
        x = batch.x + 0.001 * torch.randn(batch.x.shape, generator=dice, device=batch.x.device)
        for _ in range(self.steps):
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(divergence(clean, batch.network(leaf)).sum(), leaf)
            x = within(leaf + self.step * gradient.sign(), batch.x, self.eps)
        return x.detach()


@dataclass(frozen=True)
class TRADESLoss:
    """The objective of Algorithm 1: CE(clean, y) + beta KL(clean || adv), averaged over the batch."""

    beta: float = 6.0

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        clean, adv = batch.network(batch.x), batch.network(batch.adv)
        return F.cross_entropy(clean, batch.y) + self.beta * divergence(clean, adv).mean(), clean


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "small", TRADESLoss(), "middle_cnn", 0.25, 8, f"{PAPER}, Algorithm 1, at eps 0.1 on a quarter-width network",
            images=30_000, decay="linear", adversary=KLAdversary(EPS, EPS / 4, 10), eps=EPS,
        ),
        Recipe(
            "paper", TRADESLoss(), "resnet18", 1.0, 100, f"{PAPER}, its CIFAR-10 settings, on ResNet-18", lr=0.1, optimizer="sgd",
            weight_decay=2e-4, decay="milestones", milestones=(75, 90), augment="crop-flip",
            adversary=KLAdversary(8 / 255, 2 / 255, 10), eps=8 / 255,
        ),
    )
}  # fmt: skip

TRADES = NetworkDefense(
    "trades", "clean cross-entropy plus 6 KL(clean || adversarial)", RECIPES,
    zoo={"fashion_mnist": "trades-fashion_mnist-small.safetensors"},
)  # fmt: skip
