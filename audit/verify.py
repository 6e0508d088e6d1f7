"""Judge the stored adversarial images again: `audit verify`, and the last check of every run."""

from __future__ import annotations

from typing import Any

import torch

from audit.engine import Target
from audit.geometry import contains
from audit.ledger import Ledger
from audit.oracle import Oracle
from audit.plan import Plan
from audit.rng import derive_seed
from audit.types import ThreatModel

OTHER_BATCH = 37  # unlike any batch the run used, so that an answer that depends on the batch shows


def verify_images(plan: Plan, target: Target, ledger: Ledger) -> dict[str, Any]:
    """Check every stored adversarial image: in the ball, in [0,1], misclassified by the deployed defense.

    Images are judged in reversed order and another batch size than in the run. Returns `verified` and `rejected`
    counts, and up to 20 `failures` as sentences.
    """
    verified, failures = 0, []
    oracle = Oracle(target.model, batch_size=OTHER_BATCH, seed=derive_seed(plan.seed, "verify"))
    for unit in plan.units():
        stored = ledger.read(unit.name)
        if unit.step is None or stored is None or not len(stored[0]["x_adv"]):
            continue
        step, arrays = plan.steps[unit.step], stored[0]
        threat = plan.threat if step.eps is None else ThreatModel(plan.threat.norm, step.eps)
        ids = arrays["ids"][arrays["kept"]]
        found = torch.from_numpy(arrays["x_adv"]).to(target.x.device).flip(0)
        rows = torch.from_numpy(ids.copy()).to(target.x.device).flip(0)
        inside = contains(found, target.x[rows], threat)
        fooled = ~oracle.judge(found, target.y[rows]).correct
        verified += len(ids)
        for row, is_inside, is_fooled in zip(rows.tolist(), inside.tolist(), fooled.tolist(), strict=True):
            if not (is_inside and is_fooled):
                problem = "outside the ball or the box" if not is_inside else "classified correctly"
                failures.append(f"image {row} of {unit.name} is {problem}")
    return {"verified": verified, "rejected": len(failures), "failures": failures[:20]}
