"""Images drawn at random from the ball. An attack with a gradient that does worse than this one is not working."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from audit.attacks.common import attack, choice, one_of
from audit.attacks.own.common import LIBRARY, TINY, steepest
from audit.geometry import project
from audit.types import Norm, ThreatModel

Draw = Callable[[Tensor], Tensor]


def _sphere(flat: Tensor) -> Tensor:
    return steepest(torch.randn_like(flat), "L2")


def _in_L2(flat: Tensor) -> Tensor:
    return _sphere(flat) * torch.rand(len(flat), 1, device=flat.device) ** (1 / flat.shape[1])


def _signs(flat: Tensor) -> Tensor:
    return 2 * torch.randint_like(flat, 2) - 1


def _in_L1(flat: Tensor) -> Tensor:
    """Uniform in the L1 ball: d exponential variables over the sum of d + 1 of them, with random signs."""
    sizes = torch.empty(len(flat), flat.shape[1] + 1, device=flat.device).exponential_()
    return _signs(flat) * sizes[:, :-1] / sizes.sum(1, keepdim=True).clamp_min(TINY)


def _vertex(flat: Tensor) -> Tensor:
    """One pixel value, up or down."""
    pixel = torch.randint(flat.shape[1], (len(flat), 1), device=flat.device)
    return torch.zeros_like(flat).scatter(1, pixel, 1.0) * _signs(flat)


# Unit perturbations for rows (n, d) of any numbers.
DRAWS: Mapping[str, Mapping[Norm, Draw]] = {
    "uniform": {"Linf": lambda flat: 2 * torch.rand_like(flat) - 1, "L2": _in_L2, "L1": _in_L1},
    "corners": {"Linf": _signs, "L2": _sphere, "L1": _vertex},
}


@attack(
    "random-search", library=LIBRARY, norms=("Linf", "L2", "L1"), needs="decision", reach=6.0,
    check=one_of("random-search", "where", DRAWS),
    reference="Carlini et al. 2019, arXiv 1902.06705, Sec. 4.11", cost=lambda params: (int(params["n_draws"]), 0),
)  # fmt: skip
@torch.no_grad()
def random_search(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    n_draws: int = 1000,
    where: str = "corners",
) -> Tensor:
    """The first of `n_draws` random images of the ball that fools the model, else the last.

    where "uniform": all points of the ball are equally likely. "corners": of its extreme points, which are all signs
    (Linf), the sphere (L2), or one pixel value moved as far as the box allows (L1). Reach 6: in 64 dimensions even the
    best of 1000 random directions leans towards the boundary by less than half.
    1,000 draws where the paper's brute force would take 10,000 and more: they are a check of the other attacks, and Square
    searches better. Gaussian noise is no choice here: it fills no ball.
    """
    draw = choice("random-search", "where", where, DRAWS)[threat.norm]
    found, open_rows = x.clone(), torch.arange(len(x), device=x.device)
    for _ in range(n_draws):
        clean = x[open_rows]
        z = project(clean + threat.eps * draw(clean.flatten(1)).view_as(clean), clean, threat)
        found[open_rows] = z
        open_rows = open_rows[model(z).argmax(1) == y[open_rows]]
        if not len(open_rows):
            break
    return found
