"""Running one attack of foreign code: what it gives back, or what it raised, as data.

The `except Exception` at a unit's boundary is here: a crash becomes an error on the images it hit, and is never robustness.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adapters.probe import AllBroken, Probe
from audit import registry
from audit.attacks.common import checked
from audit.errors import AuditError
from audit.gates import adapt
from audit.geometry import project
from audit.rng import derive_seed
from audit.types import Step, ThreatModel

log = logging.getLogger("audit")
NEARBY = 0.1
TRIES = 8  # that an image which is wrong in half of the passes is let alone each time has a chance of 1 in 256


@dataclass(frozen=True)
class Returned:
    """What an attack gave back; no images where it ended early or failed. minimal: it looked for the nearest ones."""

    images: Tensor | None = None
    minimal: bool = False
    error: str | None = None


def adapted(model: nn.Module, step: Step) -> tuple[nn.Module, Returned | None]:
    """The model as the step sees it; where an adapter cannot take it, the model itself and a failed attack."""
    try:
        return adapt(model, step.adapters), None
    except Exception as error:
        log.exception("%s: its adapters failed", step.name)
        return model, Returned(error=f"{type(error).__name__}: {error}")


def call(step: Step, probe: Probe, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> Returned:
    """Run a step's attack on a probe. What it raises is kept as a sentence: a crash is for the caller to count."""
    try:
        attack = registry.attacks.load(step.attack)
        with warnings.catch_warnings(record=True) as said:  # a library's warning is for the log, and stops no attack
            warnings.simplefilter("always")
            found = attack(probe, x, y, threat, seed=seed, **step.params)
        for message in {str(warning.message) for warning in said}:
            log.info("%s warned: %s", step.name, message)
        return Returned(
            checked(step.attack, found, x), attack.kind == "minimal"
        )  # third parties need not use our wrapper
    except AllBroken:
        return Returned()
    except Exception as error:
        if isinstance(error, AuditError):
            log.warning("%s: %s", step.name, error)
        else:
            log.exception("%s failed", step.name)
        return Returned(error=f"{type(error).__name__}: {error}")


def insist(
    step: Step, probe: Probe, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, returned: Returned
) -> Returned:
    """Attack again, from a place nearby, what a random defense had wrong by chance when the attack began.

    APGD lets such images alone, so they come back as they were, right as often as not; `probe.fooled` tells them from
    those that withstood. A place nearby has other draws, where those of one image are always the same (`adapters.eot`).
    """
    images = returned.images
    for number in range(1, TRIES):
        if images is None or returned.error:
            break
        rows = ((images == x).flatten(1).all(1) & probe.fooled).nonzero().flatten()
        if not len(rows):
            break
        start = _nearby(x[rows], threat, derive_seed(seed, "again", number))
        more = call(step, probe, start, y[rows], threat, derive_seed(seed, "once more", number))
        if more.images is None:  # all fell on the way, which the probe has kept, or the attack failed
            return replace(returned, images=images, error=more.error)
        moved = (more.images != start).flatten(1).any(1)
        images = images.index_copy(0, rows[moved], more.images[moved].to(images.dtype))
    return replace(returned, images=images)


def _nearby(x: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Images (n, c, h, w) moved by noise of up to a tenth of the box's width in each pixel, inside the ball."""
    dice = torch.Generator().manual_seed(seed)
    noise = torch.rand(x.shape, generator=dice).to(x)
    return project((x + NEARBY * (2 * noise - 1)).clamp(*threat.bounds), x, threat)
