"""Super-fitting (Yang et al., arXiv 2205.02741): train until the cross-entropy gradient dies in float32.

The claim: no attack that follows the cross-entropy gradient can work, now or later. Other losses can, as the paper
says of AutoAttack and C&W in its introduction, but does not measure.
"""

from __future__ import annotations

from defenses.base import NetworkDefense
from defenses.recipes import Recipe, cross_entropy, plain
from defenses.super_fitting.losses import bounded_mucs, ce_mucs, mucs

PAPER = "Yang et al., arXiv 2205.02741"


def _paper(name: str, network: str, loss: str, epochs: int) -> Recipe:
    """Table 1: Adam, lr 1e-3, no augmentation, all training images. Its "iterations" are epochs (Sec. 3.1)."""
    losses = {"ce": cross_entropy, "mucs": mucs, "ce_mucs": ce_mucs}
    return Recipe(name, plain(losses[loss]), network, 1.0, epochs, f"{PAPER}, Table 1")


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _paper("paper", "middle_cnn", "ce_mucs", 500),
        _paper("paper-ce", "middle_cnn", "ce", 30_000),
        _paper("paper-mucs", "middle_cnn", "mucs", 500),
        _paper("paper-resnet18", "resnet18", "ce_mucs", 3_000),
        _paper("paper-resnet18-ce", "resnet18", "ce", 30_000),
        _paper("paper-resnet18-mucs", "resnet18", "mucs", 3_000),
        Recipe(
            "small", plain(bounded_mucs), "middle_cnn", 0.5, 30,
            "ours: CE + relu(150 + z_s - z_y), because Eq. 18 taken literally diverges at this size",
            images=20_000, decay="linear",
        ),
    )
}  # fmt: skip

SUPER_FITTING = NetworkDefense(
    "super_fitting",
    "logit gaps so wide that the cross-entropy gradient is zero in float32",
    RECIPES,
    zoo={"fashion_mnist": "super_fitting-fashion_mnist-small.safetensors"},
)
