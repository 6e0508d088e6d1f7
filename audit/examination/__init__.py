"""What is measured of a model before any attack, on a small sample, so that diagnoses need not guess.

Each measurement is a function of its own; all work on a borrowed copy and leave the model as it was. The results are
plain JSON and become part of the run's profile.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from audit.examination.borrowed import borrowed
from audit.examination.cuts import cuts
from audit.examination.draws import repeats, signal
from audit.examination.dynamic import dynamic
from audit.examination.losses import margin
from audit.rng import Stream, derive_seed
from audit.types import ThreatModel

SAMPLE = 64
FEW = 8
PASSES = 6  # over a random model: an ensemble of three hides one member from six passes in a quarter of the cases

__all__ = ["SAMPLE", "borrowed", "cuts", "dynamic", "examine", "repeats", "signal"]


def examine(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> dict[str, Any]:
    """Examine `model` on up to 64 images x (n, c, h, w) in [0,1] with labels y (n,): plain JSON.

    threat: the ball in which an attack may move; seed: of the defense's own randomness and of every random choice here.
    The keys are those of the measurements: `repeats`, `dynamic`, `cuts`, `signal`.
    """
    x, y = x[:SAMPLE], y[:SAMPLE]
    found: dict[str, Any] = {"examined": len(x)}
    with borrowed(model) as twin:
        found |= repeats(twin, x, y, seed=derive_seed(seed, "repeats"))
        with Stream(derive_seed(seed, "dynamic")):
            found |= dynamic(twin, x[:FEW])
        passes = 1 if found["repeats_difference"] == 0 else PASSES
        found |= cuts(twin, x, y, seed=derive_seed(seed, "cuts"), passes=passes)
        found |= signal(twin, x, y, margin, seed=derive_seed(seed, "signal"))
    return found
