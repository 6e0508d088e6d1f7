"""Heat maps of the two losses on a plane around an image."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from reports.figures import FULL, INK, STYLE, panels, responsive, to_svg

NAMES = ("cross-entropy", "margin")
HALO: list[AbstractPathEffect] = [
    withStroke(linewidth=2.4, foreground="#ffffff", alpha=0.75)
]  # black on white is seen on every colour of the map


@responsive
def surface(values: NDArray[Any], along: str, distance: NDArray[Any] | None = None) -> str:
    """values: (2, s, s) of cross-entropy and margin; rows along the gradient (or a random direction), from -eps to eps.

    distance: (s, s), how far a point is moved, in eps; where it is 1 the edge of the ball is drawn.
    """
    with mpl.rc_context(STYLE):
        figure, axes = panels(FULL, 3.1, columns=2)
        for ax, name, plane in zip(axes, NAMES, values.astype(np.float64), strict=True):
            flat = float(plane.max() - plane.min()) == 0
            drawn = ax.imshow(plane.T, origin="lower", extent=(-1, 1, -1, 1), cmap="viridis")
            grid = np.linspace(-1, 1, len(plane))
            if not flat:
                ax.contour(
                    grid, grid, plane.T, levels=6, colors="#000000", linewidths=0.7, linestyles="solid"
                ).set_path_effects(HALO)
            if distance is not None and distance.max() > 1.001:
                ax.contour(
                    grid, grid, distance.T, levels=[1.0], colors="#000000", linewidths=1.6, linestyles="--"
                ).set_path_effects(HALO)
            ax.plot([0], [0], "+", color="#000000", ms=9, mew=1.6, path_effects=HALO)
            ax.set_title(f"{name}, {'constant ' if flat else ''}{_ends(plane)}", fontsize=10, color=INK)
            ax.set_xticks([-1, 0, 1], ["-eps", "image", "+eps"])
            ax.set_yticks([-1, 0, 1], ["-eps", "0", "+eps"] if ax is axes[0] else ["", "", ""])
            ax.set_xlabel("down the slope of the margin" if along == "gradient" else "along a random direction")
            bar = figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03)
            bar.outline.set_visible(False)
        axes[0].set_ylabel("along a random direction")
        return to_svg(figure, "Cross-entropy and margin on a plane around an image")


def _ends(plane: NDArray[Any]) -> str:
    low, high = float(plane.min()), float(plane.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
