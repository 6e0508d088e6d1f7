"""The strongest attack that we could write for each patient by hand, knowing its flaw. All under Linf, in plain torch.

Nothing here is used by the audit: it has to find what these know.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor], Tensor]
HandAttack = Callable[[Any, Tensor, Tensor, float, int], Tensor]
ENOUGH = 5.0  # logits beyond which a margin counts no more, where several models are to be fooled at once


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The largest other logit minus the label's: (n,), positive where the image is misclassified."""
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], float("-inf")).amax(1) - own


def ascend(
    loss: Loss, x: Tensor, eps: float, seed: int, *, steps: int = 40, momentum: float = 0.0, keep: Loss | None = None
) -> Tensor:
    """Signed ascent of loss (n, c, h, w) -> (n,) in the ball of eps around x and [0,1], from a random start.

    The step falls linearly from eps / 2. Returns for each image the iterate with the largest `keep` (by default the
    loss itself), the start and the end among them. momentum: share of the earlier gradients, each by its mean size.
    """
    adv = _start(x, eps, seed)
    best, highest, trend = adv, torch.full((len(x),), float("-inf")), torch.zeros_like(x)
    for step in range(steps + 1):
        adv = adv.detach().requires_grad_()
        value = loss(adv)
        (gradient,) = torch.autograd.grad(value.sum(), adv)
        with torch.no_grad():
            score = value.detach() if keep is None else keep(adv.detach())
            better = score > highest
            best, highest = torch.where(better[:, None, None, None], adv, best).detach(), score.maximum(highest)
            trend = momentum * trend + gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-30)
            moved = adv + eps / 2 * (1 - step / (steps + 1)) * trend.sign()
            adv = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(0, 1)
    return best


def _start(x: Tensor, eps: float, seed: int) -> Tensor:
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x + eps * (2 * noise - 1)).clamp(0, 1)


def worst(keep: Loss, candidates: Sequence[Tensor]) -> Tensor:
    """Of several candidates (n, c, h, w) the one with the largest `keep`, image by image."""
    with torch.no_grad():
        scores = torch.stack([keep(candidate) for candidate in candidates])
    return torch.stack(list(candidates))[scores.argmax(0), torch.arange(scores.shape[1])]


