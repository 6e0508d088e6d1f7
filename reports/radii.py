"""Robust accuracy at other radii: a figure, the tables behind it, and why there may be none."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

from audit.types import show_eps
from reports.figures import ADAPTIVE, FULL, INK, MUTED, STYLE, above, new_figure, responsive, shares, to_svg
from reports.wording import percent

SHORT = "15 steps before the attacks"
NOTE = (
    "Each of these attacks looks for the nearest adversarial image instead of filling the ball. Robust accuracy at a radius is"
    " the share of all images for which it found none within it; the distances are in the norm of the audit."
)
Line = tuple[str, Sequence[tuple[float, float]]]  # name, points of radius and accuracy


def radii(data: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the page: `drawing` (SVG, empty without a curve), `caption`, `missing` (why there is none), `short`, the table of
    the short attack before the others, `titles` and `rows` of the least-norm attacks, and their `note`.
    """
    found = lines(data)
    return {
        "drawing": _drawn(found, data) if found else "", "caption": caption(data), "missing": missing(data), "short": short(data),
        "titles": curve_titles(data), "rows": curve_rows(data), "note": NOTE,
    }  # fmt: skip


def lines(data: Mapping[str, Any]) -> list[Line]:
    """Accuracy by radius, of all images: what least-norm attacks found, and what the short attack before the others did.

    That one was asked of images that are classified rightly, so that its shares are multiplied by the clean accuracy.
    Each line starts from the clean accuracy at radius 0.
    """
    clean = data["clean"]["accuracy"]
    found = [(c["step"], [(p["eps"], p["accuracy"]) for p in c["points"]]) for c in data["curves"]]
    if data["eps_curve"] and clean is not None:
        found.append((SHORT, [(p["eps"], clean * p["accuracy"]) for p in data["eps_curve"]]))
    start = [] if clean is None else [(0.0, clean)]
    return [(name, [*start, *points]) for name, points in found if points]


@responsive
def _drawn(found: Sequence[Line], data: Mapping[str, Any]) -> str:
    """The lines, and at the audit's own radius its worst case with its interval."""
    eps, worst = data["threat"]["eps"], data["adaptive"]
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, 3.3)
        axes.axvline(eps, color=MUTED, lw=1, ls=":")
        styles = itertools.cycle(itertools.product((INK, MUTED), ("-", "--", "-.", ":")))
        for (name, points), (colour, style) in zip(found, styles, strict=False):
            axes.plot(*zip(*points, strict=True), marker="o", ms=4, lw=1.4, ls=style, color=colour, label=name)
        if worst["accuracy"] is not None:
            low, high = worst["interval"]
            error = [[worst["accuracy"] - low], [high - worst["accuracy"]]]
            axes.errorbar([eps], [worst["accuracy"]], error, fmt="D", ms=7, capsize=3, color=ADAPTIVE, label="worst case of the audit", zorder=3)  # fmt: skip
        axes.set_xscale("symlog", linthresh=eps)
        ticks = sorted({0.0, eps, *(x for _, points in found for x, _ in points)})
        axes.set_xticks(ticks, [f"{x:.3g}" for x in ticks], minor=False)
        axes.minorticks_off()
        shares(axes.yaxis)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel(f"radius in {data['threat']['norm']}, to scale up to eps, logarithmic beyond")
        axes.set_ylabel("robust accuracy")
        above(axes)
        return to_svg(figure, "Robust accuracy at other radii")


def caption(data: Mapping[str, Any]) -> str:
    """What the figure shows; the short attack by the number of its images."""
    images = next((f"{point['n']}" for point in data["eps_curve"] if "n" in point), "up to 32")
    said = (
        f" The line '{SHORT}' is of 15 steps of PGD on the margin, on {images} images that are classified rightly: the share that"
        " it leaves standing, times the clean accuracy. A rough line from few images and a short attack: it may lie above the worst case."
    )
    return (
        "A curve that stays up at a radius where every image is in reach tells of an attack that was misled, not of robustness."
        f"{said if data['eps_curve'] else ''} Dotted: the radius of this audit; the diamond is its worst case over all attacks, with its 95 % interval."
    )


def short(data: Mapping[str, Any]) -> dict[str, Any]:
    """The short attack's points: radius, what stands of the images that it was run on, and that times the clean accuracy."""
    clean = data["clean"]["accuracy"] or 0.0
    rows = [[show_eps(p["eps"]), percent(p["accuracy"]), percent(clean * p["accuracy"])] for p in data["eps_curve"]]
    return {"titles": ["#radius", "#of rightly classified images", "#times the clean accuracy"], "rows": rows}


def missing(data: Mapping[str, Any]) -> str:
    """Why there is no curve over the radius; empty where there is one."""
    if data["curves"] or data["eps_curve"]:
        return ""
    cut = any(d["name"] == "shattered_gradient" and d["status"] in ("flagged", "resolved") for d in data["diagnoses"])
    if data["threat"]["norm"] not in ("Linf", "L2"):
        why = f"exists in Linf and L2 alone, and this ball is in {data['threat']['norm']}"
    elif cut:
        why = "follows the gradient to the image, and no gradient leads there through this defense"
    else:
        why = "was not run or found no gradient to follow"
    return (
        "There is no curve over the radius. No attack of this run looks for the nearest adversarial image, and the short attack that"
        f" otherwise draws one (15 steps of PGD on the margin, before the attacks) {why}."
    )


def curve_rows(data: Mapping[str, Any]) -> list[list[str]]:
    """A row for each least-norm attack: its name, the median distance, what it missed, and a figure per radius."""
    return [
        [curve["step"], "not found" if curve["median"] is None else f"{curve['median']:.4g}", str(curve["missed"]),
         *(percent(point["accuracy"]) for point in curve["points"])]
        for curve in data["curves"]
    ]  # fmt: skip


def curve_titles(data: Mapping[str, Any]) -> list[str]:
    """The heads of those rows, "#" before all but the first."""
    points = [show_eps(point["eps"]) for point in data["curves"][0]["points"]] if data["curves"] else []
    return ["attack", "#median distance", "#none found", *(f"#at {radius}" for radius in points)]
