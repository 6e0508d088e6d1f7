"""What an attack saw along its iterations, as small curves with their ends in figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.results import Results
from audit.step_results import StepResult

POINTS = 60
# Columns of a trace (audit.engine), with the range that a curve is drawn in; None: its own.
COLUMNS: tuple[tuple[str, tuple[float, float] | None], ...] = (
    ("CE loss", None), ("margin", None), ("broken share", (0.0, 1.0)), ("zero gradients", (0.0, 1.0)),
    ("gradient norm", None),
)  # fmt: skip
TITLES = tuple(name for name, _ in COLUMNS)


def rows(results: Results) -> list[dict[str, Any]]:
    """A row for each attack of several steps: its name and, by column, a curve with its first and last figure."""
    found = []
    for result in results.steps:
        if result.step.scope != "control" and any(len(t) > 1 for t in result.traces):
            means = mean_trace(result)
            cells = [_cell(means[:, i], limits) for i, (_, limits) in enumerate(COLUMNS)]
            found.append({"name": result.step.name, "cells": cells})
    return found


def points(results: Results) -> list[list[str]]:
    """A row for each point of those curves: the attack, how far it was through its iterations, and the five figures."""
    found = []
    for result in results.steps:
        if result.step.scope != "control" and any(len(t) > 1 for t in result.traces):
            for at, figures in zip(np.linspace(0, 1, POINTS), mean_trace(result), strict=True):
                cells = ["" if np.isnan(value) else f"{value:.6g}" for value in figures]
                found.append([result.step.name, f"{at:.3f}", *cells])
    return found


def mean_trace(result: StepResult) -> NDArray[np.float64]:
    """The traces of the shards on a common grid, averaged over those that have a figure there: (points, 5)."""
    grid = np.linspace(0, 1, POINTS)
    shards = []
    for trace in (np.asarray(t, np.float64) for t in result.traces if len(t) > 1):
        at = np.linspace(0, 1, len(trace))
        shards.append(np.stack([np.interp(grid, at, trace[:, i]) for i in range(trace.shape[1])], 1))
    stacked = np.stack(shards)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(0)
    mean: NDArray[np.float64] = np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
    return mean


def _cell(curve: NDArray[np.float64], limits: tuple[float, float] | None) -> dict[str, Any]:
    """The points of a polyline in a box of 100 by 20, and its ends in words; no points where nothing was measured."""
    known = np.flatnonzero(np.isfinite(curve))
    if not len(known):
        return {"points": "", "words": "not measured", "last": ""}
    low, high = limits or (float(curve[known].min()), float(curve[known].max()))
    heights = 19 - 18 * (curve[known] - low) / ((high - low) or 1.0)
    points = " ".join(f"{x:.0f},{y:.1f}" for x, y in zip(100 * known / (len(curve) - 1), heights, strict=True))
    first, last = float(curve[known[0]]), float(curve[known[-1]])
    return {"points": points, "words": f"{short(first)} to {short(last)}", "last": last}


def short(value: float) -> str:
    """Three digits, without the noise of an exact zero; as 1,500 and not 1.5e+03 up to a million."""
    return "0" if value == 0 else f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
