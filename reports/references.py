"""The defense beside its references, image by image, as rows and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.escaping import plain
from reports.wording import percent

TITLES = (
    "reference", "clean", "worst case", "the defense less it", "95 % interval", "only the defense stands",
    "only the reference stands", "McNemar p",
)  # fmt: skip
NOTE = (
    "The same suite ran on each reference and on the same images. An image stands where every attack leaves it right. The "
    "interval is Newcombe's for paired shares (method 10), the p-value exact."
)


def rows(data: Mapping[str, Any]) -> list[list[str]]:
    """A row for each reference; one that cannot be compared says why instead of a difference."""
    return [_row(entry) for entry in data["references"]]


def _row(entry: Mapping[str, Any]) -> list[str]:
    own = [entry["name"], percent(entry["clean"]["accuracy"]), percent(entry["adaptive"]["accuracy"])]
    if entry["differs"]:
        return [*own, f"not comparable: {entry['differs']}", "", "", "", ""]
    low, high = entry["interval"]
    p = entry["p_value"]
    return [
        *own, points(entry["difference"]), f"{points(low)} to {points(high)}", str(entry["only_defense"]),
        str(entry["only_reference"]), "below 0.001" if p < 0.001 else f"{p:.3f}",
    ]  # fmt: skip


def points(share: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * share:+.1f}"


def markdown(data: Mapping[str, Any]) -> list[str]:
    """The section as lines of markdown; none without references."""
    if not data["references"]:
        return []
    table = [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
    return ["", *table, *(f"| {' | '.join(map(plain, row))} |" for row in rows(data)), "", NOTE]
