"""What the units of a run directory say together, as numpy arrays and plain numbers. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.ledger import Arrays, Ledger
from audit.plan import Plan, read_plan
from audit.types import Step

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class StepResult:
    """One step over all its shards. Boolean arrays have shape (n,), indexed by image.

    attacked; broken (an adversarial image was verified, returned or harvested on the way); returned (the image that
    the attack itself returned is adversarial); errors. `alive_after` is what no step up to this one has broken.
    """

    step: Step
    attacked: Bools
    broken: Bools
    returned: Bools
    errors: Bools
    alive_after: Bools
    forwards: int
    backwards: int
    seconds: float
    messages: tuple[str, ...]
    traces: tuple[NDArray[np.float32], ...]
    done: bool

    @property
    def silent(self) -> Bools:
        """Images that the attack passed through as adversarial and did not return."""
        return self.broken & ~self.returned


@dataclass(frozen=True)
class Results:
    """A run as read back from its directory."""

    plan: Plan
    correct: Bools
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    logits: NDArray[np.float32]
    steps: tuple[StepResult, ...]
    missing: int
    checks: Mapping[str, Any]

    @property
    def counted(self) -> tuple[StepResult, ...]:
        """The steps that have a say in the accuracy: all but controls."""
        return tuple(r for r in self.steps if r.step.scope != "control")

    @property
    def claimed(self) -> tuple[StepResult, ...]:
        """The claimed attacks that have run on all their images; one that crashed on every image measures nothing."""
        ran = (r for r in self.steps if r.done and (r.attacked & ~r.errors).any())
        return tuple(r for r in ran if r.step.suite == "claimed")

    @property
    def survives_claimed(self) -> Bools:
        """Correct, and returned unbroken by each attack the claim was made with (harvested images do not count).

        An image on which one of them crashed did not survive it: nobody knows.
        """
        alive = self.correct.copy()
        for result in self.claimed:
            alive &= ~result.returned & ~result.errors
        return alive

    @property
    def survives_all(self) -> Bools:
        """The worst case per image over everything that ran, harvested images included."""
        alive = self.correct.copy()
        for result in self.counted:
            alive &= ~result.broken
        return alive

    @property
    def unknown(self) -> Bools:
        """Images that nothing broke but on which at least one counted step crashed."""
        failed = np.zeros_like(self.correct)
        for result in self.counted:
            failed |= result.errors
        return failed & self.survives_all

    def named(self, *names: str) -> tuple[StepResult, ...]:
        return tuple(r for r in self.steps if r.step.name in names and r.done)


def read_results(run_dir: Path) -> Results:
    """Read a run directory, finished or not. Raises PlanMismatch when it is none."""
    plan = read_plan(run_dir)
    n, ledger = plan.n, Ledger(run_dir, plan.fingerprint)
    correct, prediction, label = np.zeros(n, bool), np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    logits = np.full((n, int(plan.profile["classes"])), np.nan, np.float32)
    missing = 0
    found: dict[int, list[tuple[Arrays, dict[str, Any]]]] = {i: [] for i in range(len(plan.steps))}
    lacking = dict.fromkeys(found, 0)
    for unit in plan.units():
        stored = ledger.read(unit.name)
        if stored is None:
            missing += 1
            if unit.step is not None:
                lacking[unit.step] += 1
        elif unit.step is None:
            ids = stored[0]["ids"]
            correct[ids], prediction[ids] = stored[0]["correct"], stored[0]["prediction"]
            logits[ids], label[ids] = stored[0]["logits"], stored[0]["label"]
        else:
            found[unit.step].append(stored)
    alive, steps = correct.copy(), []
    for number, step in enumerate(plan.steps):
        result = _step_result(step, found[number], alive, done=lacking[number] == 0)
        alive = result.alive_after
        steps.append(result)
    return Results(plan, correct, label, prediction, logits, tuple(steps), missing, _checks(run_dir))


def _step_result(step: Step, units: list[tuple[Arrays, dict[str, Any]]], alive: Bools, *, done: bool) -> StepResult:
    masks = {name: np.zeros_like(alive) for name in ("attacked", "broken", "returned_broken", "error")}
    for arrays, _ in units:
        ids = arrays["ids"]
        masks["attacked"][ids] = True
        for name in ("broken", "returned_broken", "error"):
            masks[name][ids] = arrays[name]
    return StepResult(
        step, masks["attacked"], masks["broken"], masks["returned_broken"], masks["error"],
        alive if step.scope == "control" else alive & ~masks["broken"],
        sum(int(a["forwards"].sum()) for a, _ in units), sum(int(a["backwards"].sum()) for a, _ in units),
        sum(float(meta["seconds"]) for _, meta in units),
        tuple(str(meta["error"]) for _, meta in units if meta["error"]),
        tuple(a["trace"] for a, _ in units if len(a["trace"])), done,
    )  # fmt: skip


def _checks(run_dir: Path) -> Mapping[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run_dir / "checks.json").read_text())
    except (OSError, ValueError):
        return {}
    return found
