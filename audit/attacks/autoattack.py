"""The parts of AutoAttack (Croce and Hein 2020, arXiv 2003.01690) from pyautoattack 0.2.0.

The attack classes are used one by one, with AutoAttack's "standard" parameters: the `AutoAttack` driver around them
installs a trace function, counts in a module-level variable and cannot resume. Each returns its first adversarial
image per sample, or the clean image; FAB the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor, nn

from audit.attacks.autoattack_shapes import AnySize
from audit.attacks.common import attack, one_of
from audit.attacks.rounds import TARGETS, best_of, in_rounds
from audit.geometry import distance
from audit.margins import margin_loss
from audit.types import Norm, ThreatModel

LIBRARY = "pyautoattack"
PAPER = "Croce and Hein 2020, arXiv 2003.01690"
FAB_PAPER = "Croce and Hein 2020, arXiv 1907.02044"
NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")


def _apgd_cost(params: Mapping[str, Any]) -> tuple[int, int]:
    passes = (int(params["n_iter"]) + 1) * int(params["n_restarts"])
    return 1 + passes, passes


def _targeted_cost(per_iteration: int) -> Any:
    def cost(params: Mapping[str, Any]) -> tuple[int, int]:
        rounds = int(params["n_target_classes"])
        return rounds * (2 + per_iteration * int(params["n_iter"])), rounds * int(params["n_iter"])

    return cost


class _APGDMargin(APGDAttack):  # type: ignore[misc]
    """APGD whose DLR hook carries the plain margin."""

    def dlr_loss(self, x: Tensor, y: Tensor) -> Tensor:
        return margin_loss(x, y)


class _APGDTargetedMargin(APGDAttack_targeted):  # type: ignore[misc]
    """Targeted APGD for fewer than four classes, where the targeted DLR loss has no fourth logit."""

    def dlr_loss_targeted(self, x: Tensor, y: Tensor) -> Tensor:
        rows = torch.arange(len(x), device=x.device)
        return x[rows, self.y_target] - x[rows, y]


def _classes(model: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        return int(model(x[:1]).shape[1])


def _apgd(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, loss: str, n_iter: int, n_restarts: int,
    base: Any = APGDAttack,
) -> Tensor:  # fmt: skip
    engine = base(
        model, n_iter=n_iter, norm=threat.norm, n_restarts=n_restarts, eps=threat.eps, seed=seed, loss=loss,
        device=x.device, use_largereps=threat.norm == "L1",
    )  # fmt: skip
    result: Tensor = engine.perturb(x, y)
    return result


@attack("apgd-ce", library=LIBRARY, norms=NORMS, needs="gradient", cost=_apgd_cost, reference=PAPER)
def apgd_ce(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, n_iter: int = 100, n_restarts: int = 1
) -> Tensor:  # fmt: skip
    """Auto-PGD on the cross-entropy, with its step-size schedule and momentum.

    On logits divided by a temperature it is this attack behind the adapter `rescale`: the step `rescaled-ce`.
    """
    return _apgd(model, x, y, threat, seed, "ce", n_iter, n_restarts)


@attack("apgd-dlr", library=LIBRARY, norms=NORMS, needs="gradient", cost=_apgd_cost, reference=PAPER)
def apgd_dlr(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, n_iter: int = 100, n_restarts: int = 1
) -> Tensor:  # fmt: skip
    """Auto-PGD on the difference-of-logits-ratio loss; with two classes, where it has no third logit, on the margin.

    The DLR gradient is exactly zero where the true label holds the third largest logit; the margin's is not, so run
    `apgd-margin` beside it.
    """
    base = APGDAttack if _classes(model, x) > 2 else _APGDMargin
    return _apgd(model, x, y, threat, seed, "dlr", n_iter, n_restarts, base)


@attack("apgd-margin", library=LIBRARY, norms=NORMS, needs="gradient", cost=_apgd_cost, reference=PAPER)
def apgd_margin(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, n_iter: int = 100, n_restarts: int = 1
) -> Tensor:  # fmt: skip
    """Auto-PGD on the plain margin loss of Carlini and Wagner (arXiv 1608.04644), through the library's DLR hook."""
    return _apgd(model, x, y, threat, seed, "dlr", n_iter, n_restarts, _APGDMargin)


