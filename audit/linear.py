"""A linear classifier and images whose distance to its nearest decision boundary is known exactly in every norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audit.errors import BadInput
from audit.types import Norm

DUAL: dict[Norm, float] = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}


class Linear(nn.Module):
    """Images (n, c, h, w) -> logits W x + b (n, k), with `weight` of shape (k, c*h*w) and `bias` of shape (k,)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.flatten(1), self.weight, self.bias)

    @torch.no_grad()
    def distance(self, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
        """Distance (n,) from images x to the nearest decision boundary of their labels y (n,), the box aside.

        It is the smallest over j != y of (z_y - z_j) / ||w_y - w_j||, in the dual norm; negative where x is
        misclassified. In L0, where any pixel is free within the box, it is the number of pixels, best ones first, that
        close the gap; 0 where x is misclassified, infinite where the box forbids it.
        """
        logits = self(x)
        gaps = logits.gather(1, y[:, None]) - logits
        if norm == "L0":
            return self._pixels(x, y, gaps)
        sizes = torch.linalg.vector_norm(self.weight[y][:, None] - self.weight, ord=DUAL[norm], dim=2)
        own = nn.functional.one_hot(y, logits.shape[1]).bool()
        nearest: Tensor = (gaps / sizes).masked_fill(own, float("inf")).amin(1)
        return nearest

    def _pixels(self, x: Tensor, y: Tensor, gaps: Tensor) -> Tensor:
        toward = self.weight - self.weight[y][:, None]  # (n, k, d): what a unit of each pixel closes of each gap
        flat = x.flatten(1)[:, None]
        gains = torch.where(toward > 0, toward * (1 - flat), -toward * flat)
        closed = gains.sort(dim=2, descending=True).values.cumsum(2)
        count = (closed < gaps[:, :, None]).sum(2) + 1.0
        count = count.masked_fill(count > flat.shape[2], float("inf")).masked_fill(gaps <= 0, 0.0)
        own = nn.functional.one_hot(y, gaps.shape[1]).bool()
        fewest: Tensor = count.masked_fill(own, float("inf")).amin(1)
        return fewest


def linear_problem(
    seed: int, *, n: int = 6, classes: int = 4, channels: int = 1, size: int = 8
) -> tuple[Linear, Tensor, Tensor]:
    """A linear model and n images (n, channels, size, size) with labels (n,), all classified correctly.

    Pixels lie in [0.4, 0.6] and boundaries 0.1 to 0.2 away in L1 (nearer in the other norms), so the box does not
    bind. The third class is clearly farther than the second, so that even one cross-entropy step leads across the
    nearest boundary: what fails here is the attack and not the problem.
    """
    dice = torch.Generator().manual_seed(seed)
    weight = 10 * torch.randn(classes, channels * size * size, generator=dice)
    model = Linear(weight, -0.5 * weight.sum(1)).eval()
    found: list[Tensor] = []
    for _ in range(100):
        own, other = torch.rand(64, classes, generator=dice).topk(2).indices.T
        reach, noise = torch.rand(64, generator=dice), torch.rand(64, weight.shape[1], generator=dice)
        start = 0.04 * weight[own].sign() + 0.02 * (noise - 0.5)
        normal, toward = weight[own] - weight[other], weight[other].sign()
        excess = (start * normal).sum(1) - (0.1 + 0.1 * reach) * normal.abs().amax(1)
        flat = 0.5 + start - (excess / (toward * normal).sum(1))[:, None] * toward
        x = flat.view(-1, channels, size, size)
        top = model(x).detach().topk(min(3, classes)).values
        single = (top[:, 0] - top[:, -1] >= 1.5 * (top[:, 0] - top[:, 1])) | (classes == 2)
        found.extend(x[single & ((flat - 0.5).abs().amax(1) <= 0.1) & (model.distance(x, own, "L1") > 0)])
        if len(found) >= n:
            return model, torch.stack(found[:n]), model(torch.stack(found[:n])).argmax(1)
    raise BadInput(f"no linear problem of {classes} classes with images of size {size}; choose a larger size")
