"""One audit, from names to a finished run directory. What `audit.run` and the command line share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audit.budget import Budget
from audit.engine import Watcher
from audit.execution import execute
from audit.ledger import Arrays
from audit.paired import FOLDER
from audit.plan import Plan, Unit, forget_errors, settle
from audit.preparation import Prepared, prepare
from audit.protocols import Defense
from audit.references import for_itself, prepare_references
from audit.summary import Audit


class Silent:
    """A watcher that shows nothing."""

    def begin(self, unit: Unit, images: int) -> None: ...
    def beat(self, forwards: int) -> None: ...
    def end(self, unit: Unit, arrays: Arrays, meta: dict[str, Any]) -> None: ...
    def extend(self, plan: Plan) -> None: ...


def run(
    defense: str | Defense | None = None,
    *,
    out: str | Path | None = None,
    watcher: Watcher | None = None,
    retry_errors: bool = False,
    budget: Budget | None = None,
    reference: str | Sequence[str] = (),
    **options: Any,
) -> Audit:
    """Audit a defense or a model and return the finished run; see `prepare` for the options.

    out: the run directory; a directory with the same plan is resumed, one with another plan is refused
    (PlanMismatch). Default: `runs/DEFENSE-SUITE-FINGERPRINT`, so the same command resumes. retry_errors: units in
    which an attack crashed in an earlier run are run again. budget: what the run may cost; see `audit.budget`. reference: names as
    "standard,pgd_at", on which the same suite runs inside the run directory; see `audit.references`.
    """
    asked = prepare(defense, **for_itself(options.get("model") or defense, reference, options))
    others = prepare_references(reference, asked, options)
    run_dir, prepared = enter(asked, out, retry_errors=retry_errors)
    for name, other in others.items():
        place, other = enter(other, run_dir / FOLDER / name, retry_errors=retry_errors)
        execute(other, place, watcher or Silent(), budget, portraits=False)
    return execute(prepared, run_dir, watcher or Silent(), budget)


def directory(plan: Plan, out: str | Path | None) -> Path:
    """Where a plan's run lives."""
    plain = re.sub(r"[^\w.-]+", "-", plan.identity["defense"])
    default = Path("runs") / f"{plain}-{plan.identity['suite']}-{plan.fingerprint[:8]}"
    return Path(out) if out is not None else default


def enter(prepared: Prepared, out: str | Path | None, *, retry_errors: bool = False) -> tuple[Path, Prepared]:
    """Where the run lives, and what to run there: a plan on disk keeps its profile. See `directory` and `settle`.

    retry_errors: units in which an attack crashed run again. Raises PlanMismatch, CannotWrite.
    """
    run_dir = directory(prepared.plan, out)
    plan = settle(prepared.plan, run_dir)
    if retry_errors:
        forget_errors(plan, run_dir)
    return run_dir, replace(prepared, plan=plan)
