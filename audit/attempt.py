"""Running one attack of foreign code: what it gives back, or what it raised, as data.

The `except Exception` at a unit's boundary is here: a crash becomes an error on the images it hit, and is never robustness.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

from torch import Tensor, nn

from adapters.probe import AllBroken, Probe
from audit import registry
from audit.attacks.common import checked
from audit.errors import AuditError
from audit.gates import adapt
from audit.types import Step, ThreatModel

log = logging.getLogger("audit")


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
