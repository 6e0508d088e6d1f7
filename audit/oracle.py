"""The only judge of "adversarial": the untouched, deployed defense, in float32, without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audit.errors import BadModel
from audit.rng import Stream


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the deployed defense says of n images.

    prediction: int64 (n,), of the first draw; correct: bool (n,), true where at least half of the draws are
    right; p_correct: float32 (n,), the share of draws that are right; logits: float32 (n, k), of the first draw.
    """

    prediction: Tensor
    correct: Tensor
    p_correct: Tensor
    logits: Tensor


class Oracle:
    """Judges images with `model`, in batches, with fresh randomness of its own.

    draws: forward passes per image (more than one only for stochastic defenses).
    """

    def __init__(self, model: nn.Module, *, batch_size: int, seed: int, draws: int = 1) -> None:
        self.model = model
        self.batch_size = batch_size
        self.draws = draws
        self._stream = Stream(seed)

    def judge(self, x: Tensor, y: Tensor) -> Judgement:
        """Classify images x (n, c, h, w) in [0,1] and compare with labels y (n,).

        Raises BadModel when the model is in training mode, or its logits are not finite or not (n, k).
        """
        check_mode(self.model)
        with torch.no_grad(), self._stream:
            draws = [
                torch.cat([self.model(part).float() for part in x.float().split(self.batch_size)])
                for _ in range(self.draws)
            ]
        for logits in draws:
            check_logits(logits, len(x))
        hits = torch.stack([logits.argmax(1) == y for logits in draws]).float().mean(0)
        return Judgement(draws[0].argmax(1), hits >= 0.5, hits, draws[0])


def check_mode(model: nn.Module) -> None:
    """Raise BadModel when `model` or a part of it is in training mode."""
    training = [name or "the model itself" for name, part in model.named_modules() if part.training]
    if training:
        raise BadModel(
            f"the model is in training mode ({training[0]}), expected evaluation mode; call model.eval() before the audit"
        )


def check_logits(logits: Tensor, n: int) -> None:
    """Raise BadModel unless logits are finite and of shape (n, k) with k >= 2."""
    if logits.ndim != 2 or logits.shape[0] != n or logits.shape[1] < 2:
        raise BadModel(f"the model returned shape {tuple(logits.shape)} for {n} images, expected ({n}, classes)")
    bad = int((~torch.isfinite(logits)).any(1).sum())
    if bad:
        raise BadModel(
            f"the model returned NaN or infinite logits for {bad} of {n} images, expected finite numbers; check the weights"
        )
