"""Recipes of the catastrophic-overfitting paper, at its training radii."""

from __future__ import annotations

from typing import Any

from defenses.co_noise.noise import AMPLITUDE
from defenses.co_noise.objectives import FGSMMEP, FGSMRS, GAMMA, Induce, OnAdversarial, Stable, mep_buffers
from defenses.overfitting import overfitting_probe
from defenses.recipes import Adversary, Objective, Recipe

PAPER = "Zhao et al., arXiv 2402.18211"
PUBLIC = "schedule of the public code of FGSM-MEP (jiaxiaojunQAQ/FGSM-PGI)"

OURS_CO = (
    "Table 5, Ours-CO, whose training is not printed: FGSM-MEP without Eq. 10, the overfitting one of the two models that "
    "Sec. 4.1 compares, as a public re-implementation by others has it"
)


def fast_training(name: str, loss: Objective, adversary: Adversary, eps: float, place: str, **changes: Any) -> Recipe:
    """SGD 0.1, momentum 0.9, weight decay 5e-4, 110 epochs, x0.1 at 100 and 105, batch 128, attacks in training mode.

    The paper's text states no schedule; this is the public code's of its baseline.
    """
    return Recipe(
        name, loss, "resnet18", 1.0, 110, f"{PAPER}, {place}; {PUBLIC}", lr=0.1, optimizer="sgd", weight_decay=5e-4,
        decay="milestones", milestones=(100, 105), augment="crop-flip", adversary=adversary, adversary_mode="train",
        eps=eps, probe=overfitting_probe(eps), inference={"noise": "uniform", "amplitude": AMPLITUDE}, **changes,
    )  # fmt: skip


def _mep(name: str, loss: Objective, over: int, place: str) -> Recipe:
    return fast_training(name, loss, FGSMMEP(over / 255), over / 255, place, buffers=mep_buffers)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _mep("paper-co", OnAdversarial(), 16, OURS_CO),
        _mep("paper-co-12", OnAdversarial(), 12, OURS_CO),
        _mep("paper-mep", OnAdversarial(GAMMA), 12, "Table 2, FGSM-MEP"),
        _mep("paper-fd", Stable(), 12, "Eq. 8, Table 2 and 5, Ours-FD"),
        _mep("paper-fd-16", Stable(), 16, "Eq. 8, Table 2 and 5, Ours-FD"),
        _mep("paper-induce", Induce(), 8, "Eq. 9 added to Eq. 1, without Eq. 10, C_10%, Fig. 5"),
        Recipe(
            "small",
            OnAdversarial(keep=1.0),
            "middle_cnn",
            0.5,
            6,
            "ours: FGSM-RS at eps 0.3, where a half-width MiddleCNN overfits from the first epoch on; noise of the same radius",
            lr=0.1,
            images=20_000,
            optimizer="sgd",
            decay="linear",
            adversary=FGSMRS(0.3),
            adversary_mode="train",
            eps=0.3,
            probe=overfitting_probe(0.3),
            inference={"noise": "uniform", "amplitude": 0.3},
        ),
        fast_training("paper-rs", OnAdversarial(keep=1.0), FGSMRS(16 / 255), 16 / 255, "Table 7, FGSM-RS"),
    )
}
