"""`audit diagnose`: why a number may lie, for one model, in a minute or two."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from audit import options as o
from audit.commands.common import resumable, typed_command


def diagnose(
    defense: o.AnyDefense = None,
    model: o.Model = None,
    dataset: o.AnyDataset = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
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
        int | None, typer.Option("--n", "-n", help="Look at the first n images (default: 64; 24 for a random defense).")
    ] = None,
    seed: o.Seed = 0,
    eps: o.Eps = None,
    norm: o.Norm = "Linf",
    device: o.Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Run directory; the same command resumes in it.")] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Run the diagnoses alone, on short attacks, and print each with its finding."""
    from audit import display, execution, preparation, runner
    from audit.live import LiveTable
    from audit.models import preprocessing

    prepared = preparation.prepare(
        defense, model=model, suite="diagnose", dataset=dataset, data=data, data_dir=data_dir, weights=weights, n=n, seed=seed,
        eps=eps, norm=norm, device=device, network=network, width=width, model_dir=model_dir,
        traits=trait or (), preprocessing=preprocessing.typed(mean, std, resize, value_range), command=typed_command(),
    )  # fmt: skip
    run_dir, prepared = runner.enter(prepared, out)
    console = Console(quiet=quiet or as_json, stderr=as_json)
    costs = [forward + backward for forward, backward in display.costs(prepared.plan.steps)]
    with resumable("run the same command again to resume"), LiveTable(console, prepared.plan, costs) as watcher:
        audit = execution.execute(prepared, run_dir, watcher, portraits=False)
    if as_json:
        print(json.dumps([asdict(d) for d in audit.diagnoses], indent=1))
    elif not quiet:
        Console().print(display.diagnoses(audit))
