"""`audit run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from audit import options as o
from audit.commands.common import resumable, typed_command
from audit.errors import BadInput

if TYPE_CHECKING:
    from audit.runner import Prepared


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
    model_dir: o.ModelDir = None,
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    value_range: o.ValueRange = None,
    trait: o.Traits = None,
    n: Annotated[
        int | None,
        typer.Option(
            help="Audit the first n images (default: all; 500 for sim_adv, 200 with a test-time purifier or suite full, 100 for a random defense)."
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
    check: o.Check = None,
    retry_errors: o.RetryErrors = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
    dry_run: o.DryRun = False,
) -> None:
    """Audit a defense: run the claimed attacks next to stronger ones, and say why they differ."""
    from audit import display, execution, runner
    from audit.baselines import comparable, read_baseline
    from audit.budget import parse_budget
    from audit.commands.check import judge
    from audit.guard import Rules
    from audit.live import LiveTable
    from audit.models import preprocessing
    from audit.regression import refuse_what_differs
    from reports import write_reports

    if o.FailOn.drop in (fail_on or ()) and check is None:
        raise BadInput("--fail-on drop needs a baseline to drop from; type --check robust.json")
    frozen = None if check is None else read_baseline(check)
    console = Console(quiet=quiet or as_json, stderr=as_json)
    allowance = parse_budget(budget, budget_queries)
    prepared = runner.prepare(
        defense, model=model, suite=suite, dataset=dataset, data=data, data_dir=data_dir, download=download, weights=weights, n=n,
        seed=seed, eps=eps, norm=norm, device=device, batch_size=batch_size, settings=set_ or (),
        claim_robust=claim_robust, claim_attack=claim_attack, claim_clean=claim_clean, claim=claim,
        network=network, width=width, model_dir=model_dir, traits=trait or (),
        preprocessing=preprocessing.typed(mean, std, resize, value_range), command=typed_command(),
    )  # fmt: skip
    if frozen is not None:  # said before hours of attacks
        refuse_what_differs(frozen.comparable, comparable(prepared.plan))
    if dry_run:
        _print_plan(prepared, Console(quiet=quiet), as_json=as_json)
        return
    run_dir, prepared = runner.enter(prepared, out, retry_errors=retry_errors)
    console.print(display.heading(prepared.plan, run_dir), soft_wrap=True)
    with (
        resumable(f"finished units are kept in {run_dir}, run the same command again to resume"),
        LiveTable(console, prepared.plan, [f + b for f, b in display.costs(prepared.plan.steps)]) as watcher,
    ):
        audit = execution.execute(prepared, run_dir, watcher, allowance)
    if allowance.spent and audit.results.missing:
        console.print(str(allowance), soft_wrap=True)
    report = write_reports(run_dir)
    console.print(display.panel(audit, str(report)))
    if as_json:
        print(json.dumps(audit.to_dict(), indent=1))
    reasons = tuple(str(reason) for reason in fail_on or ())
    if check is not None:
        judge(audit, check, Rules(fail_on=(*reasons, "drop")), quiet=quiet, to=sys.stderr if as_json else None)
    elif audit.verdict.outcome in reasons:
        raise typer.Exit(1)


def _print_plan(prepared: Prepared, console: Console, *, as_json: bool) -> None:
    from audit import display

    costs = display.costs(prepared.plan.steps)
    if as_json:
        print(json.dumps({**prepared.plan.to_dict(), "cost": display.timed(prepared, costs)}, indent=1))
    else:
        console.print(display.dry_run(prepared, costs))
