"""The numbers behind the portraits, as tables: `titles` ("#" before columns of numbers) and `rows` of words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.iterations import short
from reports.pictures import class_name
from reports.wording import percent

Table = dict[str, Any]


def strangers(
    label: NDArray[Any], is_adversarial: NDArray[Any], strange: NDArray[Any], classes: Sequence[str]
) -> Table:
    """For each class, how many points there are and how many adversarial ones lie nearest to a clean image of another."""
    own = label[is_adversarial]
    rows = [
        [class_name(int(k), classes), str(int((label[~is_adversarial] == k).sum())), str(int((own == k).sum())),
         str(int(strange[own == k].sum()))]
        for k in np.unique(label)
    ]  # fmt: skip
    share = f"{int(strange.sum())} of {len(strange)} ({percent(float(strange.mean()))})"
    return {"titles": ["class", "#clean", "#adversarial", "#nearest to another class"], "rows": rows, "share": share}


def channels(values: NDArray[Any]) -> Table:
    """Every channel, most moved first, under attack and under noise, and the part of all movement in the first twentieth."""
    order = np.argsort(-values[0], kind="stable")
    rows = [[f"channel {k}", short(float(values[0, k])), short(float(values[1, k]))] for k in order]
    top = max(1, len(order) // 20)
    total = float(values[0].sum())
    share = percent(float(values[0, order[:top]].sum()) / total) if total else "none"
    means = {"attacked": short(float(values[0].mean())), "noised": short(float(values[1].mean()))}
    return {"titles": ["channel", "#under attack", "#under noise"], "rows": rows, "share": share, "top": top, "all": len(order), **means}  # fmt: skip


def increments(values: NDArray[Any]) -> Table:
    """How far each step moves the activations, of an attack and of noise."""
    rows = [[f"step {i}", short(float(a)), short(float(b))] for i, (a, b) in enumerate(values.T, 1)]
    return {"titles": ["step", "#of an attack", "#of noise"], "rows": rows}


def losses(clean: NDArray[Any], adversarial: NDArray[Any] | None) -> Table:
    """Medians of cross-entropy and margin, and on how many images the cross-entropy is exactly zero."""
    sets = [("clean", clean), *([] if adversarial is None else [("adversarial", adversarial)])]
    rows = [
        [name, str(len(v)), short(float(np.median(v[:, 0]))), short(float(np.median(v[:, 1]))), percent(float((v[:, 0] == 0).mean()))]
        for name, v in sets
    ]  # fmt: skip
    return {
        "titles": ["images", "#number", "#median cross-entropy", "#median margin", "#cross-entropy exactly zero"],
        "rows": rows,
    }


def norms(values: NDArray[Any]) -> Table:
    """How large the gradients of cross-entropy and margin are, and how many are exactly zero."""
    rows = [
        [name, percent(float((v == 0).mean())), *(short(float(q)) for q in np.quantile(v, (0.05, 0.5, 0.95)))]
        for name, v in zip(("cross-entropy", "margin"), values.T, strict=True)
    ]
    return {"titles": ["gradient of", "#exactly zero", "#5 % quantile", "#median", "#95 % quantile"], "rows": rows}


def surface(values: NDArray[Any]) -> Table:
    """Both losses at the image, at the ends of the two directions, and over the whole plane."""
    middle = values.shape[1] // 2
    places = ((middle, middle), (-1, middle), (0, middle), (middle, -1), (middle, 0))
    rows = [
        [name, *(short(float(v[place])) for place in places), short(float(v.min())), short(float(v.max()))]
        for name, v in zip(("cross-entropy", "margin"), values, strict=True)
    ]
    titles = ["loss", "#at the image", "#first direction +eps", "#first direction -eps", "#random +eps", "#random -eps", "#lowest", "#highest"]  # fmt: skip
    return {"titles": titles, "rows": rows}


def training(columns: Sequence[str], values: NDArray[Any]) -> Table:
    """The training table as it is."""
    rows = [[f"{row[0]:g}", *(f"{value:.4g}" for value in row[1:])] for row in values]
    return {"titles": [columns[0], *(f"#{name.replace('_', ' ')}" for name in columns[1:])], "rows": rows}
