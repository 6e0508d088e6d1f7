"""The margin of a classification: how far the best wrong class is ahead of the label. Attacks, losses and judges share it."""

from __future__ import annotations

from torch import Tensor


def margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The largest other logit minus the label's, of logits (n, k) and labels (n,): (n,). Positive: misclassified.

    It never saturates (Carlini and Wagner 2017, Sec. V-A, f6). NaN where a logit is.
    """
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], float("-inf")).amax(1) - own
