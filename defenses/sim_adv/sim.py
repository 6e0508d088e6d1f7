"""SIM images: one gradient step per epoch, carried from epoch to epoch (SIM-Adv, Sec. 5.1, Eq. 14-16)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.adversaries import input_gradient, within
from defenses.recipes import Batch


def sim_buffers(x: Tensor) -> dict[str, Tensor]:
    """Memory for training images x (n, c, h, w): the last image of each (n, c, h, w), and its cycle (n,), -1 for none."""
    return {"images": x.clone(), "cycle": torch.full((len(x),), -1, device=x.device)}


@dataclass(frozen=True)
class SIM:
    """SIM(n1, n2): in each epoch one step of eps/n1 from last epoch's image; every n2 epochs from the clean one again.

    Eq. 14 clips each step to [-eps, eps], which a step of eps/n1 never reaches, and Eq. 15 clips to [0,1] alone. Read
    literally, 20 steps of eps/10 could go 2 eps far ("over-perturbation", Sec. 5.2), out of the "norm ball" that
    Sec. 2.1 demands and Fig. 8 draws. So the total perturbation is clipped to eps here. `clip_total` False is the
    literal reading.

    The images are kept before augmentation, so a recipe with SIM takes none. A batch that the loop leaves out in the
    first epoch of a cycle starts over in the epoch in which it is next seen.
    """

    eps: float
    n1: int
    n2: int
    clip_total: bool = True

    def __call__(self, batch: Batch) -> Tensor:
        cycle = batch.epoch // self.n2
        images, seen = batch.memory["images"], batch.memory["cycle"]
        carried = (seen[batch.rows] == cycle).view(-1, *[1] * (batch.x.ndim - 1))
        start = torch.where(carried, images[batch.rows], batch.x)
        step = self.eps / self.n1 * input_gradient(batch.network, start, batch.y).sign()
        candidate = start + step.clamp(-self.eps, self.eps)
        result = within(candidate, batch.x, self.eps) if self.clip_total else candidate.clamp(0, 1)
        images[batch.rows], seen[batch.rows] = result, cycle
        return result
