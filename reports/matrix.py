"""Which attack broke which image: a strip of images for each attack, and a row for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.results import Results
from audit.step_results import StepResult

# Each kind has a height of its own (its top in a box of 1), so that a strip can be read without telling colours apart.
TOPS = {"broken": 0.0, "crashed": 0.25, "stood": 0.5, "wrong": 0.8}
SHOWN = 1000  # more images than this would be thinner than a pixel, and the page too large


def strips(results: Results) -> list[dict[str, Any]]:
    """A row for each attack that was run: its name, suite, counts, and SVG paths over a width of `width(results)`.

    The images of all strips come in the same order, by the attack that broke them first, so that what an attack adds
    is one block. Paths, by kind: "broken" (this attack broke it), "stood" (it was attacked and stood), "crashed" (the
    attack failed on it and nobody knows), "wrong" (misclassified without an attack).
    """
    order = _order(results)
    wrong = ~results.correct[order]
    rows = []
    for result in _ran(results):
        broken, crashed = result.broken[order], (result.errors & ~result.broken)[order]
        stood = result.attacked[order] & ~broken & ~crashed
        masks = {"broken": broken, "stood": stood, "crashed": crashed, "wrong": wrong & ~result.attacked[order]}
        rows.append({
            "name": result.step.name, "colour": "claimed" if result.step.suite == "claimed" else "adaptive",
            "attacked": int(result.attacked.sum()), "broken": int(result.broken.sum()),
            "first": int(_first(results)[1].count(result.step.name)),
            "paths": {kind: path for kind, mask in masks.items() if (path := runs(mask, TOPS[kind]))},
        })  # fmt: skip
    return rows


def width(results: Results) -> int:
    """How many images a strip shows."""
    return min(results.plan.n, SHOWN)


def images(results: Results, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Up to 1,000 rows: the image, its class, the clean answer, who broke it first, and all who broke it."""
    steps = _ran(results)
    broken = np.stack([r.broken for r in steps]) if steps else np.zeros((0, results.plan.n), bool)

    def name(index: int) -> str:
        return classes[index] if 0 <= index < len(classes) else str(index)

    rows = []
    for i in range(width(results)):
        fell = [r.step.name for r, mask in zip(steps, broken[:, i], strict=True) if mask]
        first = fell[0] if fell else "stands" if results.correct[i] else "misclassified"
        rows.append({
            "id": i, "label": name(int(results.label[i])), "prediction": name(int(results.prediction[i])),
            "first": first, "count": len(fell), "all": ", ".join(fell),
        })  # fmt: skip
    return rows


def runs(mask: NDArray[np.bool_], top: float = 0.0) -> str:
    """An SVG path over the unit squares where the mask (n,) is true, a rectangle from `top` to 1 for each run of them."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    height = f"{1 - top:g}"
    return "".join(f"M{start} {top:g}h{stop - start}v{height}h-{stop - start}z" for start, stop in edges.reshape(-1, 2))


def _ran(results: Results) -> list[StepResult]:
    return [r for r in results.counted if r.attacked.any()]


def _first(results: Results) -> tuple[NDArray[np.int64], list[str]]:
    """For each image the number of the first attack that broke it, and that attack's name, "" for none."""
    steps = _ran(results)
    number = np.full(results.plan.n, len(steps), np.int64)
    for place, result in reversed(list(enumerate(steps))):
        number[result.broken] = place
    return number, [steps[i].step.name if i < len(steps) else "" for i in number]


def _order(results: Results) -> NDArray[np.int64]:
    """The first 1,000 images, by the first attack that broke them; those that stand after them, misclassified ones last."""
    number = _first(results)[0][: width(results)]
    found: NDArray[np.int64] = np.lexsort((number, ~results.correct[: width(results)]))
    return found


def key(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Colours that the strips use, with their meaning."""
    used = {kind for row in rows for kind in row["paths"]}
    for suite, words in (("claimed", "broken by a claimed attack"), ("adaptive", "broken by another attack")):
        if any(row["colour"] == suite and "broken" in row["paths"] for row in rows):
            yield suite, words
    for kind, words in (("stood", "attacked, stands"), ("crashed", "the attack crashed"), ("wrong", "misclassified")):
        if kind in used:
            yield kind, words
    yield "none", "not attacked"
