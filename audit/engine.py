"""Runs the units of a plan that the ledger lacks, and nothing else.

In a unit: adapters -> probe -> attack -> projection -> Oracle -> ledger. What an attack raises becomes `error` on the images
it hit (`audit.attempt`), and is never robustness.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adapters.probe import Probe
from audit.attempt import Returned, adapted, call, insist
from audit.budget import Budget
from audit.cascade import held, left_by
from audit.court import DONE, Bench, Court, judge_attack, keep_worst
from audit.gates import bare_network
from audit.ledger import Arrays, Ledger
from audit.oracle import Oracle
from audit.plan import Plan, Unit
from audit.randomness import deterministic
from audit.rng import Stream, derive_seed
from audit.types import SELECTION_DRAWS, Step, ThreatModel

log = logging.getLogger("audit")
TRACE_POINTS = 200


class Watcher(Protocol):
    """What a display implements. All calls come from the engine's own thread."""

    def begin(self, unit: Unit, images: int) -> None: ...
    def beat(self, forwards: int) -> None: ...
    def end(self, unit: Unit, arrays: Arrays, meta: dict[str, Any]) -> None: ...
    def extend(self, plan: Plan) -> None:
        """A round was decided: the plan has more steps."""


class Engine(Protocol):
    """Executes a plan's missing units and stores each in the ledger."""

    def run(self, watcher: Watcher, *, early: bool = False) -> None: ...
    def extend(self, plan: Plan) -> None: ...


@dataclass(frozen=True)
class Target:
    """The deployed defense and the images it is judged on, on one device."""

    model: nn.Module
    x: Tensor
    y: Tensor
    traits: frozenset[str]


