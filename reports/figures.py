"""Figures as inline SVG that follows the page's colours, light or dark.

matplotlib draws in placeholder colours; each is then replaced by a CSS variable of the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from audit.results import Results, StepResult

INK, MUTED, CLAIMED, ADAPTIVE = "#010203", "#010204", "#010205", "#010206"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", CLAIMED: "var(--claimed)", ADAPTIVE: "var(--adaptive)"}
Placed = tuple[str, float, Sequence[float] | None, str]  # name, accuracy, interval, colour
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "audit", "font.family": "sans-serif", "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, variable)
    body = text[text.index("<svg") :]
    return body.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def attack_bars(attacks: Sequence[dict[str, Any]]) -> str:
    """Robust accuracy per attack with its interval: alone for the claimed ones, worst case so far for the rest."""
    shown = [a for a in attacks if a["scope"] not in ("trial", "control") and a["accuracy"] is not None]
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.2, 0.32 * len(shown) + 0.8)
        for row, attack in enumerate(shown):
            low, high = attack["interval"]
            value = attack["accuracy"]
            colour = CLAIMED if attack["suite"] == "claimed" else ADAPTIVE
            error = [[max(value - low, 0)], [max(high - value, 0)]]
            axes.barh(row, value, color=colour, xerr=error, error_kw={"ecolor": INK, "capsize": 2, "lw": 1})
            axes.text(min(high + 0.015, 1.0), row, f"{value:.1%}", va="center")
        axes.set_yticks(range(len(shown)), [f"{a['name']} ({a['accuracy_is']})" for a in shown])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.08)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.set_xlabel("robust accuracy, 95 % interval")
        return _svg(figure, "Robust accuracy per attack")


def traces(results: Results) -> str:
    """Share of the attacked images for which an adversarial query has been seen, along each attack's queries."""
    chosen = [
        r for r in results.steps if r.traces and r.step.scope != "control" and r.step.attack not in ("square", "fgsm")
    ]
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.2, 3.0)
        ends = []
        for result in chosen:
            share = _mean_trace(result)
            colour = CLAIMED if result.step.suite == "claimed" else ADAPTIVE
            axes.plot(np.linspace(0, 1, len(share)), share, color=colour, lw=1.4, alpha=0.8)
            ends.append((float(share[-1]), result.step.name, colour))
        _label_ends(axes, ends)
        axes.set_xlim(0, 1.25)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xticks([0, 0.5, 1], ["start", "half", "end"])
        axes.set_xlabel("progress of the attack")
        axes.set_ylabel("share of its images broken")
        return _svg(figure, "Images broken along each attack")


def standing(board: dict[str, Any], own: Sequence[Placed]) -> str:
    """Robust accuracy of the models around a defense, and the defense's own figures among them, best first.

    own: name, accuracy, its interval if there is one, and the colour.
    """
    others: list[Placed] = [(e["name"], e["robust"], None, MUTED) for e in board["around"]]
    rows = sorted([*others, *own], key=lambda row: -row[1])
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.2, 0.32 * len(rows) + 0.8)
        for place, (_, value, interval, colour) in enumerate(rows):
            low, high = interval or (value, value)
            axes.hlines(place, low, high, color=colour, lw=2)
            axes.plot([value], [place], "o", color=colour)
            axes.text(min(high + 0.015, 1.0), place, f"{value:.1%}", va="center", color=colour)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        for label, (*_, colour) in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_color(colour)
        axes.invert_yaxis()
        axes.set_xlim(-0.02, 1.08)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.set_xlabel("robust accuracy")
        return _svg(figure, "The defense among RobustBench's models")


def _mean_trace(result: StepResult) -> NDArray[Any]:
    grid = np.linspace(0, 1, 100)
    curves = np.stack([np.interp(grid, np.linspace(0, 1, len(t)), t[:, 2]) for t in result.traces])
    mean: NDArray[Any] = curves.mean(0)
    return mean


def _label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Names at the right end of their lines, moved apart so that none covers another."""
    last = -1.0
    for value, name, colour in sorted(ends):
        last = max(value, last + 0.075)
        axes.text(1.02, last, name, color=colour, va="center", fontsize=9)


def logit_heatmap(results: Results, classes: Sequence[str]) -> str:
    """Mean logit of every class (columns) over the images of every class (rows): super-fitting, Fig. 2."""
    rows = [results.logits[results.label == k] for k in range(len(classes))]
    table = np.stack([r.mean(0) if len(r) else np.full(results.logits.shape[1], np.nan) for r in rows])
    limit = float(np.nanmax(np.abs(table))) or 1.0
    with mpl.rc_context(STYLE):
        figure, axes = _figure(6.2, 4.6)
        axes.imshow(table, cmap="RdBu_r", vmin=-limit, vmax=limit)
        for (i, j), value in np.ndenumerate(table):
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7,
                      color="#ffffff" if abs(value) > 0.6 * limit else "#000000")  # fmt: skip
        axes.set_xticks(range(table.shape[1]), list(classes[: table.shape[1]]), rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), list(classes))
        axes.set_xlabel("logit of class")
        axes.set_ylabel("images of class")
        return _svg(figure, "Mean logits per class")


def picture(image: NDArray[Any], *, signed: float | None = None) -> str:
    """A data URI of an image (c, h, w) in [0,1]; `signed` maps [-signed, signed] to a diverging colour map."""
    buffer = io.BytesIO()
    if signed is not None:
        imsave(buffer, image.mean(0), cmap="RdBu_r", vmin=-signed, vmax=signed, format="png")
    elif image.shape[0] == 1:
        imsave(buffer, image[0], cmap="gray", vmin=0, vmax=1, format="png")
    else:
        imsave(buffer, image.transpose(1, 2, 0).clip(0, 1), format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
