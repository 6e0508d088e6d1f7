"""`audit leaderboard`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from audit import options as o


def leaderboard(
    dataset: Annotated[str, typer.Option(help="cifar10, cifar100 or imagenet.")] = "cifar10",
    norm: Annotated[str, typer.Option(help="Linf or L2.")] = "Linf",
    eps: Annotated[str | None, typer.Option(help="Only models evaluated at this radius, as 8/255.")] = None,
    model: Annotated[str, typer.Option(help="Only models with this in their name, architecture or title.")] = "",
    as_json: o.JsonRows = False,
) -> None:
    """Print RobustBench's published figures, best first."""
    from audit import leaderboard as published
    from audit.display import table
    from audit.types import parse_eps, show_eps

    rows = published.board(dataset, norm, None if eps is None else parse_eps(eps, norm))  # type: ignore[arg-type]
    places = {entry: place for place, entry in enumerate(rows, 1)}
    rows = tuple(e for e in rows if model.lower() in f"{e.name} {e.architecture} {e.title}".lower())
    if as_json:
        head = {"source": published.SOURCE, "snapshot": published.SNAPSHOT, "dataset": dataset, "norm": norm}
        print(json.dumps({**head, "models": [{"rank": places[e], **e.to_dict()} for e in rows]}, indent=1))
        return
    cells = (
        (places[e], e.name, e.architecture, show_eps(e.eps), f"{e.clean:.2%}", f"{e.robust:.2%}",
         "" if e.reported is None else f"{e.reported:.2%}", "unreliable" if e.unreliable else "")
        for e in rows
    )  # fmt: skip
    found = table(
        f"{dataset}, {norm}", ("", "model", "architecture", "eps", "clean", "robust", "reported", ""), list(cells)
    )
    found.columns[1].no_wrap = True
    console = Console()
    console.print(found)
    note = "robust: the lower of AutoAttack and what others found; --json has both"
    console.print(Text(f"{published.SOURCE}, as of {published.SNAPSHOT}; {note}"))
