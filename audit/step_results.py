"""What one step of a plan did to each image, put together from the units of its shards. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.cascade import carried, held
from audit.ledger import Arrays
from audit.types import Step

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
VIEWS = ("returned", "first", "lowest", "base")


@dataclass(frozen=True)
class StepResult:
    """One step over all its shards. Arrays have shape (n,), indexed by image.

    attacked; broken (an adversarial image was verified, returned or harvested on the way); returned (the image that
    the attack itself returned is adversarial); errors (it failed on them and nothing it met broke them); crashed (it
    failed on them, so nobody knows what it would have returned). `p_after` is P(correct) of the worst image of each
    up to and with this step, scored on draws that chose nothing; `p_own` that of this step's image alone. `views`:
    P(correct) of what the attack left behind, by kind: "returned"; and where it saw the bare network only, "first",
    "lowest" and "base" (the bare network's own answer); an image that was not attacked has its clean value, or that
    of the part of its cascade that broke it (then in `p_own` too). `fallen`: the returned image broke the model that
    the attack saw. `nearest`: the distance of the nearest adversarial image that a least-norm attack returned, 0 for
    a misclassified image, infinite where it found none, NaN where it was not asked; all NaN for other attacks.
    """

    step: Step
    attacked: Bools
    broken: Bools
    returned: Bools
    errors: Bools
    crashed: Bools
    fallen: Bools
    p_after: Floats
    p_own: Floats
    views: Mapping[str, Floats]
    nearest: Floats
    forwards: int
    backwards: int
    seconds: float
    messages: tuple[str, ...]
    traces: tuple[NDArray[np.float32], ...]
    done: bool

    @property
    def alive_after(self) -> Bools:
        """What no step up to this one has broken."""
        return self.p_after >= 0.5

    @property
    def silent(self) -> Bools:
        """Images that the attack passed through as adversarial and did not return."""
        return self.broken & ~self.returned


def start_of(
    step: Step, before: Sequence[StepResult], p_clean: Floats, clean: Mapping[str, Floats]
) -> dict[str, Floats]:
    """What the figures of a step are for an image that it did not attack, by view, and under "own" for its `p_own`."""
    parts = {r.step.name: r for r in before if r.step.name in step.after}
    fallen = {name: r.fallen for name, r in parts.items()}
    start = dict(clean)
    for view in {view for r in parts.values() for view in r.views}:
        figures = {name: r.views[view] for name, r in parts.items() if view in r.views}
        start[view] = carried(step.after, fallen, figures, clean.get(view, p_clean))
    return {**start, "own": carried(step.after, fallen, {name: r.p_own for name, r in parts.items()}, p_clean)}


def step_result(
    step: Step, units: list[tuple[Arrays, dict[str, Any]]], p_after: Floats, p_clean: Floats,
    clean: Mapping[str, Floats], *, done: bool,
) -> StepResult:  # fmt: skip
    names = ("broken", "returned_broken", "error", "crashed")
    masks = {name: np.zeros(len(p_after), bool) for name in ("attacked", "fallen", *names)}
    views = {name: clean[name].copy() for name in VIEWS if step.after and name in clean}
    own, nearest = clean["own"].copy(), np.where(p_clean < 0.5, np.float32(0), np.float32("nan"))
    for arrays, _ in units:
        ids = arrays["ids"]
        nearest[ids] = arrays.get("nearest", np.float32("nan"))  # run directories of release 0.1.0 lack it
        masks["attacked"][ids], masks["fallen"][ids] = True, ~held(arrays)
        for name in names:
            masks[name][ids] = arrays[name]
        own[ids] = np.fmin(own[ids], arrays["p"])
        for name in VIEWS:
            if f"p_{name}" in arrays:
                view = views.setdefault(name, clean.get(name, p_clean).copy())
                view[ids] = np.where(np.isnan(arrays[f"p_{name}"]), view[ids], arrays[f"p_{name}"])
    return StepResult(
        step, masks["attacked"], masks["broken"], masks["returned_broken"], masks["error"],
        masks["crashed"], masks["fallen"], p_after, own, views, nearest,
        sum(int(a["forwards"].sum()) for a, _ in units), sum(int(a["backwards"].sum()) for a, _ in units),
        sum(float(meta["seconds"]) for _, meta in units),
        tuple(str(meta["error"]) for _, meta in units if meta["error"]),
        tuple(a["trace"] for a, _ in units if len(a["trace"])), done,
    )  # fmt: skip
