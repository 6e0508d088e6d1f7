"""What starts the decision-based attacks of ART 1.20.1, HopSkipJump and Boundary, and ends them with their queries."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from art.attacks import EvasionAttack
from art.attacks.evasion.boundary import BoundaryAttack
from art.attacks.evasion.hop_skip_jump import HopSkipJump
from torch import Tensor, nn

from audit.attacks.art_estimator import Array, Spent, Watched, run


def _starts(x: Tensor) -> Tensor:
    """Images (100, c, h, w) to begin from: half uniform noise, half blocks of black and white from coarse to fine.

    Many networks put all uniform noise into one class, so for images of that class noise is no start.
    """
    found = [torch.rand(50, *x.shape[1:])]
    for size in (1, 2, 4, 8, 16):
        blocks = (torch.rand(10, x.shape[1], size, size) < torch.rand(10, 1, 1, 1)).float()
        found.append(nn.functional.interpolate(blocks, size=x.shape[2:]))
    return torch.cat(found)


class _Started:
    """Keeps the start that it is given. ART asks again, in another batch, where rounding may answer differently; it
    would then draw a start outside any seed."""

    def _init_sample(self, x: Array, y: int, y_p: int, init_pred: int, adv_init: Array, *_: Any) -> tuple[Array, int]:
        return adv_init.astype(np.float32), y_p


Hop = type("Hop", (_Started, HopSkipJump), {})
Walk = type("Walk", (_Started, BoundaryAttack), {})


def walk(eye: Watched, inner: EvasionAttack, image: Tensor, label: Tensor) -> Watched:
    """Draw starts until one is adversarial, then run `inner` from the nearest so far until the queries are spent."""
    with suppress(Spent):
        while eye.reach == float("inf"):
            eye.predict(_starts(image).numpy())
        while True:
            run(inner, image, label, x_adv_init=eye.nearest.cpu().numpy())
    return eye
