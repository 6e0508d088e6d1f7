"""Grey images whose brighter half is the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audit.datasets import Dataset, make_dataset

SIZE = 8


class Halves:
    """Implements what `audit.datasets.Known` offers."""

    name, classes, embedded = "halves", ("upper", "lower"), None

    def load(self, split: str = "test", *, data_dir: Path | None = None, download: bool = False) -> Dataset:
        """48 images of 1 x 8 x 8; one half is brighter by 0.1 to 0.5."""
        dice = np.random.default_rng(0 if split == "test" else 1)
        y = np.arange(48) % 2
        x = np.full((48, 1, SIZE, SIZE), 0.4) + 0.02 * dice.random((48, 1, SIZE, SIZE))
        for image, label, extra in zip(x, y, np.linspace(0.1, 0.5, 48), strict=True):
            image[:, label * SIZE // 2 : (label + 1) * SIZE // 2] += extra
        return make_dataset("halves", x, y, self.classes, "drawn by audit-plugin")


HALVES = Halves()
