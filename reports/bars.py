"""Robust accuracy as bars: per attack, and per route of an attack on a defense with a test-time part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from reports.figures import (
    ADAPTIVE,
    CLAIMED,
    FULL,
    INK,
    MUTED,
    NARROW,
    PAPER,
    STYLE,
    cut,
    new_figure,
    responsive,
    shares,
    to_svg,
)

TINT = 0.3  # of the colour in a bar, so that the ink of its interval stands out against it


@dataclass(frozen=True)
class Kind:
    """How a bar is drawn: told apart by its hatching, not by its colour alone."""

    words: str
    colour: str
    hatch: str

    @property
    def face(self) -> Any:
        """What lies in the bar: the page under a hatching (whose pattern would hide a tint), else a tint of the colour."""
        return PAPER if self.hatch else to_rgba(self.colour, TINT)


KINDS = {
    "claimed": Kind("attack of the claim", CLAIMED, "///"),
    "adaptive": Kind("another attack", ADAPTIVE, ""),
    "bare": Kind("bare network", MUTED, "..."),
    "transfer": Kind("by transfer", CLAIMED, "///"),
    "end_to_end": Kind("end to end", ADAPTIVE, ""),
}
Bar = tuple[str, str, float, Sequence[float]]  # label, kind, accuracy, interval


def shown(attacks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The attacks that have a bar: those that count, ran, and had something left to attack."""
    return [
        a for a in attacks if a["scope"] not in ("trial", "control") and a["accuracy"] is not None and a["attacked"]
    ]


def attack_bars(attacks: Sequence[Mapping[str, Any]]) -> str:
    """Robust accuracy per attack with its interval: alone for the claimed ones, worst case so far (a star) for the rest."""
    bars = [
        (a["name"] + " *" * (a["accuracy_is"] == "cumulative"), "claimed" if a["suite"] == "claimed" else "adaptive", a["accuracy"], a["interval"])
        for a in shown(attacks)
    ]  # fmt: skip
    return _bars(bars, "Robust accuracy per attack") if bars else ""


def route_bars(routes: Sequence[Mapping[str, Any]]) -> str:
    """For each attack a bar on the bare network, one by transfer and one end to end, as far as they were measured."""
    bars: list[Bar] = []
    for family in routes:
        ran = [kind for kind in ("bare", "transfer", "end_to_end") if family[kind]["accuracy"] is not None]
        for kind in ran:
            label = family["attack"] if kind == ran[0] else ""
            bars.append((label, kind, family[kind]["accuracy"], family[kind]["interval"]))
    return _bars(bars, "Robust accuracy of each attack on its routes") if bars else ""


@responsive
def _bars(bars: Sequence[Bar], title: str) -> str:
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, 0.3 * len(bars) + 1.1)
        for row, (_, kind, value, interval) in enumerate(bars):
            _bar(axes, row, KINDS[kind], value, interval)
        axes.set_yticks(range(len(bars)), [cut(label) for label, *_ in bars], fontsize=8 if NARROW.get() else 10)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.2 if NARROW.get() else 1.08)
        shares(axes.xaxis)
        axes.set_xlabel("robust accuracy, 95 % interval")
        used = [kind for name, kind in KINDS.items() if name in {kind for _, kind, *_ in bars}]
        figure.legend(
            handles=[_patch(kind) for kind in used],
            loc="outside upper left",
            frameon=False,
            ncols=1 if NARROW.get() else 3,
        )
        return to_svg(figure, title)


def _bar(axes: Axes, row: int, kind: Kind, value: float, interval: Sequence[float]) -> None:
    low, high = interval
    error = [[max(value - low, 0)], [max(high - value, 0)]]
    axes.barh(
        row, value, height=0.7, color=kind.face, edgecolor=kind.colour, hatch=kind.hatch, lw=1.2,
        xerr=error, error_kw={"ecolor": INK, "capsize": 3, "lw": 1.6},
    )  # fmt: skip
    axes.text(min(high + 0.015, 1.02), row, f"{value:.1%}", va="center")


def _patch(kind: Kind) -> Patch:
    return Patch(facecolor=kind.face, edgecolor=kind.colour, hatch=kind.hatch, lw=1.2, label=kind.words)
