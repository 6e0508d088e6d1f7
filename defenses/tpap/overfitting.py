"""Robust overfitting, as Sec. 3.2 of TPAP defines it, and measured at the end of a training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from defenses.adversaries import BIM, FGSM, Madry
from defenses.overfitting import accuracy
from defenses.recipes import Adversary, Recipe

HIGH = 0.8
KINDS: tuple[tuple[type, ...], ...] = ((FGSM,), (BIM, Madry))
Images = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class RobustOverfitting:
    """The three conditions of Sec. 3.2. A network is robustly overfitted when all hold."""

    fits_its_attack: bool
    falls_to_others: bool
    generalises: bool

    def __bool__(self) -> bool:
        return self.fits_its_attack and self.falls_to_others and self.generalises


def robust_overfitting(
    train_known: float, train_others: Iterable[float], test_clean: float, test_known: float, *, high: float = HIGH
) -> RobustOverfitting:
    """Is a network robustly overfitted to its training attack? All accuracies are fractions in [0,1].

    train_known: on training images under the attack trained with, must exceed 0.9. train_others: on training images
    under every other attack measured, each must lie below 0.1; without any the condition does not hold.
    test_clean, test_known: on test images, clean and under the attack trained with, must both be "high", a word for
    which the paper gives no number: 0.8 is ours (its own network has 0.863 and 0.944, Table 6).
    """
    others = list(train_others)
    return RobustOverfitting(
        train_known > 0.9, bool(others) and max(others) < 0.1, min(test_clean, test_known) >= high
    )  # fmt: skip


def measured_overfitting(network: nn.Module, recipe: Recipe, train: Images, test: Images) -> dict[str, Any]:
    """What the manifest of a checkpoint says of Sec. 3.2: the accuracies, each condition, and `holds`, whether all do.

    train, test: images (n, c, h, w) in [0,1] without augmentation and labels (n,). The known attack is the recipe's
    own; the others are those of another kind among FGSM, BIM (10 steps of eps/4) and PGD-20 (steps of eps/10, random
    start), of which the last two are one kind: another length of the same attack is not another attack. Empty for a
    recipe without an attack. The network must be in evaluation mode.
    """
    known, eps = recipe.adversary, recipe.eps
    if known is None or eps is None:
        return {}
    attacks: dict[str, Adversary] = {"fgsm": FGSM(eps), "bim_10": BIM(eps, 4, 10), "pgd_20": Madry(eps, 10, 20)}
    kin = next((kind for kind in KINDS if isinstance(known, kind)), ())
    others = {
        f"train_{k}": accuracy(network, *train, attack) for k, attack in attacks.items() if not isinstance(attack, kin)
    }
    train_known, test_clean = accuracy(network, *train, known), accuracy(network, *test)
    test_known = accuracy(network, *test, known)
    found = robust_overfitting(train_known, others.values(), test_clean, test_known)
    return {
        "eps": eps, "n_train": len(train[0]), "n_test": len(test[0]), "train_known": train_known, **others,
        "test_clean": test_clean, "test_known": test_known, **asdict(found), "holds": bool(found),
    }  # fmt: skip
