"""Training of TPAP: FGSM adversarial training without random start, until it overfits robustly (Alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from defenses.adversaries import CW, FGSM, Madry
from defenses.mart import MARTLoss
from defenses.overfitting import overfitting_probe
from defenses.recipes import Adversary, Batch, Objective, Recipe, cross_entropy, plain
from defenses.trades import TRADESLoss

PAPER = "Tang and Zhang, TPAP, CVPR 2024"
PUBLIC = "public code tly18/TPAP 60f28f2"


@dataclass(frozen=True)
class BothRadii:
    """TPAP* (Table 2): cross-entropy on FGSM images of radius eps and of 2 eps, half each.

    Both share the sign of one gradient, so the farther image is found from the nearer one. The paper gives no
    weights.
    """

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        far = (2 * batch.adv - batch.x).clamp(0, 1)
        logits = batch.network(batch.adv)
        return 0.5 * (F.cross_entropy(logits, batch.y) + F.cross_entropy(batch.network(far), batch.y)), logits


BOTH_RADII = BothRadii()


def fgsm_training(
    name: str, loss: Objective, eps: float, source: str, *, lr: float = 0.01, epochs: int = 100, xi: float = 8 / 255,
    adversary: Adversary | None = None,
) -> Recipe:  # fmt: skip
    """Sec. 4.1.2 with the epochs and learning rate of the public code: SGD, momentum 0.9, weight decay 1e-3.

    The images are made in evaluation mode and pass the network alone; the public code sends the clean images through
    it as well, which moves the statistics of batch normalisation and not the loss. adversary: another than FGSM.
    """
    return Recipe(
        name, loss, "resnet18", 1.0, epochs, source, lr=lr, optimizer="sgd", weight_decay=1e-3, decay="milestones",
        milestones=(75, 90, 140), augment="crop-flip", adversary=adversary or FGSM(eps), eps=eps, probe=overfitting_probe(eps),
        inference={"purify": "fgsm", "xi": xi},
    )  # fmt: skip


RECIPES = {
    recipe.name: recipe
    for recipe in (
        fgsm_training("paper", plain(cross_entropy), 8 / 255, f"{PAPER}, Sec. 4.1.2; {PUBLIC}"),
        fgsm_training(
            "paper-150", plain(cross_entropy), 8 / 255, f"{PAPER}, Sec. 4.1.2, as printed", lr=0.1, epochs=150
        ),
        fgsm_training("paper-12", plain(cross_entropy), 12 / 255, f"{PAPER}, Sec. 4.1.2, eps 12/255"),
        fgsm_training(
            "paper-16",
            plain(cross_entropy),
            16 / 255,
            "ours: Alg. 1 at the radius of TPAP-TRADES* (Tang and Zhang, Table 3, which is TRADES on Caltech-101)",
        ),
        fgsm_training(
            "paper-pgd-10",
            plain(cross_entropy),
            8 / 255,
            f"{PAPER}, Table 7, trained with PGD-10; steps of eps/4",
            adversary=Madry(8 / 255, 4, 10),
        ),
        fgsm_training(
            "paper-cw",
            plain(cross_entropy),
            8 / 255,
            f"{PAPER}, Table 7, trained with CW under L2; ten steps of .1, as many as PGD-10 takes",
            adversary=CW(steps=10, lr=0.1),  # of .01, ten fool 37 of 93 images of an undefended network, these all 93
        ),
        fgsm_training("paper-star", BOTH_RADII, 8 / 255, f"{PAPER}, Table 2, TPAP*"),
        fgsm_training(
            "paper-trades",
            TRADESLoss(6.0),
            12 / 255,
            f"{PAPER}, Sec. 4.1.3, TPAP+TRADES; {PUBLIC}, its CIFAR-100 script",
            epochs=150,
        ),
        fgsm_training("paper-mart", MARTLoss(5.0), 8 / 255, f"{PAPER}, Sec. 4.1.3, TPAP+MART"),
        Recipe(
            "small",
            plain(cross_entropy),
            "middle_cnn",
            0.5,
            6,
            "ours: Alg. 1 at eps 0.3, where a half-width MiddleCNN overfits",
            lr=0.1,
            images=20_000,
            optimizer="sgd",
            decay="linear",
            adversary=FGSM(0.3),
            eps=0.3,
            probe=overfitting_probe(0.3),
            inference={"purify": "fgsm", "xi": 0.2},
        ),
    )
}
