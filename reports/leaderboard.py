"""Where a defense would stand on RobustBench's leaderboard, in words, rows and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import figures
from reports.escaping import plain
from reports.wording import percent


def standing_line(data: Mapping[str, Any]) -> str:
    """One sentence: the place that the worst case would have, or that there is none."""
    board = data["leaderboard"]
    if board["rank"] is None:
        return "There is no place for it on RobustBench's leaderboard."
    best, worst = board["rank"]
    place = f"place {best}" if best == worst else f"between place {best} and place {worst}"
    return (
        f"By its worst case over all attacks ({percent(data['adaptive']['accuracy'])}) it would stand at {place} of "
        f"{board['of'] + 1} at {data['threat']['norm']} {data['threat']['eps_text']} ({board['source']}, as of {board['snapshot']})."
    ).replace("at between", "between")


def own_rows(data: Mapping[str, Any]) -> list[figures.Placed]:
    """What is drawn of the defense: what the claim says, what its attacks leave, the worst case, RobustBench's own figure."""
    claim, board = data["claim"], data["leaderboard"]
    rows: list[figures.Placed] = []
    if claim is not None and claim["basis"] != "measured":
        rows.append(("claimed", claim["robust_acc"], None, figures.CLAIMED))
    for key, name, colour in (
        ("claimed", "claimed attacks, here", figures.CLAIMED),
        ("adaptive", "worst case, here", figures.ADAPTIVE),
    ):
        if data[key]["accuracy"] is not None:
            rows.append((name, data[key]["accuracy"], data[key]["interval"], colour))
    if board["itself"] is not None:
        rows.append((f"{board['itself']['name']}, RobustBench", board["itself"]["robust"], None, figures.INK))
    return rows


def drawing(data: Mapping[str, Any]) -> str:
    """The figure as SVG; empty without models to compare with."""
    board = data["leaderboard"]
    return (
        figures.standing(board, own_rows(data)) if board["around"] and data["adaptive"]["accuracy"] is not None else ""
    )


def markdown(data: Mapping[str, Any]) -> list[str]:
    """The section as lines of markdown."""
    board = data["leaderboard"]
    lines = [
        "",
        "Beside RobustBench: " + plain(standing_line(data)),
        *(f"- not comparable: {plain(why)}" for why in board["unfair"]),
    ]
    if not board["around"]:
        return lines
    rows = [(name, percent(value), "") for name, value, _, _ in own_rows(data)]
    rows += [(e["name"], percent(e["robust"]), percent(e["clean"])) for e in board["around"]]
    table = ["", "| model | robust | clean |", "|---|---|---|"]
    return [*lines, *table, *(f"| {plain(a)} | {b} | {c} |" for a, b, c in rows)]
