"""From a plan to a finished run: its gates, its units, the rounds that its results ask for, and the last checks."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from audit.binarisation.run import binarisation_test
from audit.budget import Budget
from audit.controls import main_attack, run_controls
from audit.diagnoses import FORWARD_SAMPLE
from audit.engine import LocalEngine, Watcher
from audit.errors import AuditError
from audit.evidence import Evidence
from audit.gallery import write_gallery
from audit.gates import fingerprint_model, forward_mismatch
from audit.ledger import Ledger, write_json
from audit.plan import Plan, settle
from audit.portraits.draw import write_portraits
from audit.preparation import Prepared
from audit.randomness import deterministic
from audit.remedies import next_round
from audit.results import read_results
from audit.rng import derive_seed
from audit.rounds import write_rounds
from audit.runlog import logging_to
from audit.suites import get_suite
from audit.summary import Audit, load_run
from audit.types import AdapterSpec, Step
from audit.verify import verify_images

log = logging.getLogger("audit")
BINARISED = 32  # problems: enough to tell an attack that solves nearly all from one that solves two thirds


def execute(
    prepared: Prepared, run_dir: Path, watcher: Watcher, budget: Budget | None = None, *, portraits: bool = True
) -> Audit:
    """Run what the directory lacks and what its results ask for, check the stored images again, and read the result.

    portraits: measure what the report draws of a finished run (`audit.portraits`), which has no say in the verdict.
    Raises PlanMismatch when the directory holds another plan, CannotWrite.
    """
    plan = settle(prepared.plan, run_dir)
    target, model = prepared.target, prepared.target.model
    before = fingerprint_model(model)
    ledger = Ledger(run_dir, plan.fingerprint)
    (run_dir / "checks.json").unlink(missing_ok=True)  # what an earlier part of the run wrote there no longer holds
    with logging_to(run_dir / "run.log"):
        gates = _gates(plan, prepared, run_dir)
        plan = _rounds(LocalEngine(plan, target, ledger, budget), run_dir, watcher)
        added = [step for found in plan.rounds for step in found.steps]
        verified = verify_images(plan, target, ledger)
        write_gallery(run_dir / "gallery.npz", plan, target, ledger)
        if portraits and not verified["missing"]:
            write_portraits(run_dir, plan, target, prepared.checkpoint.path)
        unchanged = fingerprint_model(model) == before
        checks: dict[str, Any] = {**gates, "model_unchanged": unchanged, "rounds": len(plan.rounds), **verified}
        checks["forward_mismatch"] = {**gates["forward_mismatch"], **_mismatch(plan, prepared, added)}
        results = read_results(run_dir)
        if get_suite(plan.identity["suite"]).controlled and not results.missing:
            checks["binarisation"] = binarised(plan, prepared, Evidence(results, {}).whole)
        write_json(run_dir / "checks.json", checks)
    return load_run(run_dir)


def _gates(plan: Plan, prepared: Prepared, run_dir: Path) -> dict[str, Any]:
    """What is checked before the first attack, once per directory: adapters answer as the defense does, and the main attack
    does on models of known answer what it should.
    """
    with suppress(OSError, ValueError):
        stored: dict[str, Any] = json.loads((run_dir / "gates.json").read_text())
        if stored.pop("plan", None) == plan.fingerprint:
            return stored
    gates: dict[str, Any] = {"forward_mismatch": _mismatch(plan, prepared, plan.suite_steps)}
    if get_suite(plan.identity["suite"]).controlled:
        gates["controls"] = run_controls(plan, prepared.target.x.device)
    write_json(run_dir / "gates.json", {**gates, "plan": plan.fingerprint})
    return gates


def _mismatch(plan: Plan, prepared: Prepared, steps: Iterable[Step]) -> dict[str, float]:
    sample, seed = prepared.target.x[:FORWARD_SAMPLE], derive_seed(plan.seed, "forward")
    return forward_mismatch(prepared.target.model, steps, sample, seed=seed)


def _rounds(engine: LocalEngine, run_dir: Path, watcher: Watcher) -> Plan:
    """Run the plan, and round after round of what the results ask for; the plan with all of them.

    What was found before the first attack is acted on before the late steps, which then have less to attack.
    """
    for early in (True, False):
        engine.run(watcher, early=early)
        while (found := next_round(read_results(run_dir), early=early)) is not None:
            plan = engine.plan.extended(found)
            write_rounds(run_dir, plan.fingerprint, plan.rounds)
            log.info("round %d: %s", found.number, "; ".join(found.found))
            watcher.extend(plan)
            engine.extend(plan)
            engine.run(watcher, early=early)
    return engine.plan


def binarised(plan: Plan, prepared: Prepared, view: Sequence[AdapterSpec]) -> list[dict[str, Any]]:
    """The binarisation test of the run's main attack: one entry, or none where it cannot be run on such a model.

    view: the adapters of the way that worked best, if one of those that were tried did.
    """
    step, target = main_attack(plan.steps, view), prepared.target
    if step is None:
        return []
    draws = plan.draws if plan.draws > 1 else 1
    try:
        found = binarisation_test(
            target.model, target.x, target.y, step, plan.threat, n=BINARISED, seed=plan.seed, draws=draws,
            replay=deterministic(plan.profile, target.traits),
        )  # fmt: skip
    except AuditError as error:
        log.warning("the binarisation test was left out: %s", error)
        return []
    except Exception as error:  # a model is foreign code
        log.exception("the binarisation test failed")
        return [{"name": step.name, "error": f"{type(error).__name__}: {error}"}]
    return [found.to_dict()]
