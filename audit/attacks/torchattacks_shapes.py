"""What lets the TI-FGSM of torchattacks 3.5.1 take images of any shape and number of channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn


class FirstChannels(nn.Module):
    """`model` on the first `count` channels of images (n, more, h, w)."""

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__()
        self.model, self.count = model, count
        self.training = model.training  # torchattacks sets the mode of a module that trains, and of all within

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x[:, : self.count])
        return logits


class AnyShape(torchattacks.TIFGSM):  # type: ignore[misc]
    """The library shrinks every image to a square, which a model of other images does not take."""

    def input_diversity(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height == width:
            shrunk: Tensor = super().input_diversity(x)
            return shrunk
        square = F.interpolate(x, size=(max(height, width),) * 2, mode="bilinear", align_corners=False)
        moved = super().input_diversity(square)
        if moved is square:  # this time the dice left it alone
            return x
        return F.interpolate(moved, size=(height, width), mode="bilinear", align_corners=False)


def depthwise(kernel: Tensor, channels: int) -> Tensor:
    """Weights that smooth each of `channels` (a multiple of 3) by itself with `kernel` (k, k), in three groups."""
    own = torch.arange(channels)
    weight = torch.zeros(channels, channels // 3, *kernel.shape)
    weight[own, own % (channels // 3)] = kernel
    return weight
