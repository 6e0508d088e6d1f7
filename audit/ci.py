"""Run what changed of several models, and hold each against its baseline: the work behind `audit ci`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from audit import execution, preparation, runner
from audit.baselines import comparable, read_baseline
from audit.budget import Budget, parse_budget
from audit.ci_config import Config, Model
from audit.engine import Watcher
from audit.errors import AuditError, BadInput
from audit.guard import Entry, examine, failed, slug, update
from audit.ledger import Ledger
from audit.models.preprocessing import typed
from audit.plan import Plan
from audit.regression import refuse_what_differs
from audit.summary import Audit, load_run

Watching = Callable[[Model, preparation.Prepared, Path], AbstractContextManager[Watcher]]


def guard(config: Config, watching: Watching, *, updating: bool = False, retry_errors: bool = False) -> list[Entry]:
    """One entry per model, in the file's order. A model that cannot be judged does not keep the others from it.

    watching: gives the watcher of a run that is about to begin; updating: freeze every run into its baseline.
    """
    return [_entry(config, model, watching, updating, retry_errors) for model in config.models]


def _entry(config: Config, model: Model, watching: Watching, updating: bool, retry_errors: bool) -> Entry:
    try:
        if updating and model.baseline is None:
            raise BadInput(f'{model.name} has no baseline to update; type baseline = "robust.json" in {config.path}')
        if model.baseline is not None and not updating and not model.baseline.exists():
            raise BadInput(
                f"there is no baseline {model.baseline}; type python -m audit ci --config {config.path} --update-baselines"
            )
        audit, units, reused = _audited(config, model, watching, updating=updating, retry_errors=retry_errors)
        if updating and model.baseline is not None:
            update(audit, model.baseline)
        return examine(audit, model.baseline, model.rules, name=model.name, units=units, reused=reused)
    except AuditError as error:
        return failed(model.name, error, model.baseline)


def _audited(
    config: Config, model: Model, watching: Watching, *, updating: bool, retry_errors: bool
) -> tuple[Audit, int, int]:
    """See `finish`. What may not be compared is said before hours of attacks."""
    prepared = _prepared(model)
    if model.baseline is not None and not updating:
        refuse_what_differs(read_baseline(model.baseline).comparable, comparable(prepared.plan))
    run_dir = directory(config.cache, model.name, prepared.plan)
    budget = parse_budget(model.time, model.passes)
    found = finish(prepared, run_dir, lambda *known: watching(model, *known), retry_errors=retry_errors, budget=budget)
    if found[0].results.missing:
        raise BadInput(f"{model.name} is not finished, {budget}")
    return found


def _prepared(model: Model) -> preparation.Prepared:
    """The plan of a guarded model; what the file says of its preprocessing is read as the flags of `audit run` are."""
    options = dict(model.options)
    flags = {name: options.pop(name, None) for name in ("mean", "std", "resize", "value_range")}
    return preparation.prepare(model.defense, preprocessing=typed(**flags), **options)


def finish(
    prepared: preparation.Prepared, run_dir: Path, watching: Callable[[preparation.Prepared, Path], AbstractContextManager[Watcher]],
    *, retry_errors: bool = False, budget: Budget | None = None,
) -> tuple[Audit, int, int]:  # fmt: skip
    """The finished run of a plan, how many units it has, and how many of them were there before; what is there is not run."""
    run_dir, prepared = runner.enter(prepared, run_dir, retry_errors=retry_errors)
    reused = _there(run_dir, prepared.plan)
    if not _whole(run_dir):
        with watching(prepared, run_dir) as watcher:
            execution.execute(prepared, run_dir, watcher, budget)
    found = load_run(run_dir)
    return found, sum(1 for _ in found.results.plan.units()), reused


def directory(cache: Path, name: str, plan: Plan) -> Path:
    """Where the run of a model lives: a changed plan, hence changed weights, has a directory of its own."""
    return cache / f"{slug(name)}-{plan.fingerprint[:16]}"


def _there(run_dir: Path, plan: Plan) -> int:
    ledger = Ledger(run_dir, plan.fingerprint)
    return sum(unit.name in ledger for unit in plan.units())


def _whole(run_dir: Path) -> bool:
    """Has the run in this directory been finished, its last check of the stored images included?"""
    results = load_run(run_dir).results
    return not results.missing and results.checks.get("missing") == 0
