"""Catastrophic overfitting as a defense: a network that overfitted to one-step attacks, behind random noise.

Zhao et al., "Catastrophic Overfitting: A Potential Blessing in Disguise" (arXiv 2402.18211). The claim: attacks on
such a network excite a few channels only, by perturbations that random noise destroys, while the network bears the
noise. The paper's attacks are made on the noise-free network and then shown to the noisy one once.
"""

from __future__ import annotations

from audit.types import Claim, ThreatModel
from defenses.base import NetworkDefense
from defenses.co_noise.noise import AMPLITUDE, noised_by
from defenses.co_noise.recipes import PAPER, RECIPES

EPS = ThreatModel("Linf", 16 / 255)


def _row(place: str, clean: float, **robust: float) -> tuple[Claim, ...]:
    return tuple(
        Claim("co_noise", "cifar10", "resnet18", EPS, attack.replace("_", "-"), value,
              f"{PAPER}, {place}, images made on the noise-free network", clean)
        for attack, value in robust.items()
    )  # fmt: skip


CLAIMS = _row(
    "Table 5, Ours-CO, xi_T 16/255, noise U(-16/255, 16/255)",
    0.8845, fgsm=0.7159, pgd_10=0.6627, pgd_20=0.6059, pgd_50=0.5848, cw=0.6165, apgd_t=0.6203, aa=0.4353,
)  # fmt: skip

CO_NOISE = NetworkDefense(
    "co_noise",
    "a network overfitted to one-step attacks, with random noise added to its input",
    RECIPES,
    zoo={"fashion_mnist": "co_noise-fashion_mnist-small.safetensors"},
    traits=frozenset({"stochastic"}),
    claims=CLAIMS,
    wrap=noised_by,
    inference={"noise": "uniform", "amplitude": AMPLITUDE},
)
