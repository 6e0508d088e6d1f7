"""Was the model trained on images in another range than [0,1]? Asked of it directly, for the clean accuracy handshake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from audit.examination.structure import right_answers
from audit.rng import Stream

RANGES: Mapping[str, tuple[float, float]] = {"0,255": (0.0, 255.0), "-1,1": (-1.0, 1.0)}


def other_ranges(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> dict[str, Any]:
    """Key right_in_range: {range: share of images x (n, c, h, w) in [0,1] with labels y (n,) that a borrowed `model`
    classifies rightly once they are stretched to it}; None for a range that the model does not take.
    """
    stream, found = Stream(seed), dict[str, float | None]()
    for name, (low, high) in RANGES.items():
        right = right_answers(model, low + (high - low) * x, y, stream)
        found[name] = None if right < 0 else right / len(x)
    return {"right_in_range": found}
