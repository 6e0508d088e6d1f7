"""Runs the units of a plan that the ledger lacks, and nothing else.

In a unit: adapters -> probe -> attack -> projection -> Oracle -> ledger. The only `except Exception` of the project
that goes on is here, at the unit's boundary: a crash becomes `error` on the images it hit, and is never robustness.
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

from adapters.probe import AllBroken, Probe
from audit import registry
from audit.attacks.common import checked
from audit.errors import AuditError, BadModel
from audit.gates import adapt, deterministic
from audit.geometry import distance, project
from audit.ledger import Arrays, Ledger
from audit.oracle import Oracle
from audit.plan import Plan, Unit
from audit.rng import Stream, derive_seed
from audit.types import Step, ThreatModel

log = logging.getLogger("audit")
TRACE_POINTS = 200


class Watcher(Protocol):
    """What a display implements. All calls come from the engine's own thread."""

    def begin(self, unit: Unit, images: int) -> None: ...
    def beat(self, forwards: int) -> None: ...
    def end(self, unit: Unit, arrays: Arrays, meta: dict[str, Any]) -> None: ...


class Engine(Protocol):
    """Executes a plan's missing units and stores each in the ledger."""

    def run(self, watcher: Watcher) -> None: ...


@dataclass(frozen=True)
class Target:
    """The deployed defense and the images it is judged on, on one device."""

    model: nn.Module
    x: Tensor
    y: Tensor
    traits: frozenset[str]


class LocalEngine:
    """One process, one unit after the other, in the plan's order."""

    def __init__(self, plan: Plan, target: Target, ledger: Ledger) -> None:
        self.plan, self.target, self.ledger = plan, target, ledger
        self.replay = deterministic(plan.profile, target.traits)
        self.alive: NDArray[np.bool_] = np.zeros(plan.n, dtype=bool)
        self.correct = self.alive.copy()

    def run(self, watcher: Watcher) -> None:
        for unit in self.plan.units():
            stored = self.ledger.read(unit.name)
            if stored is None:
                watcher.begin(unit, self._size(unit))
                started = time.perf_counter()
                arrays, meta = self._clean(unit) if unit.step is None else self._attack(unit, watcher)
                meta |= {"unit": unit.name, "seconds": time.perf_counter() - started}
                self.ledger.write(unit.name, arrays, meta)
                log.info("%s: %s", unit.name, meta)
                stored = arrays, meta
            self._account(unit, stored[0])
            watcher.end(unit, *stored)

    def _account(self, unit: Unit, arrays: Arrays) -> None:
        if unit.step is None:
            self.correct[arrays["ids"]] = self.alive[arrays["ids"]] = arrays["correct"]
        elif self.plan.steps[unit.step].scope != "control":
            self.alive[arrays["ids"][arrays["broken"]]] = False

    def _size(self, unit: Unit) -> int:
        return len(self.plan.rows(unit.shard)) if unit.step is None else len(self._rows(unit))

    def _rows(self, unit: Unit) -> NDArray[np.int64]:
        """Indices of the images that a step attacks in a shard."""
        assert unit.step is not None
        step = self.plan.steps[unit.step]
        pool = self.alive if step.scope == "survivors" else self.correct
        shard = np.arange(self.plan.n)[slice(*_bounds(self.plan.rows(unit.shard)))]
        return shard[pool[shard]][: step.limit]

    def _oracle(self, *name: object) -> Oracle:
        seed = derive_seed(self.plan.seed, "oracle", *name)
        return Oracle(self.target.model, batch_size=self.plan.shard_size, seed=seed)

    def _clean(self, unit: Unit) -> tuple[Arrays, dict[str, Any]]:
        rows = np.asarray(self.plan.rows(unit.shard), dtype=np.int64)
        judged = self._oracle(unit.name).judge(self.target.x[rows], self.target.y[rows])
        return {
            "ids": rows,
            "label": self.target.y[rows].cpu().numpy(),
            "prediction": judged.prediction.cpu().numpy(),
            "correct": judged.correct.cpu().numpy(),
            "p_correct": judged.p_correct.cpu().numpy(),
            "logits": judged.logits.cpu().numpy(),
        }, {}

    def _attack(self, unit: Unit, watcher: Watcher) -> tuple[Arrays, dict[str, Any]]:
        assert unit.step is not None
        step, rows = self.plan.steps[unit.step], self._rows(unit)
        threat = self.plan.threat if step.eps is None else ThreatModel(self.plan.threat.norm, step.eps)
        seed = derive_seed(self.plan.seed, step.name, unit.shard)
        x, y = self.target.x[rows], self.target.y[rows]
        oracle = self._oracle(unit.name)
        probe = Probe(
            adapt(self.target.model, step.adapters), x, y, threat,
            stream=Stream(derive_seed(seed, "defense")),
            confirm=lambda images, who: ~oracle.judge(images, y[who]).correct,
            stop_early=step.scope != "all", replay=self.replay,
            beat=lambda: watcher.beat(int(probe.forwards.sum())),
        )  # fmt: skip
        candidate, error = _call(step, probe, x, y, threat, seed) if len(rows) else (None, None)
        try:
            arrays = _judge(oracle, probe, candidate, x, y, threat)
        except BadModel as refused:  # NaN logits on an adversarial candidate: unknown, not robust
            error = f"{error}; {refused}" if error else str(refused)
            probe.best_margin.fill_(float("inf"))
            arrays = _judge(oracle, probe, None, x, y, threat)
        arrays["error"] = np.full(len(rows), error is not None) & ~arrays["broken"]
        arrays["ids"] = rows
        return arrays, {"step": step.name, "shard": unit.shard, "seed": seed, "error": error}


