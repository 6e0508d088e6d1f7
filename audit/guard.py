"""Whether a finished run may pass: its drop against a baseline, and its verdict. Torch-free.

What `audit check`, `audit run --check`, `audit ci` and the pytest plug-in share. The outputs for CI systems are rendered from
`Entry.to_dict` (reports/checks.py and beside it).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from audit.baselines import freeze, read_baseline, snapshot
from audit.errors import AuditError, BadInput
from audit.regression import ALPHA, MAX_DROP, Comparison, compare
from audit.summary import Audit
from audit.types import Estimate

VERSION = 1
REASONS = ("drop", "refuted", "inconclusive")
Status = Literal["passed", "failed", "error"]


@dataclass(frozen=True)
class Rules:
    """What fails a run. max_drop, alpha: see `audit.regression`; fail_on: "drop", and verdicts."""

    max_drop: float = MAX_DROP
    alpha: float = ALPHA
    fail_on: tuple[str, ...] = ("drop",)


@dataclass(frozen=True)
class Entry:
    """What became of one guarded model.

    baseline: the path of the baseline as it was given, "" without one; failures: a sentence for each reason to fail; error: why
    it could not be judged at all; units, reused: of the run, and those that were there before it.
    """

    name: str
    audit: Audit | None = None
    baseline: str = ""
    comparison: Comparison | None = None
    failures: tuple[str, ...] = ()
    error: str = ""
    units: int = 0
    reused: int = 0

    @property
    def status(self) -> Status:
        if self.error:
            return "error"
        return "failed" if self.failures else "passed"

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what the renderers of reports/ take."""
        return {
            "name": self.name, "slug": slug(self.name), "status": self.status, "baseline": self.baseline, "failures": list(self.failures),
            "error": self.error, "units": self.units, "reused": self.reused,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "run": None if self.audit is None else _run(self.audit),
        }  # fmt: skip


def slug(name: str) -> str:
    """A model's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def failed(name: str, error: AuditError, baseline: Path | None = None) -> Entry:
    """The entry of a model that could not be judged."""
    return Entry(name, baseline=str(baseline or ""), error=str(error))


def examine(
    audit: Audit, baseline: Path | None, rules: Rules, *, name: str | None = None, units: int = 0, reused: int = 0
) -> Entry:
    """Hold a finished run against its baseline and the rules.

    Raises BadInput for an unfinished run, a file that is no baseline, or rules that cannot be; NotComparable.
    """
    check_reasons(rules.fail_on)
    now, comparison = snapshot(audit), None
    failures: list[str] = []
    if baseline is not None:
        comparison = compare(read_baseline(baseline), now, max_drop=rules.max_drop, alpha=rules.alpha)
        if "drop" in rules.fail_on:
            failures += [row.sentence for row in comparison.regressed]
    if (outcome := audit.verdict.outcome) in rules.fail_on:
        failures.append(f"verdict {outcome}: {audit.verdict.reasons[0]}")
    shown = name or str(audit.results.plan.identity["defense"])
    return Entry(shown, audit, str(baseline or ""), comparison, tuple(failures), units=units, reused=reused)


def check_reasons(fail_on: Sequence[str]) -> None:
    """Raises BadInput when one is no reason to fail."""
    for reason in fail_on:
        if reason not in REASONS:
            raise BadInput(f"fail_on has {reason!r}, expected {', '.join(REASONS)}; type for example drop")


def update(audit: Audit, baseline: Path) -> None:
    """Freeze a run into its baseline. Raises BadInput where it is not whole, CannotWrite."""
    freeze(audit).write(baseline)


def collected(entries: Sequence[Entry]) -> dict[str, Any]:
    """The content of checks.json: all models of one invocation."""
    found = {entry.status for entry in entries}
    status = next((s for s in ("error", "failed") if s in found), "passed")
    return {"checks_version": VERSION, "status": status, "models": [entry.to_dict() for entry in entries]}


def exit_code(entries: Sequence[Entry]) -> int:
    """0 when all passed, 1 when one failed, 2 when one could not be judged."""
    return {"passed": 0, "failed": 1, "error": 2}[collected(entries)["status"]]


def _run(audit: Audit) -> dict[str, Any]:
    plan = audit.results.plan
    return {
        "path": str(audit.path), "fingerprint": plan.fingerprint, "defense": plan.identity["defense"],
        "suite": plan.identity["suite"], "dataset": plan.identity["dataset"], "n": plan.n, "threat": str(plan.threat),
        "seed": plan.seed, "clean": _figure(audit.clean), "robust": _figure(audit.headline), "unknown": audit.unknown,
        "verdict": audit.verdict.outcome, "reasons": list(audit.verdict.reasons),
        "seconds": sum(result.seconds for result in audit.results.steps),
        "command": plan.runtime.get("command", ""),
    }  # fmt: skip


def _figure(value: Estimate | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)
