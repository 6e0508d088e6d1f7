"""`audit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audit.errors import BadInput


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Two run directories or more; the first is held against the others.")
    ],
    out: Annotated[Path, typer.Option(help="Write compare.html and compare.md there.")] = Path(),
) -> None:
    """Put several audits on one page: clean, claimed, worst case, verdict, kind of masking, and what each attack leaves."""
    from audit.summary import load_run
    from reports.compare import write_comparison

    if len(runs) < 2:
        raise BadInput(f"got one run directory ({runs[0]}), expected two or more; type audit compare RUN RUN")
    print(write_comparison([load_run(run) for run in runs], out))
