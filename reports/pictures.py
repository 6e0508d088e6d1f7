"""The cards of the gallery, from the images that the run kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reports.figures import picture
from reports.wording import percent

GALLERY_NOTE = (
    "The class that was answered, with its softmax probability. Difference: red where the adversarial image is brighter, blue "
    "where it is darker, the mean over colour channels. Where a test-time part stands in front of the network, the first two "
    "answers are those of the bare network, and the answers to what the part made of them are the defense's, for a random one "
    "a mean over 20 draws, whose picture is one of them."
)


def cards(run_dir: Path, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One for each image of gallery.npz; none where it is missing or damaged, for the report's figures do not rest on it."""
    try:
        with (run_dir / "gallery.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return [_card(arrays, i, classes) for i in range(len(arrays["ids"]))]
    except Exception:  # noqa: BLE001 - a damaged archive makes zipfile, zlib and numpy raise nearly anything
        return []


def gallery_note(found: Sequence[Mapping[str, Any]]) -> str:
    """What the pictures show; how large the differences are, once for all."""
    changes = {card["change"]: card["times"] for card in found}
    if len(changes) == 1:
        ((change, times),) = changes.items()
        size = f"Every difference reaches {change}" + (f" and is shown {times} times as large." if times else ".")
    else:
        size = "Each difference is enlarged until its largest value has the full colour; how large it is stands in the table."
    return f"{GALLERY_NOTE} {size}"


def class_name(index: int, classes: Sequence[str]) -> str:
    """The name of a class, its number where it has none."""
    return classes[index] if 0 <= index < len(classes) else str(index)


def _card(arrays: dict[str, Any], i: int, classes: Sequence[str]) -> dict[str, Any]:
    clean, x_adv = arrays["clean"][i], arrays["x_adv"][i]
    delta = x_adv - clean
    largest = float(np.abs(delta).max())
    views = [
        {"name": name, "picture": picture(image), "answer": answer}
        for (name, answer), image in zip(_answers(arrays, i, classes), (clean, x_adv, *_behind(arrays, i)), strict=True)
    ]
    difference = {"name": "difference", "picture": picture(delta, signed=largest or 1.0), "answer": ""}
    return {
        "id": int(arrays["ids"][i]), "step": str(arrays["step"][i]), "label": class_name(int(arrays["label"][i]), classes),
        "change": f"{255 * largest:.3g}/255", "times": f"{1 / largest:.3g}" if largest else "",
        "prediction": class_name(int(arrays["prediction"][i]), classes), "views": [*views[:2], difference, *views[2:]],
    }  # fmt: skip


def _behind(arrays: dict[str, Any], i: int) -> Sequence[Any]:
    """What a test-time part made of the clean and the adversarial image, if there is one."""
    return arrays["pictures"][i] if "pictures" in arrays else ()


def _answers(arrays: dict[str, Any], i: int, classes: Sequence[str]) -> list[tuple[str, str]]:
    """The name of each view and what was answered to it; without confidence in run directories of before."""
    if "views" not in arrays:
        return [("clean", ""), ("adversarial", class_name(int(arrays["prediction"][i]), classes))]
    found = zip(arrays["views"], arrays["answers"][i], arrays["confidences"][i], strict=True)
    return [(str(name), f"{class_name(int(answer), classes)} {percent(float(sure))}") for name, answer, sure in found]
