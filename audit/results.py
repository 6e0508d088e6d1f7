"""What the units of a run directory say together, as numpy arrays and plain numbers. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.errors import PlanMismatch
from audit.ledger import Arrays, Ledger
from audit.plan import Plan, read_plan
from audit.step_results import Bools, Floats, StepResult, start_of, step_result


@dataclass(frozen=True)
class Results:
    """A run as read back from its directory.

    outside: images that were broken, and each time with an answer that is no class of the images, as a detector's "rejected"
    is: bool (n,); None where the classes are not recorded, or were guessed from the labels that are there.
    """

    plan: Plan
    correct: Bools
    p_clean: Floats
    bare_correct: Bools
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    logits: NDArray[np.float32]
    steps: tuple[StepResult, ...]
    missing: int
    checks: Mapping[str, Any]
    outside: Bools | None = None

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
            alive &= ~result.returned & ~result.crashed
        return alive

    @property
    def survives_all(self) -> Bools:
        """The worst case per image over everything that ran, harvested images included."""
        alive = self.correct.copy()
        for result in self.counted:
            alive &= ~result.broken
        return alive

    @property
    def p_worst(self) -> Floats:
        """P(correct) of the worst image of each over everything that ran: float32 (n,)."""
        return self.steps[-1].p_after if self.steps else self.p_clean

    @property
    def p_claimed(self) -> Floats:
        """P(correct) under the attacks that the claim was made with, as `worst_of` has it: float32 (n,).

        An image on which one of them crashed counts as lost.
        """
        if self.plan.draws == 1:
            return self.survives_claimed.astype(np.float32)
        return self._lowest_claimed(np.zeros_like(self.p_clean))

    @property
    def p_claimed_at_most(self) -> Floats:
        """`p_claimed`, were every image on which a claimed attack crashed as good as clean: float32 (n,)."""
        return self._lowest_claimed(self.p_clean)

    def _lowest_claimed(self, crashed: Floats) -> Floats:
        """crashed: what counts for an image on which the attack crashed."""
        found = [np.where(r.crashed, crashed, r.views.get("returned", r.p_own)) for r in self.claimed]
        return self.worst_of(found) if found else self.p_clean

    def worst_of(self, figures: Sequence[Floats]) -> Floats:
        """The worst case over P(correct) under several attacks, at least one, each float32 (n,).

        Per image; of a random defense the figures of the lowest attack, because a minimum over noisy shares would be too
        low.
        """
        if self.plan.draws > 1:
            return min(figures, key=lambda p: float(p.mean()))
        worst: Floats = np.minimum.reduce(figures)
        return worst

    @property
    def p_base(self) -> Floats | None:
        """What the images leave of the bare network's accuracy; None without a test-time part."""
        found = [r.views["base"] for r in self.counted if "base" in r.views and r.done]
        return np.minimum.reduce([self.bare_correct.astype(np.float32), *found]) if found else None

    @property
    def unknown(self) -> Bools:
        """Images that nothing broke but on which at least one counted step crashed; a trial may crash."""
        failed = np.zeros_like(self.correct)
        for result in self.counted:
            if result.step.scope != "trial":
                failed |= result.errors
        return failed & self.survives_all

    def named(self, *names: str) -> tuple[StepResult, ...]:
        return tuple(r for r in self.steps if r.step.name in names and r.done)


def read_results(run_dir: Path) -> Results:
    """Read a run directory, finished or not. Raises PlanMismatch when it is none."""
    plan = read_plan(run_dir)
    checks = _checks(run_dir)
    if checks.get("rounds", len(plan.rounds)) != len(plan.rounds):
        why = f"ran {checks['rounds']} rounds, its rounds.json has {len(plan.rounds)}"
        raise PlanMismatch(f"{run_dir} {why}; restore the file")
    n, ledger = plan.n, Ledger(run_dir, plan.fingerprint)
    correct, prediction, label = np.zeros(n, bool), np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    p_clean, bare_correct = np.zeros(n, np.float32), np.zeros(n, bool)
    best = p_clean.copy()
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
            p_clean[ids], best[ids] = stored[0]["p"], stored[0]["p_select"]
            bare_correct[ids] = stored[0]["bare_correct"]
            logits[ids], label[ids] = stored[0]["logits"], stored[0]["label"]
        else:
            found[unit.step].append(stored)
    running, steps = p_clean.copy(), list[StepResult]()
    clean = {"base": bare_correct.astype(np.float32)}
    for number, step in enumerate(plan.steps):
        for arrays, _ in found[number] if step.scope != "control" else ():
            ids = arrays["ids"]
            lower = arrays["p_select"] < best[ids]  # false for NaN
            best[ids[lower]], running[ids[lower]] = arrays["p_select"][lower], arrays["p"][lower]
        start = start_of(step, steps, p_clean, clean)
        steps.append(step_result(step, found[number], running.copy(), p_clean, start, done=lacking[number] == 0))
    units = [unit for number, step in enumerate(plan.steps) if step.scope != "control" for unit in found[number]]
    classes = 0 if plan.runtime.get("classes_guessed") else len(plan.runtime.get("classes", ()))
    outside = _outside(classes, n, [arrays for arrays, _ in units])
    return Results(
        plan, correct, p_clean, bare_correct, label, prediction, logits, tuple(steps), missing, checks, outside
    )


def _outside(classes: int, n: int, units: Sequence[Arrays]) -> Bools | None:
    """See `Results.outside`; classes: how many the images have, 0 where nobody recorded it."""
    if not classes or not all("prediction" in arrays for arrays in units):
        return None
    fell, inside = np.zeros(n, bool), np.zeros(n, bool)
    for arrays in units:
        ids, broken = arrays["ids"], arrays["broken"]
        fell[ids] |= broken
        inside[ids] |= broken & (arrays["prediction"] < classes)
    return fell & ~inside


def _checks(run_dir: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((run_dir / "checks.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
