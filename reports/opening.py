"""The first screen: the claimed figures against the measured ones on one scale, and what the audit was of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.wording import headline, percent

ROWS = (
    ("clean", "clean accuracy"),
    ("claimed", "under the claimed attacks"),
    ("adaptive", "worst case over all attacks"),
)


def scale(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each figure that the verdict rests on: its colour, name, words, place, interval (in percent) and n.

    The paper's own number comes first where it is what is under audit; it has no interval.
    """
    claim = data["claim"]
    rows = []
    if claim is not None and claim["basis"] != "measured":
        value = claim["robust_acc"]
        rows.append(_row("print", "the claim", percent(value), value, None, f"under {claim['attack']}"))
    for key, name in ROWS:
        figure = data[key]
        interval = figure["interval"]
        note = "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}, n = {figure['n']}"
        rows.append(_row(key, name, headline(data, key), figure["accuracy"], interval, note))
    return rows


def _row(colour: str, name: str, words: str, value: float | None, interval: Any, note: str) -> dict[str, Any]:
    low, high = (100 * end for end in interval) if interval is not None else (0.0, 0.0)
    place = None if value is None else 100 * value
    return {
        "colour": colour, "name": name, "words": words, "place": place, "note": note,
        "range": None if interval is None or place is None else (low, high - low),
    }  # fmt: skip