def _bounds(rows: range) -> tuple[int, int]:
    return rows.start, rows.stop


def _call(
    step: Step, probe: Probe, x: Tensor, y: Tensor, threat: ThreatModel, seed: int
) -> tuple[Tensor | None, str | None]:
    """What the attack returned (None when it ended early or failed) and the error, if any."""
    try:
        found = registry.attacks.load(step.attack)(probe, x, y, threat, seed=seed, **step.params)
        return checked(step.attack, found, x), None  # third parties need not use our wrapper
    except AllBroken:
        return None, None
    except Exception as error:
        if isinstance(error, AuditError):
            log.warning("%s: %s", step.name, error)
        else:
            log.exception("%s failed", step.name)
        return None, f"{type(error).__name__}: {error}"


def _judge(oracle: Oracle, probe: Probe, candidate: Tensor | None, x: Tensor, y: Tensor, threat: ThreatModel) -> Arrays:
    """Let the Oracle decide, on the returned images first, then on the best query of what they did not break."""
    final = x.clone() if candidate is None else project(candidate, x, threat)
    prediction, broken = y.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if candidate is not None:
        judged = oracle.judge(final, y)
        prediction, broken = judged.prediction, ~judged.correct
    returned = broken if candidate is None else broken.clone()  # nothing returned: what it met on the way counts
    harvest = ((probe.best_margin < 0) & ~broken).nonzero().flatten()
    if len(harvest):
        found = project(probe.best_query[harvest], x[harvest], threat)
        judged = oracle.judge(found, y[harvest])
        good = harvest[~judged.correct]
        broken[good] = True
        final[good], prediction[good] = found[~judged.correct], judged.prediction[~judged.correct]
    return {
        "broken": broken.cpu().numpy(),
        "returned_broken": returned.cpu().numpy(),
        "prediction": prediction.cpu().numpy(),
        "distance": distance(final, x, threat.norm).cpu().numpy() if len(x) else np.zeros(0, np.float32),
        "x_adv": final[broken].cpu().numpy(),
        "forwards": probe.forwards.numpy(),
        "backwards": probe.backwards.numpy(),
        "trace": _thin(probe.trace),
    }


def _thin(trace: Sequence[tuple[float, ...]]) -> NDArray[np.float32]:
    """At most 200 evenly spaced rows of (CE, margin, broken, share of zero gradients, median gradient norm)."""
    rows = np.asarray(trace, dtype=np.float32).reshape(-1, 5)
    points = np.linspace(0, len(rows) - 1, TRACE_POINTS) if len(rows) else np.zeros(0)
    kept: NDArray[np.float32] = rows[np.unique(points.round().astype(int))]
    return kept
