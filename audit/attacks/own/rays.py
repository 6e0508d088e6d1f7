"""RayS: the nearest boundary along sign vectors, by decisions alone (Chen and Gu 2020, arXiv 2006.12792)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audit.attacks.common import attack
from audit.attacks.own.common import LIBRARY
from audit.attacks.rounds import per_row
from audit.types import ThreatModel


@dataclass
class _Rays:
    """Where the search of each of n images stands; every image gets one question a round.

    sign (n, d) and radius (n,): the best ray so far; `found` once a point of one was adversarial. trial (n, d): the
    ray in question, which is first tried at `radius` and, where it fools there, bisected (`narrowing`) between low and
    high. size, block (n,): pixels are flipped in blocks of `size`, one after the other, then in blocks half as large.
    """

    sign: Tensor
    radius: Tensor

    def __post_init__(self) -> None:
        self.trial, self.low, self.high = self.sign.clone(), torch.zeros_like(self.radius), self.radius.clone()
        self.found = torch.zeros_like(self.radius, dtype=torch.bool)
        self.narrowing, self.block = self.found.clone(), torch.full_like(self.found, -1, dtype=torch.int64)
        self.size = torch.full_like(self.block, self.sign.shape[1])

    def question(self) -> Tensor:
        """The radius along `trial` to try next: (n,)."""
        return torch.where(self.narrowing, (self.low + self.high) / 2, self.radius)

    def answer(self, asked: Tensor, fooled: Tensor, tolerance: float) -> None:
        """Take note of which images were fooled at the radii `asked`, and choose the next rays."""
        entered = fooled & ~self.narrowing
        rejected = ~fooled & ~self.narrowing
        self.low = torch.where(entered, 0.0, torch.where(self.narrowing & ~fooled, asked, self.low))
        self.high = torch.where(fooled, asked, self.high)
        self.narrowing, self.found = self.narrowing | entered, self.found | fooled
        done = self.narrowing & (self.high - self.low <= tolerance * self.high)
        # What fooled is at least as near as the best ray was: keep it even when its bisection is cut short.
        self.sign = torch.where(fooled[:, None], self.trial, self.sign)
        self.radius = torch.where(fooled, asked, self.radius)
        self.narrowing = self.narrowing & ~done
        self._next_block(done | rejected)

    def _next_block(self, rows: Tensor) -> None:
        pixels = self.sign.shape[1]
        block = torch.where(rows, self.block + 1, self.block)
        wrapped = block * self.size >= pixels
        self.size = torch.where(wrapped, (self.size + 1) // 2, self.size)
        self.block = torch.where(wrapped, 0, block)
        which = torch.arange(pixels, device=self.sign.device) // self.size[:, None]
        flipped = torch.where(which == self.block[:, None], -self.sign, self.sign)
        self.trial = torch.where(rows[:, None], flipped, self.trial)


@attack(
    "rays", library=LIBRARY, norms=("Linf",), needs="decision", kind="minimal", reach=1.5,
    reference="Chen and Gu 2020, arXiv 2006.12792", cost=lambda params: (int(params["n_queries"]), 0),
)  # fmt: skip
@torch.no_grad()
def rays(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    n_queries: int = 5000,
    tolerance: float = 0.01,
) -> Tensor:
    """Flips the signs of ever smaller blocks of pixels, and keeps a flip that brings the boundary nearer.

    A ray is tried at the best radius first and bisected only where it fools there, to `tolerance` times its radius. The
    authors' public code takes 10,000 queries and bisects to a width of 0.001: half of it and 0.01 are ours, for time.
    Points are clipped to the box. Nothing is random. Reach 1.5: one pass over all pixels cannot settle each sign
    within the queries of a test.
    """
    low, high = threat.bounds
    flat = x.flatten(1)
    state = _Rays(torch.ones_like(flat), torch.full((len(x),), high - low, device=x.device, dtype=x.dtype))

    def point(radius: Tensor, sign: Tensor) -> Tensor:
        return (flat + radius[:, None] * sign).clamp(low, high).view_as(x)

    for _ in range(n_queries):
        asked = state.question()
        state.answer(asked, model(point(asked, state.trial)).argmax(1) != y, tolerance)
    return torch.where(per_row(state.found, x), point(state.radius, state.sign), x)
