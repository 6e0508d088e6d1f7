"""The cards of the gallery, from the images that the run kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reports.figures import picture


def cards(run_dir: Path, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One for each image of gallery.npz; none where it is missing or damaged, for the report's figures do not rest on it."""
    try:
        with (run_dir / "gallery.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return [_card(arrays, i, classes) for i in range(len(arrays["ids"]))]
    except Exception:  # noqa: BLE001 - a damaged archive makes zipfile, zlib and numpy raise nearly anything
        return []


def _card(arrays: dict[str, Any], i: int, classes: Sequence[str]) -> dict[str, Any]:
    def name(index: int) -> str:
        return classes[index] if 0 <= index < len(classes) else str(index)

    delta = arrays["x_adv"][i] - arrays["clean"][i]
    largest = float(np.abs(delta).max())
    return {
        "id": int(arrays["ids"][i]), "step": str(arrays["step"][i]), "label": name(int(arrays["label"][i])),
        "prediction": name(int(arrays["prediction"][i])), "clean": picture(arrays["clean"][i]),
        "adversarial": picture(arrays["x_adv"][i]), "difference": picture(delta, signed=largest or 1.0),
        "largest": f"{255 * largest:.3g}/255", "amplified": f"{1 / largest:.3g}" if largest else "",
    }  # fmt: skip
