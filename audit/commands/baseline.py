"""`audit baseline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audit import options as o


def baseline(
    run_dir: o.RunDir,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("robust.json"),
) -> None:
    """Freeze what a finished run found into one small file, for `check` to compare later runs with."""
    from audit.baselines import freeze
    from audit.summary import load_run

    found = freeze(load_run(run_dir))
    found.write(out)
    worst, clean = (figure.estimate for figure in found.figures[:2])
    print(f"{out}: worst case {worst}, clean {clean}, {len(found.figures) - 2} attacks, n = {worst.n}")
