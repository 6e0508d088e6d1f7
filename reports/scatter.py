"""Clouds of points: the map of features, and cross-entropy against margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from reports.figures import (
    ADAPTIVE,
    CLAIMED,
    FULL,
    INK,
    MUTED,
    NARROW,
    PAPER,
    STYLE,
    above,
    new_figure,
    responsive,
    to_svg,
)
from reports.pictures import class_name

# Each has 3 : 1 against the light and the dark page (WCAG 2.2, 1.4.11).
PALETTE = ("#3f7fd6", "#d06a10", "#2f9150", "#dc4a5c", "#9063c8", "#a5714a", "#cc5299", "#7b858f", "#8d8920", "#1a8fa0")
SMALLEST = 1e-8  # below what float32 cross-entropy can be without being zero


@responsive
def feature_map(
    points: NDArray[Any], label: NDArray[Any], is_adversarial: NDArray[Any], classes: Sequence[str], method: str
) -> str:
    """Features in two dimensions: a dot for a clean image, a cross for an adversarial one, coloured by its true class."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, 5.2)
        for k in np.unique(label):
            colour = PALETTE[int(k) % len(PALETTE)]
            clean, moved = (points[(label == k) & (is_adversarial == kind)] for kind in (False, True))
            axes.plot(clean[:, 0], clean[:, 1], "o", ms=4, color=colour, mew=0, label=class_name(int(k), classes))
            axes.plot(moved[:, 0], moved[:, 1], "x", ms=6, color=colour, mew=1.6)
        for k in np.unique(label[~is_adversarial]):
            _named(axes, points[(label == k) & ~is_adversarial], class_name(int(k), classes))
        axes.plot([], [], "o", ms=4, color=MUTED, label="clean")
        axes.plot([], [], "x", ms=6, mew=1.6, color=MUTED, label="adversarial, by its true class")
        axes.spines[:].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0), ncols=2 if NARROW.get() else 6, fontsize=9)
        return to_svg(figure, f"{method} of {len(points)} features, {int(is_adversarial.sum())} of them adversarial")


def _named(axes: Axes, cloud: NDArray[Any], name: str) -> None:
    """The name of a class beside its cloud: above the middle, clear of nine tenths of its points."""
    place = np.median(cloud[:, 0]), np.quantile(cloud[:, 1], 0.9)
    box = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    axes.annotate(
        name, place, (0, 7), textcoords="offset points", ha="center", va="bottom", fontsize=9, color=INK, bbox=box
    )


@responsive
def ce_against_margin(clean: NDArray[Any], adversarial: NDArray[Any] | None) -> str:
    """A point for each image: its margin, and its float32 cross-entropy on a logarithmic scale with zeros at the bottom."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, 3.4)
        sets = [("clean", clean, "o", ADAPTIVE), ("adversarial", adversarial, "x", CLAIMED)]
        for name, values, marker, colour in sets:
            if values is not None:
                loss, margin = values[:, 0], values[:, 1]
                axes.plot(margin, np.maximum(loss, SMALLEST), marker, ms=4, color=colour, label=name, alpha=0.8)
        axes.axvline(0, color=MUTED, lw=1)
        axes.set_yscale("log")
        axes.set_ylim(SMALLEST / 3, None)
        ticks = [SMALLEST, 1e-6, 1e-4, 1e-2, 1, 100]
        axes.set_yticks(ticks, ["exactly 0", *(f"{t:g}" for t in ticks[1:])])
        axes.minorticks_off()
        axes.set_xlabel("margin: logit of the right class less the best other one")
        axes.set_ylabel("cross-entropy")
        above(axes)
        return to_svg(figure, "Cross-entropy against margin, a point for each image")
