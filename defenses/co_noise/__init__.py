"""Catastrophic overfitting as a defense: a network that overfitted to one-step attacks, behind random noise.

Zhao et al., "Catastrophic Overfitting: A Potential Blessing in Disguise" (arXiv 2402.18211). The claim: attacks on
such a network excite a few channels only, by perturbations that random noise destroys, while the network bears the
noise. The paper's attacks are made on the noise-free network and then shown to the noisy one once.
"""

from __future__ import annotations

from defenses.base import NetworkDefense
from defenses.co_noise.noise import AMPLITUDE, VARIANTS, noised_by
from defenses.co_noise.recipes import RECIPES

CO_NOISE = NetworkDefense(
    "co_noise",
    "a network overfitted to one-step attacks, with random noise added to its input",
    RECIPES,
    zoo={"fashion_mnist": "co_noise-fashion_mnist-small.safetensors"},
    traits=VARIANTS.traits,
    wrap=noised_by,
    inference={"noise": "uniform", "amplitude": AMPLITUDE},
    variants=VARIANTS,
)
