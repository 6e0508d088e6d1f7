"""The plan of a run: what identifies it, and its units in order.

*Identity* is everything that can change a result; it is hashed into the fingerprint, and a run directory only ever
holds units of one identity. *Runtime* (device, output, command) is recorded and not hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audit.errors import PlanMismatch
from audit.ledger import Ledger, write_json
from audit.rounds import read_rounds
from audit.types import Round, Step, ThreatModel

PLAN_VERSION = 1
CLEAN = "clean"


@dataclass(frozen=True, slots=True)
class Unit:
    """One step on one shard of the images; step None is the clean pass. Its seed is derived from the run's by the engine."""

    step: int | None
    shard: int
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A resolved run. `identity` and `profile` are plain JSON.

    `steps` are the suite with every value filled in, and among them those of the `rounds` that its results asked for.
    """

    identity: Mapping[str, Any]
    steps: tuple[Step, ...]
    profile: Mapping[str, Any]
    runtime: Mapping[str, Any] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ()

    @property
    def suite_steps(self) -> tuple[Step, ...]:
        """The steps that were settled before the first attack."""
        added = {step.name for found in self.rounds for step in found.steps}
        return tuple(step for step in self.steps if step.name not in added)

    @property
    def late(self) -> int:
        """Index of the first late step; the number of steps where there is none."""
        return next((i for i, step in enumerate(self.steps) if step.late), len(self.steps))

    def extended(self, found: Round) -> Plan:
        """The plan with one more round: before the late steps, none of which has run then, or behind all others."""
        place = self.late if found.early else len(self.steps)
        return replace(
            self, steps=(*self.steps[:place], *found.steps, *self.steps[place:]), rounds=(*self.rounds, found)
        )

    @property
    def n(self) -> int:
        return int(self.identity["n"])

    @property
    def seed(self) -> int:
        return int(self.identity["seed"])

    @property
    def shard_size(self) -> int:
        return int(self.identity["batch_size"])

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel(self.identity["norm"], self.identity["eps"])

    @property
    def draws(self) -> int:
        """Fresh draws that score an image: 1 unless the defense is stochastic."""
        return int(self.identity.get("draws", 1))

    @property
    def fingerprint(self) -> str:
        """sha256 of the identity: what was asked for. The records also depend on the device, and on what crashed."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def shards(self) -> int:
        return -(-self.n // self.shard_size)

    def rows(self, shard: int) -> range:
        return range(shard * self.shard_size, min(self.n, (shard + 1) * self.shard_size))

    def clean_units(self) -> list[Unit]:
        return [Unit(None, shard, f"00-{CLEAN}-{shard:04d}") for shard in range(self.shards)]

    def units(self) -> Iterator[Unit]:
        """The clean pass of every shard, then each step over all shards."""
        yield from self.clean_units()
        for number, step in enumerate(self.steps):
            for shard in range(self.shards):
                yield Unit(number, shard, f"{number + 1:02d}-{step.name}-{shard:04d}")

    def to_dict(self) -> dict[str, Any]:
        return {
            "plan_version": PLAN_VERSION, "fingerprint": self.fingerprint, "identity": dict(self.identity),
            "steps": [step.to_dict() for step in self.suite_steps], "profile": dict(self.profile),
            "runtime": dict(self.runtime),
        }  # fmt: skip

    def write(self, run_dir: Path) -> None:
        write_json(run_dir / "plan.json", self.to_dict())


class _Fields(dict[str, Any]):
    """A part of plan.json. A key that is not there is the file's fault: whoever asks for it raises PlanMismatch."""

    def __init__(self, data: Mapping[str, Any], part: str, path: Path) -> None:
        super().__init__(data)
        self._part, self._path = part, path

    def __missing__(self, key: str) -> Any:
        raise PlanMismatch(
            f"{self._path} cannot be read (its {self._part} lacks {key!r}), expected a plan of version {PLAN_VERSION}; "
            "start anew with --out"
        )


def read_plan(run_dir: Path) -> Plan:
    """The plan of a run directory, of which a missing key raises PlanMismatch when it is asked for.

    Raises PlanMismatch when there is none, it cannot be read, or its identity is not the one it was written with.
    """
    path = run_dir / "plan.json"
    try:
        data = json.loads(path.read_text())
        steps = tuple(Step.from_dict(step) for step in data["steps"])
        identity, profile, runtime = (_Fields(data[name], name, path) for name in ("identity", "profile", "runtime"))
        plan = Plan(identity, steps, profile, runtime)
        version, fingerprint = data["plan_version"], data["fingerprint"]
    except FileNotFoundError:
        raise PlanMismatch(
            f"{run_dir} holds no plan.json, expected the directory of an audit; type the path that `run` printed"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanMismatch(
            f"{path} cannot be read ({error!r}), expected a plan of version {PLAN_VERSION}; start anew with --out"
        ) from error
    if version != PLAN_VERSION:
        raise PlanMismatch(f"{path} has plan version {version}, expected {PLAN_VERSION}; start anew with --out")
    if [_unresolved(s) for s in data["steps"]] != [
        _unresolved(s) for s in data["identity"].get("steps", data["steps"])
    ]:
        raise PlanMismatch(
            f"{path} was altered: its steps are not those of its identity; restore it or start anew with --out"
        )
    if fingerprint != plan.fingerprint:
        raise PlanMismatch(
            f"{path} was altered: its identity has fingerprint {plan.fingerprint[:16]}, expected the recorded "
            f"{str(fingerprint)[:16]}; restore the file or start anew with --out"
        )
    for found in read_rounds(run_dir, plan.fingerprint):
        plan = plan.extended(found)
    return plan


def _unresolved(step: Mapping[str, Any]) -> dict[str, Any]:
    """A stored step without the temperature that was measured before the run."""
    adapters = [
        {**a, "params": {k: v for k, v in a["params"].items() if k != "temperature"}} for a in step.get("adapters", ())
    ]
    return {**step, "adapters": adapters}


def differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """Each field in which two identities differ, as `field: on disk -> asked for`."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = sorted({*found, *wanted})
        return [
            line for key in keys for line in differences(found.get(key), wanted.get(key), f"{name}.{key}".strip("."))
        ]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{name}[{i}]")]
    return [] if found == wanted else [f"{name}: {_short(found)} -> {_short(wanted)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def match(on_disk: Plan, asked: Plan, run_dir: Path) -> Plan:
    """The plan to follow in `run_dir`: the one on disk when it has the same identity. Raises PlanMismatch.

    The profile on disk wins, so a resumed run keeps the temperature that its first part used.
    """
    changed = differences(on_disk.to_dict()["identity"], asked.to_dict()["identity"])
    if changed:
        raise PlanMismatch(
            f"{run_dir} holds another plan; it differs in {'; '.join(changed)}; choose another --out or the same settings"
        )
    return on_disk


def settle(asked: Plan, run_dir: Path) -> Plan:
    """Make `run_dir` the directory of a plan, and return the plan to follow there; see `match`.

    Raises PlanMismatch when the directory holds another plan, or units of an unknown one; CannotWrite.
    """
    if (run_dir / "plan.json").exists():
        return match(read_plan(run_dir), asked, run_dir)
    if (run_dir / "units").is_dir() and any((run_dir / "units").iterdir()):
        raise PlanMismatch(
            f"{run_dir} holds units but no plan.json, expected a new directory or that of an audit; choose another --out"
        )
    asked.write(run_dir)
    return asked


def forget_errors(plan: Plan, run_dir: Path) -> list[str]:
    """Remove the units in which an attack crashed, so that they run again; their names.

    Later steps keep what they did: they attacked images that a retried step may now break too. Raises CannotWrite.
    """
    ledger = Ledger(run_dir, plan.fingerprint)
    found = ((unit.name, ledger.read(unit.name)) for unit in plan.units() if unit.step is not None)
    crashed = [name for name, stored in found if stored is not None and stored[1]["error"]]
    for name in crashed:
        ledger.remove(name)
    return crashed
