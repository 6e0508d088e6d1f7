"""What the run measured of its model to be looked at (portraits.npz), as parts of the page. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from reports import portrait_numbers as numbers
from reports.attention import attention_cards
from reports.planes import surface
from reports.scatter import ce_against_margin, feature_map
from reports.series import channel_bars, increment_lines, norm_histogram, training_curves
from reports.wording import sentence

TITLES = {
    "attention": "Grad-CAM", "features": "the map of features", "channels": "the channels", "losses": "cross-entropy against margin",
    "norms": "the histogram of gradient norms", "surface": "the loss surface",
}  # fmt: skip


@dataclass(frozen=True)
class Portraits:
    """The arrays of portraits.npz, and what it says about them."""

    arrays: dict[str, Any]
    about: dict[str, Any]
    classes: Sequence[str]

    def finite(self, name: str) -> Any:
        """The array `name`. Raises KeyError where it is missing, ValueError where it is empty or not all finite."""
        found = self.arrays[name]
        if not found.size or not np.isfinite(found).all():
            raise ValueError(f"array {name!r} of portraits.npz is empty or holds NaN, expected finite numbers")
        return found


def read_portraits(run_dir: Path, classes: Sequence[str]) -> Portraits | None:
    """None where the run has none or they are damaged, for the report's figures do not rest on them."""
    try:
        with (run_dir / "portraits.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        about = json.loads(str(arrays.pop("about")))
    except Exception:  # noqa: BLE001 - a damaged archive makes zipfile, zlib and numpy raise nearly anything
        return None
    return Portraits(arrays, about, classes) if isinstance(about, dict) else None


def page_portraits(run_dir: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Parts of the page by name, each None where there is nothing to draw: `attention` (cards), and with `drawing`,
    `titles` and `rows` of their table: `features`, `channels`, `increments`, `losses`, `norms`, `surface`, `training`; and `notes`:
    what was left out, as sentences.
    """
    found = read_portraits(run_dir, classes)
    parts = {name: None if found is None else _drawn(build, found) for name, build in PARTS.items()}
    notes = found.about.get("notes", {}) if found is not None else {}
    said = notes.items() if isinstance(notes, dict) else ()
    return {
        **parts,
        "notes": [sentence(f"{TITLES[name]} was left out: {why}") for name, why in said if name in TITLES],
    }


def _drawn(build: Callable[[Portraits], Any], found: Portraits) -> Any:
    """A part, or None where its arrays are missing or do not fit together: an altered file costs the part, not the page."""
    try:
        return build(found)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        return None


def _attention(found: Portraits) -> Any:
    return {"cards": attention_cards(found.arrays, found.about["attention_views"], found.classes), "layer": found.about["convolution"]}  # fmt: skip


def _features(found: Portraits) -> Any:
    a = found.arrays
    drawing = feature_map(a["points"], a["point_label"], a["is_adversarial"], found.classes, found.about["method"])
    table = numbers.strangers(a["point_label"], a["is_adversarial"], a["strangers"], found.classes)
    bare = None
    if "bare_points" in a:
        drawn = feature_map(
            a["bare_points"], a["point_label"], a["is_adversarial"], found.classes, found.about["method"]
        )
        own = numbers.strangers(a["point_label"], a["is_adversarial"], a["bare_strangers"], found.classes)
        bare = {"drawing": Markup(drawn), **own}
    return {
        "drawing": Markup(drawing),
        "bare": bare,
        **table,
        **{name: found.about[name] for name in ("method", "layer", "behind")},
    }


def _channels(found: Portraits) -> Any:
    channels = found.finite("channels")
    return {
        "drawing": Markup(channel_bars(channels[0], channels[1])), **numbers.channels(channels), "layer": found.about["convolution"],
        "images": found.about["channel_images"],
    }  # fmt: skip


def _increments(found: Portraits) -> Any:
    values = found.finite("increments")
    return {"drawing": Markup(increment_lines(values)), **numbers.increments(values)}


def _losses(found: Portraits) -> Any:
    clean, adversarial = found.finite("losses_clean"), found.arrays.get("losses_adversarial")
    drawing = ce_against_margin(clean, adversarial)
    return {"drawing": Markup(drawing), **numbers.losses(clean, adversarial)}


def _norms(found: Portraits) -> Any:
    norms = found.finite("norms")
    return {"drawing": Markup(norm_histogram(norms)), **numbers.norms(norms), "of": found.about["norms_of"]}


def _surface(found: Portraits) -> Any:
    values = found.finite("surface")
    about = {name: found.about[name] for name in ("surface_of", "along", "surface_ids")}
    about["edge"] = "surface_distance" in found.arrays
    return {
        "drawing": Markup(surface(values, about["along"], found.arrays.get("surface_distance"))),
        **numbers.surface(values),
        **about,
    }


def _training(found: Portraits) -> Any:
    table = found.about["training"]
    if table is None:
        return None
    rows = np.asarray(table["rows"], np.float64)
    columns = [str(name) for name in table["columns"]]
    return {"drawing": Markup(training_curves(columns, rows)), **numbers.training(columns, rows)}


PARTS: dict[str, Callable[[Portraits], Any]] = {
    "attention": _attention, "features": _features, "channels": _channels, "increments": _increments, "losses": _losses, "norms": _norms,
    "surface": _surface, "training": _training,
}  # fmt: skip
