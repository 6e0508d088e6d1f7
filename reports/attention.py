"""Where the network looks: Grad-CAM heat over each image, before an attack, under it, and behind a test-time part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from reports.figures import picture
from reports.pictures import class_name
from reports.wording import percent

STRENGTH = 0.65  # of the colour where the heat is largest
ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


def attention_cards(arrays: dict[str, Any], views: Sequence[str], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One for each image: its id, class, attack, and for each view a picture, the network's answer, and where it looks."""
    cards = []
    for i, image in enumerate(arrays["attention_ids"]):
        heats = arrays["attention_heat"][i].astype(np.float64) / 255
        shown = [
            {
                "name": str(name), "picture": picture(overlaid(arrays["attention_images"][i, v] / 255.0, heats[v])),
                "answer": f"{class_name(int(arrays['attention_answer'][i, v]), classes)} {percent(float(arrays['attention_confidence'][i, v]))}",
                "where": where(heats[v]), "like": alike(heats[0], heats[v]),
            }
            for v, name in enumerate(views)
        ]  # fmt: skip
        label = class_name(int(arrays["attention_label"][i]), classes)
        cards.append({"id": int(image), "label": label, "step": str(arrays["attention_step"][i]), "views": shown})
    return cards


def overlaid(image: NDArray[Any], heat: NDArray[Any]) -> NDArray[Any]:
    """The grey image (c, h, w) in [0,1] under heat (h, w) in [0,1]: (3, h, w)."""
    grey = np.repeat(image.mean(0)[None], 3, 0)
    colour = mpl.colormaps["turbo"](heat)[..., :3].transpose(2, 0, 1)
    found: NDArray[Any] = grey * (1 - STRENGTH * heat) + colour * STRENGTH * heat
    return found


def where(heat: NDArray[Any]) -> str:
    """In words, which of nine fields of the image holds most of the heat."""
    if not heat.sum():
        return "nowhere"
    fields = [[float(part.sum()) for part in np.array_split(row, 3, 1)] for row in np.array_split(heat, 3, 0)]
    row, column = divmod(int(np.argmax(fields)), 3)
    words = f"{ROWS[row]} {COLUMNS[column]}"
    return "the middle" if words == "middle centre" else words


def alike(one: NDArray[Any], other: NDArray[Any]) -> str:
    """The cosine between two maps of heat, as words."""
    sizes = float(np.linalg.norm(one) * np.linalg.norm(other))
    return f"{float((one * other).sum()) / sizes:.2f}" if sizes else "not measured"