@attack("apgd-t", library=LIBRARY, norms=NORMS, needs="gradient", cost=_targeted_cost(1), reference=PAPER)
def apgd_t(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    n_iter: int = 100,
    n_target_classes: int = 9,
) -> Tensor:
    """Auto-PGD on the targeted DLR loss, towards each of the `n_target_classes` runner-up classes in turn.

    With fewer classes it takes what there is; with fewer than four it uses the targeted margin.
    """
    classes = _classes(model, x)
    base = APGDAttack_targeted if classes > 3 else _APGDTargetedMargin
    engine = base(
        model, n_iter=n_iter, norm=threat.norm, eps=threat.eps, seed=seed, device=x.device,
        n_target_classes=min(n_target_classes, classes - 1), use_largereps=threat.norm == "L1",
    )  # fmt: skip
    result: Tensor = engine.perturb(x, y)
    return result


def _fab(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, n_iter: int, targets: int, n_restarts: int
) -> Tensor:
    """The nearest image of FAB's single runs; `targets` of 0 is the untargeted attack.

    The library's own loop drops what lies beyond eps and stops at the first find within it. Here eps only scales the
    random starts, which the first run has not.
    """
    engine = FABAttack_PT(
        model, norm=threat.norm, n_iter=n_iter, eps=threat.eps, targeted=targets > 0, device=x.device
    )  # fmt: skip
    nearest, reach = x.clone(), torch.full((len(x),), float("inf"), device=x.device)
    for round_ in range(max(targets, 1) * n_restarts):
        engine.target_class = 2 + round_ // n_restarts  # the library counts from the likeliest class, which is 1
        found = engine.attack_single_run(x, y, use_rand_start=round_ % n_restarts > 0, is_targeted=targets > 0)
        moved = distance(found, x, threat.norm)
        nearer = (moved > 0) & (moved < reach)
        nearest[nearer], reach[nearer] = found[nearer], moved[nearer]
    return nearest


@attack(
    "fab", library=LIBRARY, norms=NORMS, needs="gradient", kind="minimal", reference=FAB_PAPER,
    cost=lambda params: (
        int(params["n_restarts"]) * (1 + 2 * int(params["n_iter"])),
        int(params["n_restarts"]) * 10 * int(params["n_iter"]),
    ),
)  # fmt: skip
def fab(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    n_iter: int = 100,
    n_restarts: int = 1,
) -> Tensor:
    """Fast Adaptive Boundary: walks to the nearest of all linearised boundaries. Later restarts begin at random.

    One backward pass for each class in each iteration; the stated cost is that of ten classes.
    """
    return _fab(model, x, y, threat, n_iter, 0, n_restarts)


@attack(
    "fab-t", library=LIBRARY, norms=NORMS, needs="gradient", kind="minimal", cost=_targeted_cost(2),
    reference=FAB_PAPER,
)  # fmt: skip
def fab_t(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    n_iter: int = 100,
    n_target_classes: int = 9,
) -> Tensor:
    """Targeted Fast Adaptive Boundary: walks to the boundary of each runner-up class, and keeps the nearest."""
    return _fab(model, x, y, threat, n_iter, min(n_target_classes, _classes(model, x) - 1), 1)


@attack(
    "square", library=LIBRARY, norms=NORMS, needs="scores", reach=3.0,
    reference="Andriushchenko et al. 2020, arXiv 1912.00049", check=one_of("square", "target", TARGETS),
    cost=in_rounds(lambda params: (1 + int(params["n_queries"]), 0)),
)  # fmt: skip
def square(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, n_queries: int = 5000, rescale: int = 0,
    target: str = "none",
) -> Tensor:  # fmt: skip
    """Random search over square patches, by scores alone: a patch pushes pixels of either sign one way, so its reach is 3.

    rescale: 0 shrinks the patches as for 10,000 queries, as AutoAttack does however few are asked; 1 shrinks them over
    `n_queries`, as the attack's own paper and ART do. With 1,000 queries that breaks clearly more images.
    Under L2 and L1 the library's first patches may leave the image; `audit.attacks.autoattack_shapes` cuts them off.
    target: the library's targeted mode, down the cross-entropy of the target; what ends in a third class comes back clean.
    """
    engine = AnySize(
        model, norm=threat.norm, n_queries=n_queries, eps=threat.eps, p_init=0.8, n_restarts=1, seed=seed,
        device=x.device, resc_schedule=bool(rescale),
    )  # fmt: skip

    def run(goal: Tensor | None) -> Tensor:
        engine.targeted = goal is not None
        result: Tensor = engine.perturb(x, y if goal is None else goal)
        return result.clamp(*threat.bounds)  # the library's sums under L1 may end a rounding error outside

    return best_of("square", run, model, x, y, target=target)
