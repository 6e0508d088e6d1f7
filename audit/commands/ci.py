"""`audit ci`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from audit import options as o
from audit.commands.common import resumable

if TYPE_CHECKING:
    from audit.ci import Watching
    from audit.ci_config import Model
    from audit.engine import Watcher
    from audit.preparation import Prepared


def ci(
    config: Annotated[Path, typer.Option(help="The file that names the models.")] = Path("audit.toml"),
    update_baselines: Annotated[
        bool,
        typer.Option("--update-baselines", help="Freeze every run into its baseline instead of failing on a drop."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Instead of the file's [ci] out.")] = None,
    retry_errors: o.RetryErrors = False,
    quiet: o.Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print checks.json and nothing else.")] = False,
) -> None:
    """Guard several models: run what changed since the last time, and hold each against its baseline.

    Exit code 1 when a model fails, 2 when one could not be judged. Writes checks.json, summary.md, junit.xml, audit.sarif and a badge
    for each model; on GitHub a step summary and annotations as well.
    """
    from audit.ci import guard
    from audit.ci_config import read_config
    from audit.commands.check import tell
    from audit.guard import exit_code
    from reports import write_reports

    read = read_config(config)
    console = Console(quiet=quiet or as_json, stderr=as_json)
    with resumable("finished units are kept, run the same command again to resume"):
        entries = guard(read, _watching(console), updating=update_baselines, retry_errors=retry_errors)
    for entry in entries:
        if entry.audit is not None:
            write_reports(entry.audit.path)
    tell(entries, config=str(config), out=out or read.out, quiet=quiet, as_json=as_json)
    if code := exit_code(entries):
        raise typer.Exit(code)


def _watching(console: Console) -> Watching:
    from audit import display
    from audit.live import LiveTable

    @contextmanager
    def begin(model: Model, prepared: Prepared, run_dir: Path) -> Iterator[Watcher]:
        console.print(f"{model.name}:", markup=False, highlight=False)
        console.print(display.heading(prepared.plan, run_dir), soft_wrap=True)
        costs = [forward + backward for forward, backward in display.costs(prepared.plan.steps)]
        with LiveTable(console, prepared.plan, costs) as watcher:
            yield watcher

    return begin