class LocalEngine:
    """One process, one unit after the other, in the plan's order.

    clean, best: P(correct) of each clean image and of its worst image so far, by the selecting draws: float32 (n,).
    standing: for each step, what it attacked without returning a success: bool (n,).
    """

    def __init__(self, plan: Plan, target: Target, ledger: Ledger, budget: Budget | None = None) -> None:
        self.plan, self.target, self.ledger = plan, target, ledger
        self.budget, self._accounted = budget or Budget(), set[str]()
        self.replay = deterministic(plan.profile, target.traits)
        self.best: NDArray[np.float32] = np.zeros(plan.n, np.float32)
        self.clean = self.best.copy()
        self.bare_correct: NDArray[np.bool_] = np.zeros(plan.n, bool)
        self.standing = {step.name: self.bare_correct.copy() for step in plan.steps}
        self.bare = bare_network(target.model) if any(step.transfers for step in plan.steps) else None

    @property
    def alive(self) -> NDArray[np.bool_]:
        """What no step has broken yet: bool (n,)."""
        return self.best > DONE

    def run(self, watcher: Watcher, *, early: bool = False) -> None:
        """Run what is missing, in order, until it is done or the budget is spent. early: stop before the late steps."""
        for unit in self.plan.units():
            if unit.name in self._accounted:
                continue
            if early and unit.step is not None and unit.step >= self.plan.late:
                return
            stored = self.ledger.read(unit.name)
            if stored is None:
                if self.budget.spent:
                    log.info("the budget is spent before unit %s", unit.name)
                    return
                watcher.begin(unit, self._size(unit))
                started = time.perf_counter()
                arrays, meta = self._clean(unit) if unit.step is None else self._attack(unit, watcher)
                meta |= {"unit": unit.name, "seconds": time.perf_counter() - started}
                self.ledger.write(unit.name, arrays, meta)
                log.info("%s: %s", unit.name, meta)
                stored = arrays, meta
            self._account(unit, stored[0])
            self.budget.pay(*stored)
            watcher.end(unit, *stored)

    def extend(self, plan: Plan) -> None:
        """Go on with a plan that has more steps behind the present ones."""
        self.plan = plan
        if self.bare is None and any(step.transfers for step in plan.steps):
            self.bare = bare_network(self.target.model)
        self.standing |= {step.name: np.zeros(plan.n, bool) for step in plan.steps if step.name not in self.standing}

    def _account(self, unit: Unit, arrays: Arrays) -> None:
        ids = arrays["ids"]
        self._accounted.add(unit.name)
        if unit.step is None:
            self.clean[ids] = self.best[ids] = arrays["p_select"]
            self.bare_correct[ids] = arrays["bare_correct"]
            return
        step = self.plan.steps[unit.step]
        self.standing[step.name][ids] = held(arrays)
        if step.scope != "control":
            self.best[ids] = np.fmin(self.best[ids], arrays["p_select"])

    def _size(self, unit: Unit) -> int:
        return len(self.plan.rows(unit.shard)) if unit.step is None else len(self._rows(unit))

    def _rows(self, unit: Unit) -> NDArray[np.int64]:
        """Indices of the images that a step attacks in a shard."""
        assert unit.step is not None
        step = self.plan.steps[unit.step]
        pool = self.alive if step.scope == "survivors" else self.clean > DONE
        if step.transfers and step.scope == "all":
            pool |= self.bare_correct  # the bare network's own row counts these
        if (left := left_by(step.after, self.standing)) is not None:
            pool = left
        chosen = np.flatnonzero(pool)[: step.limit]
        rows = self.plan.rows(unit.shard)
        return chosen[(chosen >= rows.start) & (chosen < rows.stop)]

    def _oracle(self, unit: Unit, stream: str, draws: int, model: nn.Module | None = None) -> Oracle:
        seed = derive_seed(self.plan.seed, "oracle", unit.name, stream)
        return Oracle(model or self.target.model, batch_size=self.plan.shard_size, seed=seed, draws=draws)

    def _bench(self, unit: Unit, rows: NDArray[np.int64]) -> Bench:
        """The draws that score a shard depend on nothing else, so that all its units have the same."""
        shard = self.plan.rows(unit.shard)
        seed = derive_seed(self.plan.seed, "oracle", "score", unit.shard)
        oracle = Oracle(self.target.model, batch_size=self.plan.shard_size, seed=seed, draws=self.plan.draws)
        x, y = (images[shard.start : shard.stop] for images in (self.target.x, self.target.y))
        return Bench(oracle, x, y, torch.from_numpy(rows - shard.start).to(x.device))

    def _court(self, unit: Unit, step: Step | None, rows: NDArray[np.int64]) -> Court:
        random = self.plan.draws > 1
        bare = self.bare if step is None or step.transfers else None
        return Court(
            self._oracle(unit, "select", SELECTION_DRAWS if random else 1),
            self._bench(unit, rows) if random else None,
            None if bare is None else self._oracle(unit, "bare", 1, bare),
        )

    def _clean(self, unit: Unit) -> tuple[Arrays, dict[str, Any]]:
        rows = np.asarray(self.plan.rows(unit.shard), dtype=np.int64)
        x, y, court = self.target.x[rows], self.target.y[rows], self._court(unit, None, rows)
        judged = court.select.judge(x, y)
        scored = judged if court.score is None else court.score.oracle.judge(x, y)
        bare = scored if court.bare is None else court.bare.judge(x, y)
        return {
            "ids": rows,
            "label": y.cpu().numpy(),
            "prediction": judged.prediction.cpu().numpy(),
            "correct": scored.correct.cpu().numpy(),
            "p_select": judged.p_correct.cpu().numpy(),
            "p": scored.p_correct.cpu().numpy(),
            "bare_correct": bare.correct.cpu().numpy(),
            "logits": judged.logits.cpu().numpy(),
        }, {}

    def _attack(self, unit: Unit, watcher: Watcher) -> tuple[Arrays, dict[str, Any]]:
        assert unit.step is not None
        step, rows = self.plan.steps[unit.step], self._rows(unit)
        threat = self.plan.threat if step.eps is None else ThreatModel(self.plan.threat.norm, step.eps)
        seed = derive_seed(self.plan.seed, step.name, unit.shard)
        x, y = self.target.x[rows], self.target.y[rows]
        court = self._court(unit, step, rows)
        seen, refused = adapted(self.target.model, step)
        probe = Probe(
            seen, x, y, threat,
            stream=Stream(derive_seed(seed, "defense")),
            confirm=lambda images, who: court.fooled(images, y[who]),
            stop_early=step.scope != "all", replay=self.replay,
            beat=lambda: watcher.beat(int(probe.forwards.sum())),
        )  # fmt: skip
        returned = refused or (call(step, probe, x, y, threat, seed) if len(rows) else Returned())
        if step.scope == "control" and self.plan.draws > 1:
            returned = insist(step, probe, x, y, threat, seed, returned)
        usable = torch.ones(len(rows), dtype=torch.bool, device=x.device)
        if returned.images is not None:
            usable = torch.isfinite(returned.images).flatten(1).all(1)
        columns = judge_attack(court, probe, returned.images, usable, x, y, threat, minimal=returned.minimal)
        failed = ~usable.cpu().numpy() | columns.pop("unjudged") | (returned.error is not None)
        # What the probe met on the way was not returned. Not in place: the array may be that of "broken".
        columns["returned_broken"] = columns["returned_broken"] & ~failed
        columns = keep_worst(columns, self.best[rows])
        error = returned.error or _why(int((~usable).sum()), int(failed.sum()))
        arrays = {
            **columns,
            "ids": rows,
            "crashed": failed,
            "error": failed & ~columns["broken"],
            "forwards": probe.forwards.numpy(),
            "backwards": probe.backwards.numpy(),
            "trace": _thin(probe.trace),
        }
        return arrays, {"step": step.name, "shard": unit.shard, "seed": seed, "error": error}


def _why(nan_images: int, failed: int) -> str | None:
    if nan_images:
        return f"the attack returned NaN or infinite pixels for {nan_images} images"
    return f"the defense returned NaN or infinite logits for {failed} adversarial candidates" if failed else None


def _thin(trace: Sequence[tuple[float, ...]]) -> NDArray[np.float32]:
    """At most 200 evenly spaced rows of (CE, margin, broken, share of zero gradients, median gradient norm)."""
    rows = np.asarray(trace, dtype=np.float32).reshape(-1, 5)
    points = np.linspace(0, len(rows) - 1, TRACE_POINTS) if len(rows) else np.zeros(0)
    kept: NDArray[np.float32] = rows[np.unique(points.round().astype(int))]
    return kept
