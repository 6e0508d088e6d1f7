"""TPAP: test-time pixel-level adversarial purification with FGSM (Tang and Zhang, CVPR 2024).

The claim: a network that has overfitted to FGSM classifies FGSM images rightly, so one FGSM step away from its own
prediction leaves right predictions as they are and pushes wrong ones out. Every number of the paper is for images
made on the bare network, which no attack there looks beyond; the deployed model's own gradient is cut.
"""

from __future__ import annotations

from defenses.base import NetworkDefense
from defenses.tpap.overfitting import measured_overfitting
from defenses.tpap.purification import VARIANTS, XI, purified_by
from defenses.tpap.recipes import RECIPES

TPAP = NetworkDefense(
    "tpap",
    "an FGSM-overfitted network that takes one FGSM step away from its own prediction before it answers",
    RECIPES,
    zoo={"fashion_mnist": "tpap-fashion_mnist-small.safetensors"},
    traits=VARIANTS.traits,
    wrap=purified_by,
    inference={"purify": "fgsm", "xi": XI},
    variants=VARIANTS,
    examine=("robust_overfitting", measured_overfitting),
)
