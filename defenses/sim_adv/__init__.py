"""SIM-Adv (Liu, Khalil and Khreishah, arXiv 2002.09632): single-step training whose steps add up over the epochs.

Beside it the methods that its Table 3 compares it with, on the same network and the same loop. No public code of
SIM-Adv is known, so this is a reading of the paper. What the paper leaves open, and what is done here:

- epochs and batch size: those below, and 128 unless one is named;
- the LeNet's widths: LeCun et al. 1998 (`defenses.networks.LeNet`);
- how clean and adversarial images are mixed: "the original and adversarial examples are used to train" (Sec. 5.1),
  so half the loss comes from each, except in Free-Adv, whose own paper trains on adversarial images alone, and in
  "sim-adv-only", which takes Eq. 6 at its word.
"""

from __future__ import annotations

from dataclasses import replace

from defenses.adversaries import BIM, FGSM, RFGSM, Madry
from defenses.base import NetworkDefense
from defenses.recipes import Adversary, Recipe, clean_and_adversarial, cross_entropy, plain
from defenses.sim_adv.atda import ATDALoss, UndividedATDALoss
from defenses.sim_adv.free import FreeBuffers, FreeStep, free_images
from defenses.sim_adv.sim import SIM, sim_buffers

PAPER = "Liu et al., arXiv 2002.09632"
EPS = 0.2  # Table 2, FMNIST
FREE_BATCH = 128


def _mixed(name: str, adversary: Adversary, epochs: int, source: str) -> Recipe:
    """Adversarial training on clean and adversarial images, Adam at the better rate of Table 4."""
    return Recipe(name, clean_and_adversarial, "lenet", 1.0, epochs, f"{PAPER}, {source}", adversary=adversary, eps=EPS)


def _sim(name: str, epochs: int, lr: float, source: str, images: int | None = None) -> Recipe:
    return Recipe(
        name, clean_and_adversarial, "lenet", 1.0, epochs, f"{PAPER}, {source}", lr=lr, images=images,
        adversary=SIM(EPS, 10, 20), buffers=sim_buffers, eps=EPS,
    )  # fmt: skip


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _sim("sim", 20, 1e-3, "Eq. 14-16, SIM(10,20), one cycle"),
        _sim("sim-1e-4", 20, 1e-4, "Eq. 14-16, SIM(10,20), one cycle, the lower alpha of Table 4"),
        replace(
            _sim("sim-adv-only", 40, 1e-3, "Eq. 14-16, SIM(10,20), two cycles, on adversarial images alone as in Eq. 6"),
            loss=plain(cross_entropy),
        ),
        _sim("small", 20, 1e-3, "Eq. 14-16, SIM(10,20), one cycle on 20,000 images", 20_000),
        Recipe("vanilla", plain(cross_entropy), "lenet", 1.0, 10, f"{PAPER}, Table 3, without a defense"),
        Recipe(
            "free", plain(cross_entropy), "lenet", 1.0, 4, "Shafahi et al. 2019, Algorithm 1, m = 10",
            batch_size=FREE_BATCH, adversary=free_images, buffers=FreeBuffers(FREE_BATCH), after=FreeStep(EPS),
            replays=10, eps=EPS,
        ),
        Recipe(
            "atda", ATDALoss(), "lenet", 1.0, 5, f"{PAPER}, Eq. 7-12; Song et al. 2018",
            adversary=FGSM(EPS, own_label=True), eps=EPS,
        ),
        Recipe(
            "atda-code", UndividedATDALoss(), "lenet", 1.0, 50,
            "Song et al. 2018, public code JHL-HUST/ATDA fec0e5c: CORAL undivided, epochs, batches; rate and eps as above",
            batch_size=32, adversary=FGSM(EPS, own_label=True), eps=EPS,
        ),
        _mixed("fgsm", FGSM(EPS), 10, "Eq. 1-2"),
        _mixed("r-fgsm", RFGSM(EPS, EPS / 2), 10, "Sec. 2.1.1; Tramèr et al. 2018, alpha = eps/2"),
        _mixed("bim", BIM(EPS, 10, 30), 5, "Eq. 3-4, BIM(10,30)"),
        _mixed("madry", Madry(EPS, 10, 30), 5, "Eq. 3-4, Madry(10,30)"),
        *(
            replace(_mixed(name, adversary, 5, f"Eq. 3-4, {source}, on adversarial images alone as in Eq. 6"), loss=plain(cross_entropy))
            for name, adversary, source in (
                ("bim-adv-only", BIM(EPS, 10, 30), "BIM(10,30)"), ("madry-adv-only", Madry(EPS, 10, 30), "Madry(10,30)"),
            )
        ),
    )
}  # fmt: skip


def _file(recipe: str) -> str:
    return f"sim_adv-fashion_mnist-{recipe}.safetensors"


SIM_ADV = NetworkDefense(
    "sim_adv",
    "single-step adversarial training whose perturbations are carried from epoch to epoch",
    RECIPES,
    zoo={"fashion_mnist": _file("sim-adv-only")},  # holds better than "sim": docs/papers/sim_adv.md
    images=500,  # most of them survive, so every attack runs to its end
    further=tuple(_file(recipe) for recipe in ("sim", "vanilla", "free", "atda", "bim", "madry")),
)
