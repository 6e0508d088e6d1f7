"""The only judge of "adversarial": the untouched, deployed defense, in float32, without gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audit.errors import BadModel
from audit.rng import Stream

HALF_WIDTH = 0.01
FEWEST, MOST = 20, 200


def draws_for(n: int) -> int:
    """How many draws score each of n images of a stochastic defense: 20 to 200.

    Enough that the draws alone move the mean over images by less than one point: the half width of its 95 %
    interval is at most 1.96 * sqrt(0.25 / (n * draws)), whatever the images.
    """
    return min(MOST, max(FEWEST, math.ceil(1.96**2 * 0.25 / (n * HALF_WIDTH**2))))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the deployed defense says of n images.

    prediction: int64 (n,), of the first draw; correct: bool (n,), true where at least half of the draws are
    right; p_correct: float32 (n,), the share of draws that are right; logits: float32 (n, k), of the first draw;
    valid: bool (n,), false where a logit was NaN or infinite: nobody knows, so such an image is neither right nor
    adversarial (`correct` is true and `p_correct` NaN there).
    """

    prediction: Tensor
    correct: Tensor
    p_correct: Tensor
    logits: Tensor
    valid: Tensor


class Oracle:
    """Judges images with `model`, in batches, with fresh randomness of its own.

    draws: forward passes per image (more than one only for stochastic defenses).
    """

    def __init__(self, model: nn.Module, *, batch_size: int, seed: int, draws: int = 1) -> None:
        self.model = model
        self.batch_size = batch_size
        self.draws = draws
        self._stream = Stream(seed)

    def judge(self, x: Tensor, y: Tensor, *, strict: bool = True) -> Judgement:
        """Classify images x (n, c, h, w) in [0,1] and compare with labels y (n,).

        Raises BadModel when the model is in training mode, its logits are not (n, k), or, with `strict`, not finite.
        """
        check_mode(self.model)
        with torch.no_grad(), self._stream:
            draws = [
                torch.cat([self.model(part).float() for part in x.float().split(self.batch_size)])
                for _ in range(self.draws)
            ]
        for logits in draws:
            check_shape(logits, len(x))
            if strict:
                check_finite(logits)
        valid = torch.stack([torch.isfinite(logits).all(1) for logits in draws]).all(0)
        hits = torch.stack([logits.argmax(1) == y for logits in draws]).float().mean(0)
        hits = hits.masked_fill(~valid, float("nan"))
        return Judgement(draws[0].argmax(1), (hits >= 0.5) | ~valid, hits, draws[0], valid)


def check_mode(model: nn.Module) -> None:
    """Raise BadModel when `model` or a part of it is in training mode."""
    training = [name or "the model itself" for name, part in model.named_modules() if part.training]
    if training:
        raise BadModel(
            f"the model is in training mode ({training[0]}), expected evaluation mode; call model.eval() before the audit"
        )


def check_logits(logits: Tensor, n: int) -> None:
    """Raise BadModel unless logits are finite and of shape (n, k) with k >= 2."""
    check_shape(logits, n)
    check_finite(logits)


def check_shape(logits: Tensor, n: int) -> None:
    if logits.ndim != 2 or logits.shape[0] != n or logits.shape[1] < 2:
        raise BadModel(f"the model returned shape {tuple(logits.shape)} for {n} images, expected ({n}, classes)")


def check_finite(logits: Tensor) -> None:
    bad = int((~torch.isfinite(logits)).any(1).sum())
    if bad:
        raise BadModel(
            f"the model returned NaN or infinite logits for {bad} of {len(logits)} images, expected finite numbers; check the weights"
        )
