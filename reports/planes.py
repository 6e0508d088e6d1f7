"""Heat maps of the two losses on a plane around an image."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from reports.figures import FULL, INK, STYLE, panels, responsive, to_svg

NAMES = ("cross-entropy", "margin")


@responsive
def surface(values: NDArray[Any], along: str) -> str:
    """values: (2, s, s) of cross-entropy and margin; rows along the gradient (or a random direction), from -eps to eps."""
    with mpl.rc_context(STYLE):
        figure, axes = panels(FULL, 3.1, columns=2)
        for ax, name, plane in zip(axes, NAMES, values.astype(np.float64), strict=True):
            flat = float(plane.max() - plane.min()) == 0
            drawn = ax.imshow(plane.T, origin="lower", extent=(-1, 1, -1, 1), cmap="viridis")
            if not flat:
                grid = np.linspace(-1, 1, len(plane))
                ax.contour(grid, grid, plane.T, levels=6, colors="#ffffff", linewidths=0.6, alpha=0.7)
            ax.plot([0], [0], "+", color="#ffffff", ms=9, mew=1.6)
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
