"""The Carlini and Wagner (2017, arXiv 1608.04644) searches around the optimisers of ART.

ART 1.20.1 supplies the descent: a line search in tanh space (L2), Adam in tanh space (Linf). Mended here: once an
image is adversarial only its distance counts, as in the paper's max(., 0); ART goes on along the margin and never
comes back. The constant weighs the margin in Linf too, which ART leaves out (#1374). ART takes a tie for success, and its
L2 descent ends at one, where rounding tells whether the image is adversarial: a thousandth farther counts, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from art.attacks.evasion.carlini import CarliniL2Method, CarliniLInfMethod
from torch import Tensor, nn

from audit.attacks.art_estimator import Array, Estimator, Masked, fools, run
from audit.geometry import distance

FIRST, FACTOR = 1e-3, 10.0  # the constant's start and growth, as in the authors' code
NUDGE = 1e-3


def others(z: Array, target: Array) -> Array:
    """Logits z (n, k) without those of the classes `target` (one-hot, (n, k))."""
    return np.where(target > 0, -np.inf, z)


def holding(z: Array, target: Array) -> Array:
    """Which rows of logits z (n, k) still give their class `target` (one-hot): bool (n,)."""
    kept: Array = (z * target).sum(1) >= others(z, target).max(1)
    return kept


class L2(CarliniL2Method):  # type: ignore[misc]
    """ART's L2 descent, its margin switched off where the image is adversarial."""

    def _loss_gradient(
        self, z_logits: Array, target: Array, x: Array, x_adv: Array, x_adv_tanh: Array, c_weight: Array, *box: Any
    ) -> Array:
        weight = c_weight * holding(z_logits, target)
        gradient: Array = super()._loss_gradient(z_logits, target, x, x_adv, x_adv_tanh, weight, *box)
        return gradient


class Linf(CarliniLInfMethod):  # type: ignore[misc]
    """ART's Linf descent on the paper's objective: constant * margin + how far the pixels exceed tau."""

    def _generate_single(self, x: Array, y: Array, low: Array, high: Array, const: float, tau: float) -> Array:
        self._const = const
        found: Array = super()._generate_single(x, y, low, high, const=const, tau=tau)
        return found

    def _loss_gradient(
        self, z_logits: Array, target: Array, x_adv: Array, x_adv_tanh: Array, low: Array, high: Array, x: Array,
        tau: float,
    ) -> Array:  # fmt: skip
        gradient = np.sign(x_adv - x) * (np.abs(x_adv - x) > tau)
        if holding(z_logits, target).any():
            gradient = gradient + self._const * margin_gradient(self.estimator, x_adv, z_logits, target)
        slope = (high - low) * (1 - np.square(np.tanh(x_adv_tanh))) / 2
        return np.asarray(gradient * slope)


def margin_gradient(estimator: Estimator, images: Array, z: Array, target: Array) -> Array:
    """Gradient of the own logit minus the largest other one, at images (n, c, h, w) with logits z (n, k)."""
    own = estimator.class_gradient(images, label=target.argmax(1))
    difference: Array = (own - estimator.class_gradient(images, label=others(z, target).argmax(1)))[:, 0]
    return difference


def l2_passes(steps: int, searches: int) -> tuple[int, int]:
    """At most so many forward and backward passes do `searches` descents of `least` take for one image."""
    return searches * (5 + 9 * steps), searches * 2 * steps  # per step: two gradients, up to six trials, the result


