"""Random crops and flips of a batch, seeded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PAD = 4


def crop_flip(x: Tensor, seed: int) -> Tensor:
    """Each image of x (b, c, h, w) shifted by up to 4 pixels (zeros move in) and mirrored with probability 1/2.

    He et al. 2016, Sec. 4.2. The same seed gives the same images.
    """
    n, _, h, w = x.shape
    dice = torch.Generator().manual_seed(seed)
    shift = torch.randint(0, 2 * PAD + 1, (2, n, 1), generator=dice).to(x.device)
    mirror = (torch.rand(n, 1, generator=dice) < 0.5).to(x.device)
    rows = torch.arange(h, device=x.device) + shift[0]
    columns = torch.arange(w, device=x.device).expand(n, w)
    columns = torch.where(mirror, columns.flip(1), columns) + shift[1]
    padded = F.pad(x, (PAD, PAD, PAD, PAD))
    images = torch.arange(n, device=x.device)[:, None, None]
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
