"""The command line: flags in, one sentence for every mistake, exit codes that scripts can rely on.

Exit codes: 0 the audit finished, whatever the verdict; 1 --fail-on matched, `verify` found a bad, missing or damaged
unit, or `doctor` a library that does not import; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from audit import __version__
from audit import options as o
from audit.errors import AuditError
from audit.misuse import Commands, Misuse, sentence

if TYPE_CHECKING:
    from audit.runner import Prepared

EPILOG = (
    "Exit codes: 0 finished, whatever the verdict; 1 --fail-on matched, `verify` found a bad, missing or damaged unit, or "
    "`doctor` a library that does not import; 2 bad input; 130 interrupted."
)


class _Group(Commands):
    """Says that it was interrupted, where typer only ends with 130."""

    def invoke(self, ctx: Any) -> Any:
        with resumable("run the same command again"):
            return super().invoke(ctx)


app = typer.Typer(
    help="Tells whether a claimed adversarial defense is real.", no_args_is_help=True, epilog=EPILOG, cls=_Group,
    pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None,
)  # fmt: skip


@contextmanager
def resumable(sentence: str) -> Iterator[None]:
    """Ctrl-C inside ends with exit code 130 and the sentence, which tells how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; {sentence}", file=sys.stderr)
        raise typer.Exit(130) from None


def _command() -> str:
    return "python -m audit " + shlex.join(sys.argv[1:])


@app.command(epilog=EPILOG)
def run(
    defense: o.Defense,
    suite: Annotated[str, typer.Option(help="quick, claimed, adaptive, full, standard, plus or rand.")] = "adaptive",
    dataset: o.Dataset = "fashion_mnist",
    data: o.Data = None,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    weights: o.Weights = None,
    network: o.Network = None,
    width: o.Width = None,
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
    from reports import write_reports

    console = Console(quiet=quiet or as_json, stderr=as_json)
    prepared = runner.prepare(
        defense, suite=suite, dataset=dataset, data=data, data_dir=data_dir, download=download, weights=weights, n=n,
        seed=seed, eps=eps, norm=norm, device=device, batch_size=batch_size, settings=set_ or (),
        claim_robust=claim_robust, claim_attack=claim_attack, claim_clean=claim_clean, claim=claim,
        network=network, width=width, command=_command(),
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


@app.command(epilog=EPILOG)
def train(
    defense: o.Defense,
    dataset: o.Dataset = "fashion_mnist",
    recipe: Annotated[str, typer.Option(help="Name of the recipe: see `list defenses`.")] = "small",
    data_dir: o.DataDir = None,
    download: o.Download = False,
    seed: o.Seed = 0,
    out: Annotated[Path, typer.Option(help="Where the checkpoint and its manifest go.")] = Path("training"),
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    images: Annotated[int | None, typer.Option(help="Train on the first so many images.")] = None,
    device: o.Device = "auto",
    quiet: o.Quiet = False,
) -> None:
    """Train a defense by a recipe; resumes where a killed run stopped."""
    from audit import registry, training
    from audit.device import find_device

    known, data = registry.defenses.load(defense), registry.datasets.load(dataset)
    chosen = training.adjusted(training.get_recipe(known, recipe), epochs=epochs, images=images)
    place = find_device(device)
    pair = [data.load(split, data_dir=data_dir, download=download) for split in ("train", "test")]
    with (
        resumable(f"finished epochs are kept in {out}, run the same command again to resume"),
        training.progress_bar(Console(quiet=quiet), chosen) as progress,
    ):
        stored = training.train(
            known, chosen, *pair, seed=seed, out=out, command=_command(), device=place, progress=progress
        )
    if not quiet:
        print(f"{stored.path}\n{training.summary(stored)}")


@app.command("list", epilog=EPILOG)
def list_(kind: o.Listed, defense: o.Whose = None) -> None:
    """List what can be named on the command line, and what the papers claim."""
    from audit import catalogue

    Console().print(catalogue.listing(kind.value, defense))


@app.command(epilog=EPILOG)
def report(run_dir: o.RunDir) -> None:
    """Render report.html, report.md and report.json again from a run directory."""
    from reports import write_reports

    print(write_reports(run_dir))


@app.command(epilog=EPILOG)
def verify(
    run_dir: o.RunDir,
    weights: o.Weights = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    device: o.Device = "auto",
) -> None:
    """Judge every stored adversarial image again: in the ball, in [0,1], misclassified.

    Weights and images are looked for where the run found them; --weights, --data and --data-dir say where they lie now.
    """
    from audit.verify import reverify, sound

    found = reverify(run_dir, device, weights=weights, data=data, data_dir=data_dir)
    print(
        f"{found['verified']} adversarial images judged again, {found['rejected']} rejected; "
        f"{found['missing']} units missing, {found['damaged']} damaged"
    )
    for failure in found["failures"]:
        print(f"  {failure}")
    if not sound(found):
        raise typer.Exit(1)


@app.command(epilog=EPILOG)
def doctor() -> None:
    """List every library, attack and adapter: does it import, which version, what to install."""
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
    """Entry point: every AuditError, and all that typer refuses, becomes one sentence on stderr and its exit code."""
    try:
        sys.exit(app(arguments, standalone_mode=False) or 0)
    except AuditError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Misuse as error:
        if not (sys.argv[1:] if arguments is None else arguments):
            error.show()  # nothing was typed: the help is the answer
        else:
            print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
