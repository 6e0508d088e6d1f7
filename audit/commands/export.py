"""`audit export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from audit import options as o


def export(
    run_dir: o.RunDir,
    format_: Annotated[Literal["robustbench"], typer.Option("--format", help="robustbench.")] = "robustbench",
    out: Annotated[Path | None, typer.Option(help="The file to write (default: print).")] = None,
    title: Annotated[str | None, typer.Option(help="Title of the paper.")] = None,
    authors: Annotated[str | None, typer.Option(help="Its authors, with commas.")] = None,
    link: Annotated[str | None, typer.Option(help="Where it is.")] = None,
    venue: Annotated[str | None, typer.Option(help="Where and when it appeared, as ICML 2026.")] = None,
    additional_data: Annotated[bool | None, typer.Option(help="Was it trained on more than the data set?")] = None,
    forward_passes: Annotated[int, typer.Option(help="Passes of the network for one answer.")] = 1,
    reported: Annotated[
        float | None, typer.Option(help="What the paper reports, as 0.595 (default: the claim).")
    ] = None,
) -> None:
    """Write the model_info JSON of a run, for a submission to RobustBench."""
    from audit.ledger import write_json
    from audit.submission import About, lacking, model_info
    from audit.summary import load_run

    about = About(title, authors, link, venue, additional_data, forward_passes, reported)
    data = load_run(run_dir).to_dict()
    found = model_info(data, about)
    for sentence in lacking(found, data):
        print(sentence, file=sys.stderr)
    if out is None:
        print(json.dumps(found, indent=2))
    else:
        write_json(out, found)
        print(out)
