"""The command line: flags in, one sentence for every mistake, exit codes that scripts can rely on.

Exit codes: 0 the audit finished, whatever the verdict; 1 --fail-on matched, or `verify` found a bad image;
2 bad input; 130 interrupted.
"""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from audit import __version__
from audit.errors import AuditError

EPILOG = "Exit codes: 0 finished, whatever the verdict; 1 --fail-on matched or verification failed; 2 bad input; 130 interrupted."
app = typer.Typer(
    help="Tells whether a claimed adversarial defense is real.", no_args_is_help=True, epilog=EPILOG,
    pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None,
)  # fmt: skip


class FailOn(StrEnum):
    """Verdicts that `--fail-on` turns into exit code 1."""

    refuted = "refuted"
    inconclusive = "inconclusive"


class Kind(StrEnum):
    """What `list` can list."""

    defenses = "defenses"
    suites = "suites"
    attacks = "attacks"
    datasets = "datasets"


def _command() -> str:
    return "python -m audit " + shlex.join(sys.argv[1:])


Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Dataset = Annotated[str, typer.Option(help="fashion_mnist, mnist, cifar10, cifar100 or svhn.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the data set lies (torchvision's layout or idx files).")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision fetch the data set.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@app.command(epilog=EPILOG)
def run(
    defense: Annotated[str, typer.Option(help="Name of the defense: see `list defenses`.")],
    suite: Annotated[str, typer.Option(help="quick, claimed, adaptive or standard.")] = "adaptive",
    dataset: Dataset = "fashion_mnist",
    data: Annotated[Path | None, typer.Option(help="An .npz with x and y, or a folder of class folders.")] = None,
    data_dir: DataDir = None,
    download: Download = False,
    weights: Annotated[Path | None, typer.Option(help="A .safetensors or state-dict .pt file.")] = None,
    n: Annotated[int | None, typer.Option(help="Audit the first n images (default: all).")] = None,
    seed: Seed = 0,
    eps: Annotated[str, typer.Option(help="Radius, as 8/255 or 0.031.")] = "8/255",
    norm: Annotated[str, typer.Option(help="Linf, L2 or L1.")] = "Linf",
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Images attacked together; part of the plan.")] = 250,
    out: Annotated[Path | None, typer.Option(help="Run directory; the same plan resumes in it.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="step.option=value, as square.n_queries=1000.")
    ] = None,
    claim_robust: Annotated[float | None, typer.Option(help="A claimed robust accuracy, as 0.865.")] = None,
    claim_attack: Annotated[str, typer.Option(help="The attack of that claim.")] = "unnamed",
    fail_on: Annotated[list[FailOn] | None, typer.Option(help="Verdicts that end in exit code 1.")] = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json and nothing else.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan with its cost, attack nothing.")] = False,
) -> None:
    """Audit a defense: run the claimed attacks next to stronger ones, and say why they differ."""
    from audit import display, runner
    from reports import write_reports

    console = Console(quiet=quiet or as_json, stderr=as_json)
    prepared = runner.prepare(
        defense, suite=suite, dataset=dataset, data=data, data_dir=data_dir, download=download, weights=weights, n=n,
        seed=seed, eps=eps, norm=norm, device=device, batch_size=batch_size, settings=set_ or (),
        claim_robust=claim_robust, claim_attack=claim_attack, command=_command(),
    )  # fmt: skip
    costs = display.costs(prepared.plan.steps)
    if dry_run:
        Console(quiet=quiet).print(display.dry_run(prepared, costs))
        return
    run_dir = runner.directory(prepared.plan, out)
    console.print(f"{prepared.plan.n} images, {prepared.plan.threat}, {len(prepared.plan.steps)} steps -> {run_dir}")
    try:
        with display.LiveTable(console, prepared.plan, [f + b for f, b in costs]) as watcher:
            audit = runner.execute(prepared, run_dir, watcher)
    except KeyboardInterrupt:
        print(
            f"interrupted; finished units are kept in {run_dir}, run the same command again to resume",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    report = write_reports(run_dir)
    console.print(display.panel(audit, str(report)))
    if as_json:
        print(json.dumps(audit.to_dict(), indent=1))
    if audit.verdict.outcome in [str(f) for f in fail_on or ()]:
        raise typer.Exit(1)


@app.command(epilog=EPILOG)
def train(
    defense: Annotated[str, typer.Option(help="Name of the defense: see `list defenses`.")],
    dataset: Dataset = "fashion_mnist",
    recipe: Annotated[str, typer.Option(help="Name of the recipe: see `list defenses`.")] = "small",
    data_dir: DataDir = None,
    download: Download = False,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Where the checkpoint and its manifest go.")] = Path("training"),
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    images: Annotated[int | None, typer.Option(help="Train on the first so many images.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a defense by a recipe; resumes where a killed run stopped."""
    from audit import registry, training
    from audit.device import find_device

    known, data = registry.defenses.load(defense), registry.datasets.load(dataset)
    chosen = training.adjusted(training.get_recipe(known, recipe), epochs=epochs, images=images)
    place = find_device(device)
    pair = [data.load(split, data_dir=data_dir, download=download) for split in ("train", "test")]
    with training.progress_bar(Console(quiet=quiet), chosen) as progress:
        stored = training.train(
            known, chosen, *pair, seed=seed, out=out, command=_command(), device=place, progress=progress
        )
    if not quiet:
        print(f"{stored.path}\n{training.summary(stored)}")


@app.command("list", epilog=EPILOG)
def list_(kind: Annotated[Kind, typer.Argument(help="defenses, suites, attacks or datasets.")]) -> None:
    """List what can be named on the command line."""
    from audit import catalogue

    Console().print(catalogue.listing(kind.value))


@app.command(epilog=EPILOG)
def report(run_dir: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Render report.html, report.md and report.json again from a run directory."""
    from reports import write_reports

    print(write_reports(run_dir))


@app.command(epilog=EPILOG)
def verify(run_dir: Annotated[Path, typer.Argument(help="A run directory.")], device: Device = "auto") -> None:
    """Judge every stored adversarial image again: in the ball, in [0,1], misclassified."""
    from audit.runner import reverify

    found = reverify(run_dir, device)
    print(f"{found['verified']} adversarial images judged again, {found['rejected']} rejected")
    for failure in found["failures"]:
        print(f"  {failure}")
    if found["rejected"]:
        raise typer.Exit(1)


@app.command(epilog=EPILOG)
def doctor() -> None:
    """List every library: does it import, which version, what to install."""
    from audit import catalogue
    from audit.doctor import examine

    findings = examine()
    Console().print(catalogue.health(findings))
    if not all(f.imports for f in findings if f.core):
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"robustness-audit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: every AuditError becomes one sentence on stderr and its exit code."""
    try:
        app(arguments)
    except AuditError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
