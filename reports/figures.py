"""Figures as inline SVG that follows the page's colours, light or dark.

matplotlib draws in placeholder colours; each is then replaced by a CSS variable of the page. Each figure is drawn twice, for
a wide window and for a phone, so that its letters keep their size; the page's style shows one of them.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from audit.results import Results

INK, MUTED, CLAIMED, ADAPTIVE, PAPER = "#010203", "#010204", "#010205", "#010206", "#010207"
VARIABLES = {
    INK: "var(--ink)", MUTED: "var(--muted)", CLAIMED: "var(--claimed)", ADAPTIVE: "var(--adaptive)", PAPER: "var(--paper)",
}  # fmt: skip
NARROW = ContextVar("NARROW", default=False)  # is the figure drawn for a phone?
FULL, PHONE = 9.4, 3.75  # inches: 900 and 360 CSS pixels
LARGEST = 112  # pixels of a picture's side; a larger one is shown coarser
Placed = tuple[str, float, Sequence[float] | None, str]  # name, accuracy, interval, colour
P = ParamSpec("P")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "audit", "text.parse_math": False,  # names may hold dollars
    "font.family": "sans-serif", "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def responsive(draw: Callable[P, str]) -> Callable[P, str]:
    """The drawing for a wide window and, after it, that for a phone."""

    @wraps(draw)
    def both(*args: P.args, **options: P.kwargs) -> str:
        drawn = draw(*args, **options)
        token = NARROW.set(True)
        try:
            return drawn + draw(*args, **options)
        finally:
            NARROW.reset(token)

    return both


def to_svg(figure: Figure, title: str) -> str:
    """The figure as an inline SVG with a title for screen readers, in the page's colours."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, variable)
    kind = "narrow" if NARROW.get() else "wide"
    body = re.sub(
        r'(id="|url\(#|href="#)', rf"\g<1>{kind}-", text[text.index("<svg") :]
    )  # two of one name would be one
    return body.replace("<svg", f'<svg role="img" aria-label="{html.escape(title, quote=True)}" class="{kind}"', 1)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of so many inches, and its axes."""
    figure, axes = panels(width, height)
    return figure, axes[0]


def panels(width: float, height: float, *, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many inches, without a background, and its axes row by row; on a phone one below the other."""
    if NARROW.get():
        rows, columns, width, height = rows * columns, 1, min(width, PHONE), height * columns
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(rows * columns)]
    for one in axes:
        one.patch.set_alpha(0)
    return figure, axes


def cut(text: str) -> str:
    """A label that leaves room for what it stands beside."""
    most = 24 if NARROW.get() else 60
    return text if len(text) <= most else f"{text[: most - 1]}…"


def above(axes: Axes) -> None:
    """The legend in a row above the axes, where it hides no line."""
    ncols = 1 if NARROW.get() else 4
    axes.legend(
        frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=ncols, borderaxespad=0.2, columnspacing=1.4
    )


def shares(axis: Axis) -> None:
    """Ticks of an axis from 0 to 1, in percent."""
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


@responsive
def standing(board: dict[str, Any], own: Sequence[Placed]) -> str:
    """Robust accuracy of the models around a defense, and the defense's own figures among them, best first.

    own: name, accuracy, its interval if there is one, and the colour.
    """
    others: list[Placed] = [(e["name"], e["robust"], None, MUTED) for e in board["around"]]
    rows = sorted([*others, *own], key=lambda row: -row[1])
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, 0.32 * len(rows) + 0.8)
        for place, (_, value, interval, colour) in enumerate(rows):
            low, high = interval or (value, value)
            axes.hlines(place, low, high, color=colour, lw=2)
            axes.plot([value], [place], "o", color=colour)
            axes.text(min(high + 0.015, 1.0), place, f"{value:.1%}", va="center", color=colour)
        axes.set_yticks(range(len(rows)), [cut(name) for name, *_ in rows], fontsize=8 if NARROW.get() else 10)
        for label, (*_, colour) in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_color(colour)
        axes.invert_yaxis()
        axes.set_xlim(-0.02, 1.2 if NARROW.get() else 1.08)
        shares(axes.xaxis)
        axes.set_xlabel("robust accuracy")
        return to_svg(figure, "The defense among RobustBench's models")


