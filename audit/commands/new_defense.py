"""`audit new-defense`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new_defense(
    name: Annotated[str, typer.Argument(help="Name of the package, as my_defense.")],
    out: Annotated[Path | None, typer.Option(help="The folder to write (default: NAME).")] = None,
) -> None:
    """Write a package for a defense of your own, with tests that pass."""
    from audit.skeleton import write_skeleton

    place = Path(name) if out is None else out
    for path in write_skeleton(name, place):
        print(path)
    print(f"next: cd {place} && python -m pytest && python -m audit run --defense {name}.defense:DEFENSE --n 100")
