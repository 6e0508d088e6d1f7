"""What is measured of a model before any attack, on a small sample, so that diagnoses need not guess.

Each measurement is a function of its own; all work on a borrowed copy and leave the model as it was. The results are
plain JSON and become part of the run's profile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from audit.examination.behaviour import Memory, batches, rounding, seeded
from audit.examination.borrowed import borrowed
from audit.examination.draws import repeats, signal
from audit.examination.frozen import Frozen
from audit.examination.losses import margin
from audit.examination.nearby import stability
from audit.examination.ranges import other_ranges
from audit.examination.reach import eps_curve, pixel_radius
from audit.examination.slopes import differences
from audit.examination.structure import cuts
from audit.examination.vanishing import gradients
from audit.examination.watched import dynamic
from audit.rng import Stream, derive_seed
from audit.types import ThreatModel

SAMPLE = 64
FEW = 8
PASSES = 6  # over a random model: an ensemble of three hides one member from six passes in a quarter of the cases

__all__ = ["SAMPLE", "borrowed", "cuts", "dynamic", "examine", "repeats", "signal"]


def examine(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> dict[str, Any]:
    """Examine `model` on up to 64 images x (n, c, h, w) in [0,1] with labels y (n,): plain JSON.

    threat: the ball in which an attack may move; seed: of the defense's own randomness and of every random choice here.
    The keys are those of the modules `behaviour`, `draws`, `watched`, `structure`, `vanishing`, `slopes`, `nearby`, `reach`, `ranges`,
    and examined (the number of images). What a model has no answer to (a gradient that is cut, a copy in float64) is
    None.
    """
    x, y = x[:SAMPLE], y[:SAMPLE]
    found = {"examined": len(x), **seeded(model, x, seed=derive_seed(seed, "seeded"))}
    with borrowed(model) as twin, Stream(derive_seed(seed, "examination")):
        memory = Memory(twin, x, seed=derive_seed(seed, "memory"))
        found |= repeats(twin, x, y, seed=derive_seed(seed, "repeats"))
        found |= dynamic(twin, x[:FEW])
        random = found["repeats_difference"] > 0 or found["random_by_seed"]
        found |= cuts(twin, x, y, seed=derive_seed(seed, "cuts"), passes=PASSES if random else 1)
        found |= signal(twin, x, y, margin, seed=derive_seed(seed, "signal"), random=random)
        found |= _around(Frozen(twin, derive_seed(seed, "frozen")), x, y, threat)
        found |= {"batch_difference": None, "batch_flips": None}
        if not random:
            found |= batches(twin, x, seed=derive_seed(seed, "batches"))
        found |= memory.read()
        found |= other_ranges(twin, x, y, seed=derive_seed(seed, "ranges"))
    return found


def _around(ask: Frozen, x: Tensor, y: Tensor, threat: ThreatModel) -> dict[str, Any]:
    """What is measured at the images that are classified rightly, with the model's random numbers held still."""
    with torch.no_grad():
        logits = ask(x)
    right = logits.argmax(1) == y
    found, radius = rounding(logits), pixel_radius(threat, x)
    x, y = x[right], y[right]
    found |= gradients(ask, x, y, radius)
    found |= differences(ask, x, y, radius)
    found |= stability(ask, x, y, radius)
    return found | eps_curve(ask, x, y, threat)
