"""Fixed parts with one flaw each, to be put in front of a network or behind it. None of them draws or remembers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn


class Scale(nn.Module):
    """Multiplies by `factor`."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, z: Tensor) -> Tensor:
        return self.factor * z


class Steps(nn.Module):
    """Rounds to the nearest multiple of 1 / `levels`."""

    def __init__(self, levels: float) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return (self.levels * x).round() / self.levels


class Jpeg(nn.Module):
    """Grey images (n, 1, h, w) in [0,1], written as JPEG of `quality` and read back: in [0,1]."""

    def __init__(self, quality: int = 60) -> None:
        super().__init__()
        self.quality = quality

    def forward(self, x: Tensor) -> Tensor:
        pixels = (255 * x.detach().clamp(0, 1)).round().to(torch.uint8).cpu()
        read = [torch.from_numpy(self._read_back(image[0].numpy())) for image in pixels]
        return torch.stack(read)[:, None].to(x) / 255 if read else x.detach()

    def _read_back(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=self.quality)
        return np.array(Image.open(file))


class _Constant(torch.autograd.Function):
    """The identity, whose derivative is given out as `size` in every place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: float) -> Tensor:
        ctx.size = size
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.full_like(grads[0], ctx.size), None


class Clipped(nn.Module):
    """Passes images on; the gradient that comes back is replaced by a small constant."""

    def __init__(self, size: float = 1e-3) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = _Constant.apply(x, self.size)
        return moved


class Ripple(nn.Module):
    """x + height * sin(x / length): at most `height` from x, with a slope of up to height / length and either sign."""

    def __init__(self, height: float = 0.01, length: float = 1e-4) -> None:
        super().__init__()
        self.height, self.length = height, length

    def forward(self, x: Tensor) -> Tensor:
        return x + self.height * torch.sin(x / self.length)


class Front(nn.Module):
    """logits = body(front(x)), under names that promise nothing."""

    def __init__(self, front: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.front, self.body = front, body

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(self.front(x))
        return logits
