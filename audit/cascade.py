"""Steps that attack what the steps before them have left, as the parts of AutoAttack do. Torch-free.

A claimed attack runs to its end, and only the image that it returns counts. So its later parts cannot be "survivors",
who are spared by any adversarial image that any step met: they name in `Step.after` the parts before them, and attack
the images of which none of these returned a success. Success is what the attack itself sees: the bare network's answer
where the images are made on it, as in the papers' transfer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from audit.ledger import Arrays

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


def held(arrays: Arrays) -> Bools:
    """Which images (n,) of a stored unit the returned one did not break: a crash breaks none."""
    if "p_base" in arrays:
        stands: Bools = ~(arrays["p_base"] < 0.5)
        return stands
    return ~arrays["returned_broken"].astype(bool)


def left_by(names: Sequence[str], standing: Mapping[str, Bools]) -> Bools | None:
    """What all the named steps attacked and left, of `standing` (n,) by step; None when none of them is there."""
    known = [standing[name] for name in names if name in standing]
    return np.logical_and.reduce(known) if known else None


def carried(names: Sequence[str], fallen: Mapping[str, Bools], figures: Mapping[str, Floats], clean: Floats) -> Floats:
    """P(correct) before the last part of a cascade runs: float32 (n,).

    For an image that one of the named steps broke (`fallen`), the figure of the first that did; else `clean`.
    """
    found = clean.copy()
    for name in reversed(names):
        if name in figures:
            found = np.where(fallen[name], figures[name], found)
    return found
