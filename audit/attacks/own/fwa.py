"""Frank-Wolfe over transport plans: the "faster Wasserstein attack" (Wu, Wang and Yu 2020, arXiv 2008.02883)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.attacks.common import attack, choice, one_of
from audit.attacks.own.common import LIBRARY, LOSSES, TINY, ascent
from audit.attacks.rounds import Best, per_row
from audit.geometry import project
from audit.types import ThreatModel

BISECTIONS = 24


class _Transport:
    """Plans that move the brightness of images x (n, c, h, w) by at most `radius` pixels up, down, left or right.

    A plan (n, c, w*w, h*w) says how much of each pixel goes to which place of the window around it. `price` is that
    place's distance in pixels; a plan may cost `budget` times the brightness of the image.
    """

    def __init__(self, x: Tensor, radius: int, budget: float) -> None:
        self.x, self.side = x, 2 * radius + 1
        self.mass = x.flatten(2)[:, :, None]
        offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        self.price = (offset[:, None].square() + offset.square()).sqrt().view(1, 1, -1, 1)
        self.outside = self.around(torch.ones_like(x)) == 0
        self.allowed = budget * x.flatten(1).sum(1)

    def around(self, images: Tensor) -> Tensor:
        """The values in the window around each pixel: (n, c, side*side, h*w); 0 beyond the edge."""
        columns = F.unfold(images, self.side, padding=self.side // 2)
        return columns.view(len(images), images.shape[1], self.side**2, -1)

    def stay(self) -> Tensor:
        """The plan that moves nothing."""
        return self.mass * (self.price == 0)

    def image(self, plan: Tensor) -> Tensor:
        """Where the brightness lands: (n, c, h, w), some of it perhaps above 1."""
        return F.fold(plan.flatten(1, 2), self.x.shape[2:], self.side, padding=self.side // 2)

    def best(self, gradient: Tensor, blur: float) -> Tensor:
        """The plan that gains most along `gradient` within the cost, smoothed by `blur` times its entropy.

        The dual has one variable an image, the price of a pixel of distance, found by bisection (Sec. 5.1).
        """
        gain = self.around(gradient / per_row(gradient.flatten(1).abs().amax(1).clamp_min(TINY), gradient))
        gain = gain.masked_fill(self.outside, float("-inf"))
        low = torch.zeros_like(self.allowed)
        high = torch.full_like(low, 2 + 20 * blur)  # gains differ by 2 at most, so at this price all stays
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            dear = (self._plan(gain, middle, blur) * self.price).flatten(1).sum(1) > self.allowed
            low, high = torch.where(dear, middle, low), torch.where(dear, high, middle)
        return self._plan(gain, high, blur)

    def _plan(self, gain: Tensor, toll: Tensor, blur: float) -> Tensor:
        return self.mass * ((gain - per_row(toll, gain) * self.price) / blur).softmax(2)


@attack(
    "fwa", library=LIBRARY, norms=("Linf",), needs="gradient", reference="Wu et al. 2020, arXiv 2008.02883",
    cost=lambda params: (int(params["steps"]) + 1, int(params["steps"])), check=one_of("fwa", "loss", LOSSES),
)  # fmt: skip
def fwa(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 100,
    budget: float = 0.5,
    radius: int = 2,
    blur: float = 0.001,
    loss: str = "margin",
) -> Tensor:
    """Moves brightness between near pixels, `budget` pixels far on average, by Frank-Wolfe with step 2/(t + 2).

    budget, radius (windows of 5 x 5) and blur are the paper's for MNIST; TPAP's public code, for CIFAR-10, takes a
    budget of 8/255, 20 steps, a blur of .003 and the cross-entropy, as the authors' own does for its loss. The paper bounds the Wasserstein distance
    alone. Here the moved image is clipped into the Linf ball before the model sees it, so that what counts is legal,
    and the gradient of a pixel is 0 where it was clipped and would go on.
    """
    chosen, best, transport = choice("fwa", "loss", loss, LOSSES), Best(x, y), _Transport(x, radius, budget)
    plan = transport.stay()
    for t in range(steps):
        moved = transport.image(plan)
        z = project(moved, x, threat)
        logits, gradient = ascent(model, z, lambda logits: chosen(logits, y))
        best.keep(z, logits)
        gradient = gradient.masked_fill((moved - z) * gradient > 0, 0.0)
        plan = plan + 2 / (t + 2) * (transport.best(gradient, blur) - plan)
    z = project(transport.image(plan), x, threat)
    with torch.no_grad():
        best.keep(z, model(z))
    return best.x
