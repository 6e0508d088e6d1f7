"""`audit check`, and what `run --check` does after its run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from audit import options as o

if TYPE_CHECKING:
    from audit.guard import Entry, Rules
    from audit.summary import Audit


def check(
    run_dir: o.RunDir,
    baseline: Annotated[Path, typer.Option(help="The file that `baseline` wrote.")] = Path("robust.json"),
    max_drop: o.MaxDrop = 0.01,
    alpha: o.Alpha = 0.05,
    fail_on: o.Reasons = None,
    out: o.OutDir = None,
    quiet: o.Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print checks.json and nothing else.")] = False,
) -> None:
    """Hold a finished run against a baseline: exit code 1 when an accuracy fell by more than is allowed and than chance explains.

    On the same images by an exact paired test, on other images of the data set by intervals. Two runs that did not measure the
    same (data set, n, norm, eps, suite) are refused, naming each field.
    """
    from audit.guard import Rules
    from audit.summary import load_run

    rules = Rules(max_drop, alpha, tuple(str(reason) for reason in fail_on or ("drop",)))
    judge(load_run(run_dir), baseline, rules, out=out, quiet=quiet, as_json=as_json)


def judge(
    audit: Audit, baseline: Path, rules: Rules, *, out: Path | None = None, quiet: bool = False, as_json: bool = False,
    to: TextIO | None = None,
) -> None:  # fmt: skip
    """Hold a run against a baseline, say what moved, and end with exit code 1 where it fails. See `tell`."""
    from audit.guard import examine, exit_code

    entries = [examine(audit, baseline, rules)]
    tell(entries, config=str(baseline), out=out, quiet=quiet, as_json=as_json, to=to)
    if code := exit_code(entries):
        raise typer.Exit(code)


def tell(
    entries: Sequence[Entry], *, config: str, out: Path | None, quiet: bool, as_json: bool, to: TextIO | None = None
) -> None:
    """Print and write what became of the models.

    config: the file to point to where a model has no baseline; to: where the lines go, stdout unless told. GitHub reads its
    commands on either stream, so they leave stdout to the JSON.
    """
    from audit.guard import collected
    from reports.checks import lines, write_outputs
    from reports.github import publish, render_summary

    data = collected(entries)
    if out is not None:
        write_outputs(data, out, config=config, summary=render_summary(data["models"]))
    if as_json:
        print(json.dumps(data, indent=1))
    elif not quiet:
        print("\n\n".join("\n".join(lines(entry)) for entry in data["models"]), file=to)
    for command in publish(data["models"], os.environ, config):
        print(command, file=sys.stderr if as_json else to)
