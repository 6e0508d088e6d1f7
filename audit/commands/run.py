"""`audit run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from audit import options as o
from audit.commands.common import resumable, typed_command

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
    eps: Annotated[
        str | None, typer.Option(help="Radius, as 8/255 or 0.031; the checkpoint's own, else 8/255.")
    ] = None,
    norm: Annotated[str, typer.Option(help="Linf, L2, L1 or L0.")] = "Linf",
    device: o.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Images attacked together; part of the plan.")] = 250,
    out: Annotated[Path | None, typer.Option(help="Run directory; the same plan resumes in it.")] = None,
    set_: o.Settings = None,
    claim_robust: o.ClaimRobust = None,
    claim_attack: o.ClaimAttack = "unnamed",
    claim_clean: o.ClaimClean = None,
    claim: o.ClaimLine = None,
    fail_on: o.Verdicts = None,
    retry_errors: o.RetryErrors = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
    dry_run: o.DryRun = False,
) -> None:
    """Audit a defense: run the claimed attacks next to stronger ones, and say why they differ."""
    from audit import display, runner
    from audit.models import preprocessing
    from reports import write_reports

    console = Console(quiet=quiet or as_json, stderr=as_json)
    prepared = runner.prepare(
        defense, model=model, suite=suite, dataset=dataset, data=data, data_dir=data_dir, download=download, weights=weights, n=n,
        seed=seed, eps=eps, norm=norm, device=device, batch_size=batch_size, settings=set_ or (),
        claim_robust=claim_robust, claim_attack=claim_attack, claim_clean=claim_clean, claim=claim,
        network=network, width=width, model_dir=model_dir, traits=trait or (),
        preprocessing=preprocessing.typed(mean, std, resize, value_range), command=typed_command(),
    )  # fmt: skip
    if dry_run:
        _print_plan(prepared, Console(quiet=quiet), as_json=as_json)
        return
    run_dir, prepared = runner.enter(prepared, out, retry_errors=retry_errors)
    console.print(display.heading(prepared.plan, run_dir), soft_wrap=True)
    with (
        resumable(f"finished units are kept in {run_dir}, run the same command again to resume"),
        display.LiveTable(console, prepared.plan, [f + b for f, b in display.costs(prepared.plan.steps)]) as watcher,
    ):
        audit = runner.execute(prepared, run_dir, watcher)
    report = write_reports(run_dir)
    console.print(display.panel(audit, str(report)))
    if as_json:
        print(json.dumps(audit.to_dict(), indent=1))
    if audit.verdict.outcome in [str(f) for f in fail_on or ()]:
        raise typer.Exit(1)


def _print_plan(prepared: Prepared, console: Console, *, as_json: bool) -> None:
    from audit import display

    costs = display.costs(prepared.plan.steps)
    if as_json:
        print(json.dumps({**prepared.plan.to_dict(), "cost": display.timed(prepared, costs)}, indent=1))
    else:
        console.print(display.dry_run(prepared, costs))
