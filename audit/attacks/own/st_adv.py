"""Spatially transformed images (Xiao et al. 2018, arXiv 1801.02612): pixels are moved, then held in the Linf ball."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.attacks.common import attack
from audit.attacks.own.common import LIBRARY
from audit.attacks.rounds import Best
from audit.geometry import project
from audit.margins import margin_loss
from audit.types import ThreatModel

ROUNDING = 1e-8  # keeps the derivative of the square root finite where the flow is flat


def flowed(x: Tensor, flow: Tensor) -> Tensor:
    """Images x (n, c, h, w) read at their pixels' places plus `flow` (n, 2, h, w), columns first, in pixels.

    The flow must be finite: torch's sampling reads memory at random where it is not. Between pixels it interpolates
    linearly (Eq. 1); beyond the edge the edge goes on.
    """
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device, dtype=x.dtype)[:, None] + flow[:, 1]
    columns = torch.arange(width, device=x.device, dtype=x.dtype) + flow[:, 0]
    grid = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], dim=3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def roughness(flow: Tensor) -> Tensor:
    """The flow loss of Eq. 4, for a flow (n, 2, h, w): (n,).

    The sum over pixels p, and over the neighbours q of each above, below, left and right, of
    sqrt((u_p - u_q)^2 + (v_p - v_q)^2): every pair of neighbours counts twice. A pixel at the edge has fewer.
    """
    down = (flow[:, :, 1:] - flow[:, :, :-1]).square().sum(1)
    across = (flow[:, :, :, 1:] - flow[:, :, :, :-1]).square().sum(1)
    pairs = sum(((part + ROUNDING).sqrt().flatten(1).sum(1) for part in (down, across)), flow.new_zeros(len(flow)))
    return 2 * pairs


@attack(
    "st-adv", library=LIBRARY, norms=("Linf",), needs="gradient", reach=2.5,
    reference="Xiao et al. 2018, arXiv 1801.02612",
    cost=lambda params: (int(params["steps"]) + 1, int(params["steps"])),
)  # fmt: skip
def st_adv(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 100,
    lr: float = 0.05,
    tau: float = 0.05,
) -> Tensor:
    """A smooth flow of pixels, found by Adam on the margin plus `tau` times the roughness of the flow (Eq. 2 to 4).

    tau is the paper's 0.05, and Eq. 4 is taken as printed, but for 1e-8 that keeps its root differentiable where the
    flow is flat.
    The paper bounds no norm. Here the moved image is clipped into the Linf ball before the model sees it, so that
    what counts is legal: a weaker attack than the paper's wherever an edge moves by more than eps. Each Adam step
    moves a pixel by about `lr` pixels. The paper uses L-BFGS, whose line search couples the images of a batch.
    Reach 2.5: a pixel can only take values that lie between its neighbours'.
    """
    flow = torch.zeros(len(x), 2, *x.shape[2:], device=x.device, requires_grad=True)
    best, mean, spread = Best(x, y), torch.zeros_like(flow), torch.zeros_like(flow)
    for t in range(1, steps + 1):
        moved = flowed(x, flow)
        z = project(moved, x, threat).detach() + (moved - moved.detach())  # clipped; its derivative is not
        logits = model(z)
        best.keep(z, logits)
        loss = (tau * roughness(flow) - margin_loss(logits, y)).sum()
        gradient = torch.autograd.grad(loss, flow)[0].nan_to_num(0.0, 0.0, 0.0)
        # Adam, written out: torch.optim loads torch's compiler first, which takes seconds.
        mean, spread = 0.9 * mean + 0.1 * gradient, 0.999 * spread + 0.001 * gradient.square()
        step = (mean / (1 - 0.9**t)) / ((spread / (1 - 0.999**t)).sqrt() + 1e-8)
        flow = (flow.detach() - lr * step).requires_grad_()
    with torch.no_grad():
        z = project(flowed(x, flow), x, threat)
        best.keep(z, model(z))
    return best.x
