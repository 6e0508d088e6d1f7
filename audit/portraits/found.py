"""The adversarial images that a run stored, and a choice of them to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.ledger import Ledger
from audit.plan import Plan


@dataclass(frozen=True)
class Found:
    """One verified adversarial image: of which image (`id`), by which step, and what the defense then answered.

    x_adv: float32 (c, h, w).
    """

    id: int
    step: str
    x_adv: NDArray[np.float32]
    prediction: int


def stored_images(plan: Plan, ledger: Ledger) -> list[Found]:
    """Every broken image of every step but controls, those of "survivors" steps first: they are the hardest won."""
    order = sorted(range(len(plan.steps)), key=lambda i: plan.steps[i].scope != "survivors")
    found = []
    for unit in sorted((u for u in plan.units() if u.step is not None), key=lambda u: order.index(u.step or 0)):
        stored = ledger.read(unit.name)
        if stored is None or unit.step is None or plan.steps[unit.step].scope == "control":
            continue
        arrays, name = stored[0], plan.steps[unit.step].name
        kept = arrays["kept"]
        columns = (arrays[column][kept] for column in ("ids", "prediction", "broken"))
        for image, prediction, broken, x_adv in zip(*columns, arrays["x_adv"], strict=True):
            if broken:
                found.append(Found(int(image), name, x_adv, int(prediction)))
    return found


def changed(found: Sequence[Found], x: NDArray[np.float32]) -> list[Found]:
    """Those that differ from their clean image; a random defense may fail on one that nothing was done to. x: (n, c, h, w)."""
    return [f for f in found if not np.array_equal(f.x_adv, x[f.id])]


def spread(found: Sequence[Found], label: NDArray[np.int64], count: int) -> list[Found]:
    """Up to `count` of them, no image twice, in turn over steps and over classes. label: int64 (n,) of all images."""
    left, chosen = list(found), list[Found]()
    steps, classes = Counter[str](), Counter[int]()
    while left and len(chosen) < count:
        best = min(left, key=lambda f: (steps[f.step], classes[int(label[f.id])]))  # the first of equals
        chosen.append(best)
        steps[best.step] += 1
        classes[int(label[best.id])] += 1
        left = [f for f in left if f.id != best.id]
    return chosen


def one_each(found: Sequence[Found], below: int) -> list[Found]:
    """The first that was found of each image with an id less than `below`, by id."""
    first: dict[int, Found] = {}
    for item in found:
        if item.id < below:
            first.setdefault(item.id, item)
    return [first[key] for key in sorted(first)]
