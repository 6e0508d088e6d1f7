"""Bars and lines: channels under attack, gradient norms, training curves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from reports.figures import (
    ADAPTIVE,
    CLAIMED,
    FULL,
    INK,
    MUTED,
    PAPER,
    STYLE,
    above,
    new_figure,
    panels,
    responsive,
    shares,
    to_svg,
)

HIDDEN = ("seconds", "learning_rate")
FLOOR = 1e-46  # below the smallest float32


@responsive
def channel_bars(attacked: NDArray[Any], noised: NDArray[Any]) -> str:
    """Mean |change| of each channel under attack (bars, largest first), and under noise of the same size (line)."""
    order = np.argsort(-attacked, kind="stable")
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, 2.8)
        edges = np.arange(len(order) + 1) - 0.5
        axes.stairs(attacked[order], edges, fill=True, color=ADAPTIVE, alpha=0.25)
        axes.stairs(attacked[order], edges, color=ADAPTIVE, lw=1.4, label="adversarial less clean")
        axes.stairs(
            noised[order], edges, ls="--", color=CLAIMED, lw=1.4, label="noise as large, less clean", baseline=None
        )
        axes.set_xlim(-0.5, len(order) - 0.5)
        axes.set_ylim(0, None)
        axes.set_xlabel("channels, most moved first")
        axes.set_ylabel("mean |change|")
        above(axes)
        return to_svg(figure, f"Change of {len(order)} channels under attack and under noise")


@responsive
def increment_lines(values: NDArray[Any]) -> str:
    """Mean |change| of the activations at each step, of an attack and of noise: (2, steps)."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, 2.4)
        steps = np.arange(1, values.shape[1] + 1)
        axes.plot(steps, values[0], "o-", ms=4, color=ADAPTIVE, label="step of an attack")
        axes.plot(steps, values[1], "x--", ms=5, color=CLAIMED, label="step of noise")
        axes.set_xticks(steps)
        axes.set_ylim(0, None)
        axes.set_xlabel("step")
        axes.set_ylabel("mean |change|")
        above(axes)
        return to_svg(figure, "Change of the activations at each step of an attack and of noise")


@responsive
def norm_histogram(norms: NDArray[Any]) -> str:
    """Histograms of log10 of the gradient norms of cross-entropy and margin (n, 2), exact zeros in a bar of their own."""
    logs = np.log10(np.maximum(norms, FLOOR))
    known = logs[norms > 0]
    low, high = (np.floor(known.min()), np.ceil(known.max() + 1e-9)) if len(known) else (-1.0, 0.0)
    edges = np.linspace(low, max(high, low + 1), 31)
    gap = (edges[-1] - edges[0]) * 0.18
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, 2.6)
        zeros = (norms == 0).sum(0)
        apart = 0.25 if zeros.all() else 0.0  # one bar alone stands over its label
        for i, (name, colour, style) in enumerate((("cross-entropy", CLAIMED, "--"), ("margin", ADAPTIVE, "-"))):
            counts, _ = np.histogram(logs[norms[:, i] > 0, i], edges)
            axes.stairs(counts, edges, color=colour, ls=style, lw=1.6, label=name, fill=False)
            hatch = "///" if name == "cross-entropy" else ""
            axes.bar(
                low - gap * (0.85 + apart * (1 - 2 * i)),
                zeros[i],
                gap * 0.45,
                color=PAPER if hatch else to_rgba(colour, 0.3),
                edgecolor=colour,
                hatch=hatch,
            )
        ticks = [t for t in MaxNLocator(6, integer=True).tick_values(low, high) if low <= t <= max(high, low + 1)]
        axes.set_xticks([low - gap * 0.85, *ticks], ["exactly 0", *(f"1e{t:.0f}" for t in ticks)])
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("2-norm of the gradient with respect to the image")
        axes.set_ylabel("images")
        above(axes)
        return to_svg(figure, "Histogram of gradient norms of cross-entropy and margin")


@responsive
def training_curves(columns: Sequence[str], rows: NDArray[Any]) -> str:
    """Loss by epoch above, every column in [0,1] below."""
    shown = {name: rows[:, i] for i, name in enumerate(columns) if i and name not in HIDDEN}
    parts = {name: v for name, v in shown.items() if name != "loss" and v.min() >= 0 and v.max() <= 1}
    rest = {name: v for name, v in shown.items() if name not in parts}
    with mpl.rc_context(STYLE):
        figure, axes = panels(FULL, 4.2 if rest and parts else 2.4, rows=bool(rest) + bool(parts))
        for ax, lines, percent in zip(axes, filter(None, (rest, parts)), [not rest, True], strict=False):
            styles = itertools.cycle(((ADAPTIVE, "-"), (CLAIMED, "--"), (INK, ":"), (MUTED, "-.")))
            for (name, values), (colour, style) in zip(lines.items(), styles, strict=False):
                ax.plot(
                    rows[:, 0], values, ls=style, color=colour, marker="o", ms=3, lw=1.4, label=name.replace("_", " ")
                )
            if percent:
                ax.set_ylim(-0.02, 1.02)
                shares(ax.yaxis)
            elif (
                rest and min(v.min() for v in rest.values()) > 0 and max(v.max() / v.min() for v in rest.values()) > 30
            ):
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            above(ax)
        axes[-1].set_xlabel(columns[0])
        return to_svg(figure, f"Training curves over {len(rows)} epochs")
