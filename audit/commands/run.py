"""`audit run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from audit import options as o
from audit.commands.common import resumable, typed_command
from audit.errors import BadInput

if TYPE_CHECKING:
    from audit.budget import Budget
    from audit.preparation import Prepared
    from audit.summary import Audit


def run(
    defense: o.AnyDefense = None,
    model: o.Model = None,
    suite: Annotated[str, typer.Option(help="quick, claimed, adaptive, full, standard, plus or rand.")] = "adaptive",
    dataset: o.AnyDataset = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    weights: o.Weights = None,
    network: o.Network = None,
    width: o.Width = None,
    inference: o.Inference = None,
    model_dir: o.ModelDir = None,
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    value_range: o.ValueRange = None,
    trait: o.Traits = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            "-n",
            help="Audit the first n images (default: all; 500 for sim_adv, 200 with a test-time purifier or suite full, 100 for a random defense).",
        ),
    ] = None,
    seed: o.Seed = 0,
    eps: o.Eps = None,
    norm: o.Norm = "Linf",
    device: o.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Images attacked together; part of the plan.")] = 250,
    out: Annotated[Path | None, typer.Option(help="Run directory; the same plan resumes in it.")] = None,
    set_: o.Settings = None,
    claim_robust: o.ClaimRobust = None,
    claim_attack: o.ClaimAttack = "unnamed",
    claim_clean: o.ClaimClean = None,
    claim: o.ClaimLine = None,
    budget: o.Time = None,
    budget_queries: o.Passes = None,
    fail_on: o.Verdicts = None,
    reference: o.References = "",
    check: o.Check = None,
    max_drop: o.MaxDrop = 0.01,
    retry_errors: o.RetryErrors = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
    dry_run: o.DryRun = False,
) -> None:
    """Audit a defense: run the claimed attacks next to stronger ones, and say why they differ."""
    from audit import display, preparation, runner
    from audit.baselines import comparable, read_baseline
    from audit.budget import parse_budget
    from audit.commands.check import judge
    from audit.guard import Rules
    from audit.models import preprocessing
    from audit.paired import FOLDER
    from audit.references import for_itself, prepare_references
    from audit.regression import refuse_what_differs
    from reports import write_reports

    if o.FailOn.drop in (fail_on or ()) and check is None:
        raise BadInput("--fail-on drop needs a baseline to drop from; type --check robust.json")
    frozen = None if check is None else read_baseline(check)
    console = Console(quiet=quiet or as_json, stderr=as_json)
    allowance = parse_budget(budget, budget_queries)
    shared: dict[str, Any] = {
        "suite": suite, "data": data, "data_dir": data_dir, "download": download, "seed": seed, "norm": norm,
        "device": device, "batch_size": batch_size, "settings": set_ or (), "model_dir": model_dir,
    }  # fmt: skip
    prepared = preparation.prepare(
        defense, model=model, dataset=dataset, weights=weights, n=n, eps=eps, **for_itself(model or defense, reference, shared), claim_robust=claim_robust, claim_attack=claim_attack, claim_clean=claim_clean, claim=claim,
        network=network, width=width, inference=inference or (), traits=trait or (),
        preprocessing=preprocessing.typed(mean, std, resize, value_range), command=typed_command(),
    )  # fmt: skip
    if frozen is not None:  # said before hours of attacks
        refuse_what_differs(frozen.comparable, comparable(prepared.plan))
    if dry_run:
        _print_plan(prepared, Console(quiet=quiet), as_json=as_json)
        return
    others = prepare_references(reference, prepared, shared)
    run_dir, prepared = runner.enter(prepared, out, retry_errors=retry_errors)
    for name, other in others.items():
        place, other = runner.enter(other, run_dir / FOLDER / name, retry_errors=retry_errors)
        _attacked(other, place, console, allowance, run_dir)
        write_reports(place)
    audit = _attacked(prepared, run_dir, console, allowance, run_dir)
    if allowance.spent and audit.results.missing:
        console.print(str(allowance), soft_wrap=True)
    report = write_reports(run_dir)
    console.print(display.panel(audit, str(report)))
    if as_json:
        print(json.dumps(audit.to_dict(), indent=1))
    reasons = tuple(str(reason) for reason in fail_on or ())
    if check is not None:
        judge(
            audit, check, Rules(max_drop, fail_on=(*reasons, "drop")), quiet=quiet, to=sys.stderr if as_json else None
        )
    elif audit.verdict.outcome in reasons:
        raise typer.Exit(1)


def _attacked(prepared: Prepared, place: Path, console: Console, allowance: Budget, run_dir: Path) -> Audit:
    """Run a plan in its directory under a live table. run_dir: that of the whole command, a reference's lies inside."""
    from audit import display, execution
    from audit.live import LiveTable

    console.print(display.heading(prepared.plan, place), soft_wrap=True)
    costs = [forward + backward for forward, backward in display.costs(prepared.plan.steps)]
    with (
        resumable(f"finished units are kept in {run_dir}, run the same command again to resume"),
        LiveTable(console, prepared.plan, costs) as watcher,
    ):
        return execution.execute(prepared, place, watcher, allowance, portraits=place == run_dir)


def _print_plan(prepared: Prepared, console: Console, *, as_json: bool) -> None:
    from audit import display

    costs = display.costs(prepared.plan.steps)
    if as_json:
        print(json.dumps({**prepared.plan.to_dict(), "cost": display.timed(prepared, costs)}, indent=1))
    else:
        console.print(display.dry_run(prepared, costs))
