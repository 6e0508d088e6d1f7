"""Parts that answer the same image differently: random, remembering, slow, or taking gradients as they answer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _slope(network: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    """The gradient at x (n, c, h, w) of the cross-entropy with `label` (n,); no weight's `.grad` is touched."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(x), label, reduction="sum"), x)
    return gradient


class Away(nn.Module):
    """One signed step away from what `judge` predicts for the image (TPAP, Eq. 6-8): images -> images in [0,1].

    The judge lies in a tuple, so that its weights are not listed twice. The result is detached.
    """

    def __init__(self, judge: nn.Module, size: float) -> None:
        super().__init__()
        self.judge, self.size = (judge,), size

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            label = self.judge[0](x).argmax(1)
        return (x.detach() + self.size * _slope(self.judge[0], x, label).sign()).clamp(0, 1).detach()


class Toward(nn.Module):
    """Classifies the image after `k` signed steps towards the body's own prediction of it (Alfarra et al. 2022).

    The shift is a leaf: what comes back passes it as if it were constant. No clamp, as in the paper's code.
    """

    def __init__(self, body: nn.Module, k: int = 2, alpha: float = 0.15) -> None:
        super().__init__()
        self.body, self.k, self.alpha = body, k, alpha

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            label = self.body(x).argmax(1)
        shift = torch.zeros_like(x)
        for _ in range(self.k):
            shift = shift - self.alpha * _slope(self.body, x.detach() + shift, label).sign()
        logits: Tensor = self.body(x + shift)
        return logits


class Noise(nn.Module):
    """Adds uniform noise from [-width, width], drawn in each pass."""

    def __init__(self, width: float = 16 / 255) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.width * (2 * torch.rand_like(x) - 1)


class ResizePad(nn.Module):
    """Shrinks the batch to a random side of at least `least` and puts it in a random place (Xie et al. 2018)."""

    def __init__(self, least: int = 24) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        full = x.shape[-1]
        side = int(torch.randint(self.least, full + 1, ()))
        left, top = (int(torch.randint(0, full - side + 1, ())) for _ in range(2))
        small = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        return F.pad(small, (left, full - side - left, top, full - side - top))


class Pick(nn.Module):
    """Each image is answered by one of the bodies, drawn in each pass."""

    def __init__(self, bodies: Sequence[nn.Module]) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)

    def forward(self, x: Tensor) -> Tensor:
        every = torch.stack([body(x) for body in self.bodies], 1)
        return every[torch.arange(len(x)), torch.randint(len(self.bodies), (len(x),))]


class Wary(nn.Module):
    """Counts the images it was asked about; after `patience` of them the second body answers in place of the first."""

    def __init__(self, bodies: Sequence[nn.Module], patience: int = 500) -> None:
        super().__init__()
        self.bodies, self.patience, self.asked = nn.ModuleList(bodies), patience, 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.bodies[int(self.asked >= self.patience)](x)
        self.asked += len(x)
        return logits


class Sleepy(nn.Module):
    """Waits a little before each answer."""

    def __init__(self, body: nn.Module, seconds: float = 0.005) -> None:
        super().__init__()
        self.body, self.seconds = body, seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        logits: Tensor = self.body(x)
        return logits