def whole(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Up the margin of the model itself, from three starts."""

    def loss(adv: Tensor) -> Tensor:
        return margin(model(adv), y)

    return worst(loss, [ascend(loss, x, eps, seed + start) for start in range(3)])


def first_part(model: nn.Sequential, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Up the margin of what lies before the output's flaw."""
    return whole(model[0], x, y, eps, seed)


def body(model: Any, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Up the margin of the network behind, as far as it goes; of many starts the one that fools the whole."""

    def loss(adv: Tensor) -> Tensor:
        return margin(model.body(adv), y)

    tries = [ascend(loss, x, eps, seed + start) for start in range(3)]
    return worst(lambda adv: margin(model(adv), y), tries)


def straight_through(model: Any, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """The front's value forward, the identity backward; kept by what the whole says."""

    def loss(adv: Tensor) -> Tensor:
        return margin(model.body(adv + (model.front(adv) - adv).detach()), y)

    tries = [ascend(loss, x, eps, seed + start, steps=60) for start in range(4)]
    return worst(lambda adv: margin(model(adv), y), tries)


def reachable(model: Any, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Ascent among the rounded images that the ball can reach, pixel by pixel a range of levels of their own."""
    levels = model.front.levels
    inside = 1 - 1e-4  # of the radius, so that no pixel stands where rounding is a tie
    low, high = (model.front((x + side * inside * eps).clamp(0, 1)) for side in (-1, 1))

    def image(rounded: Tensor) -> Tensor:
        """The pixel of the ball that is rounded so and lies nearest to it."""
        return torch.minimum(torch.maximum(rounded, x - inside * eps), x + inside * eps).clamp(0, 1)

    tries = []
    for start in range(6):
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed + start))
        place = low + (high - low) * noise
        best, highest = x, torch.full((len(x),), float("-inf"))
        for step in range(60):
            rounded = ((place * levels).round() / levels).requires_grad_()
            value = margin(model.body(rounded), y)
            (gradient,) = torch.autograd.grad(value.sum(), rounded)
            with torch.no_grad():
                better = value > highest
                best = torch.where(better[:, None, None, None], image(rounded), best)
                highest = value.maximum(highest)
                place = (place + (1 - step / 60) * (high - low) / 2 * gradient.sign()).clamp(min=low, max=high)
        tries.append(best)
    return worst(lambda adv: margin(model(adv), y), [*tries, straight_through(model, x, y, eps, seed)])


def through_step(model: Any, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Straight through the step away; and the farthest images of the bare body, for comparison."""

    def exact(adv: Tensor) -> Tensor:
        return margin(model(adv), y)

    def loss(adv: Tensor) -> Tensor:
        return margin(model.body(adv + (model.front(adv) - adv).detach()), y)

    tries = [ascend(loss, x, eps, seed + start, keep=exact) for start in range(3)]
    return worst(exact, [*tries, body(model, x, y, eps, seed)])


def over_draws(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int, draws: int = 8) -> Tensor:
    """Up the mean margin over draws, one pass each. The draws are the global generator's, seeded and put back.

    Kept is the last iterate: the one with the largest loss is the one with lucky draws.
    """
    visited = itertools.count()

    def loss(adv: Tensor) -> Tensor:
        return torch.stack([margin(model(adv), y).clamp(max=2.0) for _ in range(draws)]).mean(0)

    def later(adv: Tensor) -> Tensor:
        return torch.full((len(adv),), float(next(visited)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ascend(loss, x, eps, seed, momentum=0.9, keep=later)


def all_bodies(model: Any, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Up the mean margin of all bodies, each until it is well fooled: whichever answers, it is wrong."""

    def loss(adv: Tensor) -> Tensor:
        return torch.stack([margin(part(adv), y).clamp(max=ENOUGH) for part in model.bodies]).mean(0)

    return worst(loss, [ascend(loss, x, eps, seed + start, steps=60) for start in range(2)])


def soft_code(model: Any, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """The thermometer's bits forward, sigmoids of the distance to each mark backward."""
    code, rest = model[0], model[1]

    def loss(adv: Tensor) -> Tensor:
        soft = ((adv - code.marks) * 20).sigmoid()
        return margin(rest(soft + (code(adv) - soft).detach()), y)

    return worst(lambda adv: margin(model(adv), y), [ascend(loss, x, eps, seed + s, steps=60) for s in range(4)])


def smoothed(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int, draws: int = 12) -> Tensor:
    """Up the mean margin over nearby images, whose gradient has the trend that a single place has not."""
    generator = torch.Generator().manual_seed(seed + 99)

    def exact(adv: Tensor) -> Tensor:
        return margin(model(adv), y)

    def loss(adv: Tensor) -> Tensor:
        near = adv.repeat(draws, 1, 1, 1)
        near = near + eps / 2 * (2 * torch.rand(near.shape, generator=generator) - 1)
        return margin(model(near), y.repeat(draws)).view(draws, -1).mean(0)

    return worst(exact, [ascend(loss, x, eps, seed + start, steps=30, keep=exact) for start in range(2)])


def past_detector(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Up the largest other logit, less the label's or the detector's (the last), whichever is larger."""

    def loss(adv: Tensor) -> Tensor:
        logits = model(adv)
        others = logits[:, :-1].scatter(1, y[:, None], float("-inf")).amax(1)
        return others - torch.maximum(logits.gather(1, y[:, None])[:, 0], logits[:, -1])

    return worst(loss, [ascend(loss, x, eps, seed + start, steps=60) for start in range(4)])


BY_HAND: dict[str, HandAttack] = {
    "softmax_appended": first_part, "logits_times_1000": first_part, "quantised_logits": first_part,
    "quantised_input": reachable, "bit_depth": reachable, "jpeg": straight_through,
    "ripple": straight_through, "gradient_clipped": body, "detached_fgsm_purifier": through_step,
    "anti_adversary": body, "uniform_noise": over_draws, "random_resize_pad": over_draws, "random_pick": all_bodies,
    "stateful": all_bodies, "thermometer": soft_code, "detector": past_detector,
    "k_winners": smoothed,
}  # fmt: skip


def hand_attack(name: str) -> HandAttack:
    """(model, x, y, eps, seed) -> images x_adv (n, c, h, w) in the Linf ball of eps and in [0,1], for that patient."""
    return BY_HAND.get(name, whole)
