"""The training table that lies beside a checkpoint: what `audit train` writes as NAME.csv. Torch-free."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

EPOCHS = 500  # rows kept: more are thinned evenly


def training_table(weights: Path) -> dict[str, Any] | None:
    """columns and rows of the table beside `weights`; None where there is none, or it is no table of numbers by epoch."""
    try:
        with weights.with_suffix(".csv").open(newline="") as file:
            columns, *lines = list(csv.reader(file))
        rows = [[float(cell) for cell in line] for line in lines]
    except (OSError, ValueError, csv.Error):
        return None
    fits = all(len(row) == len(columns) and all(map(math.isfinite, row)) for row in rows)
    if columns[:1] != ["epoch"] or len(columns) < 2 or not rows or not fits:
        return None
    kept = (
        sorted({round(i * (len(rows) - 1) / (EPOCHS - 1)) for i in range(EPOCHS)})
        if len(rows) > EPOCHS
        else range(len(rows))
    )
    return {"columns": columns, "rows": [rows[i] for i in kept]}
