"""TPAP: test-time pixel-level adversarial purification with FGSM (Tang and Zhang, CVPR 2024).

The claim: a network that has overfitted to FGSM classifies FGSM images rightly, so one FGSM step away from its own
prediction leaves right predictions as they are and pushes wrong ones out. Every number of the paper is for images
made on the bare network, which no attack there looks beyond; the deployed model's own gradient is cut.
"""

from __future__ import annotations

from audit.types import Claim, ThreatModel
from defenses.base import NetworkDefense
from defenses.tpap.purification import XI, purified_by
from defenses.tpap.recipes import PAPER, RECIPES

EPS = ThreatModel("Linf", 8 / 255)


def _row(variant: str, clean: float, **robust: float) -> tuple[Claim, ...]:
    """A row of Table 2 (CIFAR-10, ResNet-18). Attacks without a stated Linf radius are left out: CW, DDN, STA, FWA."""
    return tuple(
        Claim("tpap", "cifar10", "resnet18", EPS, attack.replace("_", "-"), value,
              f"{PAPER}, Table 2, row {variant}, images made on the bare network", clean)
        for attack, value in robust.items()
    )  # fmt: skip


CLAIMS = (
    *_row("TPAP", 0.8625, fgsm=0.6141, pgd_20=0.7906, pgd_100=0.805, aa=0.7634, ti_dim=0.7521),
    *_row("TPAP*", 0.8211, fgsm=0.7323, pgd_20=0.8084, pgd_100=0.7969, aa=0.7572, ti_dim=0.8085),
)

TPAP = NetworkDefense(
    "tpap",
    "an FGSM-overfitted network that takes one FGSM step away from its own prediction before it answers",
    RECIPES,
    zoo={"fashion_mnist": "tpap-fashion_mnist-small.safetensors"},
    traits=frozenset({"nondifferentiable", "test_time_optimisation"}),
    claims=CLAIMS,
    wrap=purified_by,
    inference={"purify": "fgsm", "xi": XI},
)
