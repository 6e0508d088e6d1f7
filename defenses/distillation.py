"""Defensive distillation (Papernot et al. 2016, arXiv 1511.04508): a student of soft labels at a high temperature.

Broken by Carlini and Wagner 2017 (arXiv 1608.04644): trained at T = 100 and used at T = 1, the student's logits are
some 100 times larger, so that its cross-entropy gradient vanishes in float32. A known patient, not a protection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from defenses.base import NetworkDefense
from defenses.recipes import Batch, Recipe

PAPER = "Papernot et al. 2016, arXiv 1511.04508"
T = 100.0


@dataclass(frozen=True)
class Tempered:
    """The teacher's loss: cross-entropy of softmax(logits / T) with the true labels (Sec. IV)."""

    temperature: float = T

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = batch.network(batch.x)
        return F.cross_entropy(logits / self.temperature, batch.y), logits


@dataclass(frozen=True)
class Distilled:
    """The student's loss: cross-entropy of softmax(logits / T) with the teacher's softmax(logits / T) (Sec. IV).

    Needs `memory["teacher"]` (n, k). The student is deployed at T = 1, which is what its bare logits are.
    """

    temperature: float = T

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = batch.network(batch.x)
        soft = F.softmax(batch.memory["teacher"][batch.rows] / self.temperature, 1)
        return F.cross_entropy(logits / self.temperature, soft), logits


TEACHER = Recipe(
    "teacher", Tempered(), "middle_cnn", 0.5, 14, f"{PAPER}, Sec. IV", images=20_000, decay="linear"
)  # fmt: skip
RECIPES = {
    "small": replace(TEACHER, name="small", loss=Distilled(), teacher=TEACHER, source=f"{PAPER}, Sec. IV, T = 100")
}

DISTILLATION = NetworkDefense(
    "distillation", "a student of soft labels at T = 100, deployed at T = 1", RECIPES,
    zoo={"fashion_mnist": "distillation-fashion_mnist-small.safetensors"},
)  # fmt: skip
