"""What a defense with a test-time part measures the way its paper does: images made on the bare network, then shown to all of it.

No attack here knows the test-time part, so these numbers are no robust accuracies; they tell whether a checkpoint shows
what the paper reports.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from audit import registry
from audit.datasets import Dataset
from audit.oracle import Oracle
from audit.rng import derive_seed
from audit.types import ThreatModel

BATCH = 250
# Not a seed of the attacks below: noise that repeats the random start of PGD is no fresh noise. With equal seeds a
# network behind U(-0.25, 0.25) kept 15 % of 250 images where fresh draws left 52 %.
JUDGE_SEED = derive_seed("grey", "judge")


def grey_box(
    network: nn.Module, deployed: nn.Module, test: Dataset, *, eps: float, device: torch.device
) -> dict[str, Any]:
    """Accuracies of `network` and of `deployed` on all images of `test`: clean, FGSM and PGD-20 made on `network`.

    PGD-20: cross-entropy, steps of eps/10 from a random start. Keys: n, eps, and `network_` and `deployed_` followed
    by clean, fgsm and pgd_20. A stochastic defense is judged on one draw.
    """
    threat = ThreatModel("Linf", eps)
    x, y = torch.from_numpy(test.x).to(device), torch.from_numpy(test.y).to(device)
    images = {"clean": x}
    for name, attack, options in (("fgsm", "fgsm", {}), ("pgd_20", "pgd", {"steps": 20, "rel_stepsize": 0.1})):
        perform = registry.attacks.load(attack)
        parts = [
            perform(network, a, b, threat, seed=i, **options)
            for i, (a, b) in enumerate(zip(x.split(BATCH), y.split(BATCH), strict=True))
        ]
        images[name] = torch.cat(parts)
    found: dict[str, Any] = {"n": len(x), "eps": eps}
    for who, model in (("network", network), ("deployed", deployed)):
        for name, shown in images.items():
            judged = Oracle(model, batch_size=BATCH, seed=JUDGE_SEED).judge(shown, y)
            found[f"{who}_{name}"] = float(judged.correct.float().mean())
    return found
