"""Would this audit have noticed? Its strongest attack, with its own parameters, on models whose answer is known.

An undefended network must fall to about zero, and a robust one must land where AutoAttack does: an attack that leaves
the first standing is too weak, and one that leaves more of the second than AutoAttack did is too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audit import registry
from audit.geometry import project
from audit.oracle import Oracle
from audit.plan import Plan
from audit.rng import derive_seed
from audit.types import AdapterSpec, Step, ThreatModel

IMAGES = 100
log = logging.getLogger("audit")


@dataclass(frozen=True)
class Reference:
    """A model of the zoo, and how many of the first 100 embedded test images may be left at `eps` (Linf).

    At 16/255 every undefended network here falls to zero; `expected` of a robust one is AutoAttack's own number.
    """

    defense: str
    dataset: str
    eps: float
    expected: int
    tolerance: int


REFERENCES = (
    Reference("undefended", "fashion_mnist", 16 / 255, 0, 1),
    Reference("pgd_at", "fashion_mnist", 0.1, 69, 2),
)


def main_attack(steps: Sequence[Step], view: Sequence[AdapterSpec] = ()) -> Step | None:
    """The attack on the whole defense that a verdict rests on: of the ways that were tried the one through `view`, else
    the margin attack, else the last gradient attack on survivors; None without one.

    view: the adapters through which the strongest gradient attack saw the defense (`audit.evidence.Evidence.whole`).
    """
    whole = (s for s in steps if s.scope == "survivors" and not s.transfers)
    found = [s for s in whole if registry.attacks.load(s.attack).needs == "gradient"]
    best = [s for s in found if s.name.startswith("best-") and s.adapters == tuple(view)]
    margin = [s for s in found if s.attack == "apgd-margin"]
    return next(iter(best or margin or found[-1:]), None)


def run_controls(plan: Plan, device: torch.device) -> list[dict[str, Any]]:
    """One entry per reference of the plan's data set: reference, attack, n, eps, left, expected, tolerance.

    Empty where there is none: for other data sets and norms, and for images of one's own.
    """
    step = main_attack(plan.suite_steps)
    own_images = bool(plan.runtime.get("sources", {}).get("data"))
    if step is None or own_images or plan.threat.norm != "Linf":
        return []
    known = [reference for reference in REFERENCES if reference.dataset == plan.identity["dataset"]]
    return [_control(reference, step, plan, device) for reference in known]


def _control(reference: Reference, step: Step, plan: Plan, device: torch.device) -> dict[str, Any]:
    defense = registry.defenses.load(reference.defense)
    model = defense.load(defense.checkpoint(reference.dataset, None)).to(device)
    images = registry.datasets.load(reference.dataset).load().first(IMAGES)
    x, y = torch.from_numpy(images.x).to(device), torch.from_numpy(images.y).to(device)
    oracle = Oracle(model, batch_size=IMAGES, seed=plan.seed)
    rows = oracle.judge(x, y).correct.nonzero().flatten()
    left = _left(step, oracle, x[rows], y[rows], ThreatModel("Linf", reference.eps), plan.seed)
    return {
        "reference": reference.defense, "attack": step.name, "params": dict(step.params), "n": len(x),
        "eps": reference.eps, "left": left, "expected": reference.expected, "tolerance": reference.tolerance,
    }  # fmt: skip


def _left(step: Step, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> int:
    attack = registry.attacks.load(step.attack)
    try:
        found = attack(oracle.model, x, y, threat, seed=derive_seed(seed, "control"), **step.params)
    except Exception:
        log.exception("the control of %s failed", step.name)
        return len(x)  # a crash broke nothing
    usable = torch.isfinite(found).flatten(1).all(1)
    judged = oracle.judge(project(torch.where(usable.view(-1, 1, 1, 1), found, x), x, threat), y, strict=False)
    return int((judged.correct | ~usable).sum())