@responsive
def margins(results: Results) -> str:
    """Histogram of the clean images' margins: the right class's logit less the best other one, finite ones only."""
    found = logit_margins(results)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, 2.4)
        _, edges, bars = axes.hist(found, bins=margin_bins(found).tolist(), color=ADAPTIVE)
        for bar, left in zip(bars, edges, strict=False):  # type: ignore[arg-type]
            bar.set_facecolor(MUTED if left < 0 else ADAPTIVE)
        axes.axvline(0, color=MUTED, lw=1)
        axes.set_xlabel("logit of the right class less the best other one")
        axes.set_ylabel("images")
        return to_svg(figure, f"Histogram of logit margins, median {np.median(found):.3g}")


def logit_margins(results: Results) -> NDArray[Any]:
    """One for each image of the clean pass whose logits are finite: shape (m,), m at most n."""
    rows = np.flatnonzero(np.isfinite(results.logits).all(1) & (results.label >= 0))
    logits, label = results.logits[rows].astype(np.float64), results.label[rows]
    right = logits[np.arange(len(rows)), label]
    logits[np.arange(len(rows)), label] = -np.inf
    found: NDArray[Any] = right - logits.max(1)
    return found


def margin_bins(values: NDArray[Any]) -> NDArray[Any]:
    """About 24 edges of one width, with zero among them."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    width = (high - low) / 24 or 1.0
    first, last = np.floor(low / width), np.ceil(high / width)
    edges: NDArray[Any] = width * np.arange(first, max(last, first + 1) + 1)
    return edges


@responsive
def logit_heatmap(results: Results, classes: Sequence[str]) -> str:
    """Mean logit of every class (columns) over the images of every class (rows): super-fitting, Fig. 2.

    Outputs that are no class of the images, of which a network trained for more has many, are left out.
    """
    logits = results.logits[:, : len(classes)]
    rows = [logits[results.label == k] for k in range(len(classes))]
    table = np.stack([r.mean(0) if len(r) else np.full(logits.shape[1], np.nan) for r in rows])
    limit = float(np.nanmax(np.abs(table))) or 1.0
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(6.2, 4.6)
        drawn = axes.imshow(table, cmap="RdBu_r", vmin=-limit, vmax=limit)
        for (i, j), value in np.ndenumerate(table):
            ink = legible(np.asarray(drawn.to_rgba(value)).tolist())
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
        axes.set_xticks(range(table.shape[1]), list(classes[: table.shape[1]]), rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), list(classes))
        axes.set_xlabel("logit of class")
        axes.set_ylabel("images of class")
        return to_svg(figure, "Mean logits per class")


def legible(ground: Sequence[float]) -> str:
    """Black or white, whichever has 4.5 : 1 on a colour of red, green, blue in [0,1] (WCAG 2.2, relative luminance)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in ground[:3]]
    return "#ffffff" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.179 else "#000000"


def picture(image: NDArray[Any], *, signed: float | None = None) -> str:
    """A data URI of an image (c, h, w) in [0,1]; `signed` maps [-signed, signed] to a diverging colour map."""
    buffer, coarse = io.BytesIO(), -(-max(image.shape[1:]) // LARGEST)
    image = image[:, ::coarse, ::coarse]
    if signed is not None:
        imsave(buffer, image.mean(0), cmap="RdBu_r", vmin=-signed, vmax=signed, format="png")
    elif image.shape[0] == 1:
        imsave(buffer, image[0], cmap="gray", vmin=0, vmax=1, format="png")
    else:
        imsave(buffer, image.transpose(1, 2, 0).clip(0, 1), format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