def least(
    estimator: Estimator, x: Tensor, y: Tensor, const: Array, *, steps: int, searches: int, rate: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Array]:  # fmt: skip
    """The adversarial images nearest to x (n, c, h, w) in L2 and their constants (n,); x where none was found.

    const (n,): where the paper's search begins; it is multiplied by 10 until it works and bisected from then on.
    mask: which values may move (1), for an estimator of type Masked.
    """
    images = x if mask is None else torch.cat([x, mask], 1)
    inner = L2(estimator, learning_rate=rate, max_iter=steps, binary_search_steps=1, batch_size=len(x), verbose=False)
    low, high = np.zeros(len(x)), np.full(len(x), np.inf)
    best, reach = x.clone(), torch.full((len(x),), float("inf"), device=x.device)
    for _ in range(searches):
        inner.initial_const = const
        found = run(inner, images, y)[:, : x.shape[1]]
        found = found if mask is None else torch.where(mask > 0, found, x)  # tanh and back moves by 1e-7
        hit = _fools(estimator, found, y, mask)
        farther = (x + (1 + NUDGE) * (found - x)).clamp(0, 1)
        rescued = ~hit & _fools(estimator, farther, y, mask)
        found, hit = torch.where(rescued.view(-1, 1, 1, 1), farther, found), hit | rescued
        away = distance(found, x, "L2")
        nearer = hit & (away < reach)
        best, reach = torch.where(nearer.view(-1, 1, 1, 1), found, best), torch.where(nearer, away, reach)
        won = hit.cpu().numpy()
        low, high = np.where(won, low, np.maximum(low, const)), np.where(won, np.minimum(high, const), high)
        const = np.where(np.isinf(high), FACTOR * const, (low + high) / 2)
    return best, np.where(np.isinf(high), const, high)


def _fools(estimator: Estimator, images: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    return fools(estimator, images if mask is None else torch.cat([images, mask], 1), y)


def fewest(
    model: nn.Module, x: Tensor, y: Tensor, *, steps: int, searches: int, rounds: int, share: float, rate: float
) -> Tensor:
    """The paper's L0 search: find the least L2 change, fix the values that matter least to it, and repeat.

    What matters is |gradient * change|. A round fixes up to `share` of the values left, fewer after a failure; it
    ends when not even one more can be fixed. Sizes are free in L0: where the descent fails, all values left are
    pushed to the end of the box on their side.
    """
    masked, plain = Masked(model, x), Estimator(model, x)
    allowed, shares = torch.ones_like(x), torch.full((len(x),), share, device=x.device)
    start = np.full(len(x), FIRST)
    best, const = least(masked, x, y, start, steps=steps, searches=searches, rate=rate, mask=allowed)
    for _ in range(rounds):
        drop = (shares * allowed.flatten(1).sum(1)).long().clamp_min(1)
        trial = _without(allowed, drop, _worth(plain, x, best, y))
        found, _ = least(masked, x, y, FACTOR * const, steps=steps, searches=1, rate=rate, mask=trial)
        descended = fools(plain, found, y)
        const = np.where(descended.cpu().numpy(), const, FACTOR * const)
        pushed = torch.where(trial > 0, (best > x).float(), x)
        found = torch.where(descended.view(-1, 1, 1, 1), found, pushed)
        hit = fools(plain, found, y)
        if not (hit | (drop > 1)).any():
            break
        shares = torch.where(hit, (1.5 * shares).clamp(max=share), shares / 2)
        kept = hit.view(-1, 1, 1, 1)
        allowed, best = torch.where(kept, trial, allowed), torch.where(kept, found, best)
    return best


def _worth(estimator: Estimator, x: Tensor, found: Tensor, y: Tensor) -> Tensor:
    """|gradient of the margin * change| of each value of `found` (n, c, h, w)."""
    images = found.cpu().numpy()
    z = estimator.predict(images)
    gradient = margin_gradient(estimator, images, z, np.eye(z.shape[1])[y.cpu().numpy()])
    return (torch.from_numpy(gradient).to(x.device) * (found - x)).abs()


def _without(allowed: Tensor, drop: Tensor, worth: Tensor) -> Tensor:
    """The mask `allowed` (n, c, h, w) less the `drop` (n,) values that are worth least."""
    rank = worth.masked_fill(allowed == 0, -1.0).flatten(1).argsort(dim=1, stable=True).argsort(dim=1)
    fixed = (allowed == 0).flatten(1).sum(1)
    mask: Tensor = (rank >= (fixed + drop)[:, None]).view_as(allowed).float()
    return mask
