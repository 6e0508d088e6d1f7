"""PGD adversarial training (Madry et al. 2018, arXiv 1706.06083): the healthy reference, robust for real."""

from __future__ import annotations

from torch import Tensor

from audit import registry
from audit.types import ThreatModel
from defenses.base import NetworkDefense
from defenses.recipes import Batch, Recipe, cross_entropy, plain

EPS = 0.1


def pgd_7(batch: Batch) -> Tensor:
    """PGD on CE, 7 steps of eps/4 from a random start, eps = 0.1.

    The registry's PGD and not `Madry(EPS, 4, 7)`, whose start is drawn otherwise: the shipped checkpoint was trained with
    this one, and its manifest names it.
    """
    candidate: Tensor = registry.attacks.load("pgd")(
        batch.network, batch.x, batch.y, ThreatModel("Linf", EPS), seed=batch.seed, steps=7, rel_stepsize=0.25
    )
    return candidate


RECIPES = {
    "small": Recipe(
        "small", plain(cross_entropy), "middle_cnn", 0.25, 8, "Madry et al. 2018, Eq. 2.1, at eps 0.1 on a quarter-width network",
        images=30_000, decay="linear", adversary=pgd_7, eps=EPS,
    )
}  # fmt: skip

PGD_AT = NetworkDefense(
    "pgd_at",
    "adversarial training against PGD-7 at eps 0.1",
    RECIPES,
    zoo={"fashion_mnist": "pgd_at-fashion_mnist-small.safetensors"},
)
