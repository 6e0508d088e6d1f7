"""How a model answers: does it look at the rest of the batch, does it remember, are its answers rounded?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.structure import reachable
from audit.examination.borrowed import borrowed
from audit.examination.frozen import Frozen

FEW = 8
REPEATED = 8
SEEDS = 8  # two networks of which each pass picks one hide from them in 1 of 128 cases, and from `repeats` besides
DIFFERENT = 1e-4  # AutoAttack's bar for a change of normalised logits
COARSE = 3e-6  # the finest grid, relative to the largest logit, that float32 tells from rounding


def _unit(logits: Tensor) -> Tensor:
    return F.normalize(logits.detach().double(), dim=1)


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest change of normalised logits between two answers for the same images."""
    return float((_unit(a) - _unit(b)).norm(dim=1).max())


@torch.no_grad()
def batches(model: nn.Module, x: Tensor, *, seed: int) -> dict[str, Any]:
    """Does an image's answer depend on its companions? Only meant for models that are not random.

    Keys: batch_difference (largest change of normalised logits when an image of x (n, c, h, w) comes alone, among other
    images, or in another order); batch_flips (share of the images whose class changes so).
    """
    ask = Frozen(model, seed)
    few = x[:FEW]
    whole, mixed = ask(x), ask(torch.cat([few, 1 - x[FEW:]]))[: len(few)]
    others = [
        (whole.flip(0), ask(x.flip(0))), (whole[:FEW], torch.cat([ask(image[None]) for image in few])), (whole[:FEW], mixed),
    ]  # fmt: skip
    flips = [float((a.argmax(1) != b.argmax(1)).float().mean()) for a, b in others]
    return {"batch_difference": max(_gap(a, b) for a, b in others), "batch_flips": max(flips)}


@torch.no_grad()
def seeded(model: nn.Module, x: Tensor, *, seed: int) -> dict[str, Any]:
    """Do fresh copies answer differently when only the seed of their random numbers differs? Eight seeds on few images.

    Keys: seed_difference (largest change of normalised logits from the first seed's); random_by_seed (is it too large?).
    """
    answers = []
    for number in range(SEEDS):
        with borrowed(model) as twin:
            answers.append(Frozen(twin, seed + number)(x[:FEW]))
    gap = max(_gap(answers[0], answer) for answer in answers[1:])
    return {"seed_difference": gap, "random_by_seed": gap > DIFFERENT}


class Memory:
    """Has a model changed by being asked? Made before the other measurements, read after them, with one borrowed model.

    All passes use one seed, so that randomness that the seed governs does not count.
    """

    def __init__(self, model: nn.Module, x: Tensor, *, seed: int) -> None:
        self._model, self._x, self._ask = model, x[:FEW], Frozen(model, seed)
        self._tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self._first = self._answer()

    @torch.no_grad()
    def _answer(self) -> Tensor:
        return self._ask(self._x)

    def read(self) -> dict[str, Any]:
        """Keys: state_changes (parameters and buffers that changed, and numbers, lists and mappings that grew or shrank
        with each of 8 passes); state_drift (largest change of normalised logits since the beginning); stateful (bool).

        A model is stateful when something in it changed, or when it answers otherwise than in the beginning while
        successive answers change at most a quarter as much: a slow drift, or a jump. Answers that change as much from
        one pass to the next are a random generator of its own.
        """
        answers, counters = [], []
        for _ in range(REPEATED):
            answers.append(self._answer())
            counters.append(_counters(self._model))
        now = self._model.state_dict()
        changed = [name for name, tensor in self._tensors.items() if not torch.equal(tensor, now[name])]
        changed += _monotone(counters)
        drift = max(_gap(self._first, answer) for answer in answers)
        steps = [_gap(a, b) for a, b in pairwise(answers)]
        moved = drift > DIFFERENT and sum(steps) / len(steps) <= drift / 4
        return {"state_changes": sorted(set(changed)), "state_drift": drift, "stateful": bool(changed) or moved}


def _counters(model: nn.Module) -> dict[str, float]:
    """Every plain number among the attributes of the model's parts, and the length of every list and mapping."""
    found: dict[str, float] = {}
    names = {id(part): path for path, part in model.named_modules()}
    for number, part in enumerate(reachable(model)[0]):
        path = names.get(id(part), f"#{number}")
        for name, value in vars(part).items():
            key = f"{path}.{name}".strip(".")
            if isinstance(value, int | float):
                found[key] = float(value)
            elif isinstance(value, list | dict | set | tuple) and not name.startswith("_"):
                found[key] = float(len(value))
    return found


def _monotone(counters: Sequence[Mapping[str, float]]) -> list[str]:
    """What rose from each pass to the next, or fell: a counter, a growing list. A random index does neither."""
    found = []
    for name in counters[0]:
        values = [seen.get(name, float("nan")) for seen in counters]
        pairs = list(pairwise(values))
        if all(a < b for a, b in pairs) or all(a > b for a, b in pairs):
            found.append(name)
    return found


def rounding(logits: Tensor) -> dict[str, Any]:
    """Are the logits (n, k) of the sample on a grid?

    Keys: logit_range ([lowest, highest]); distinct_logits (share of values that differ from all others by more than
    float32 rounding); logit_step (the step of which all differences are multiples, None where there is none).
    """
    values = logits.detach().double().flatten().sort().values
    size = float(values.abs().max())
    kept = values[torch.cat([torch.ones(1, dtype=torch.bool, device=values.device), values.diff() > 1e-6 * size])]
    return {
        "logit_range": [float(values[0]), float(values[-1])],
        "distinct_logits": len(kept) / len(values),
        "logit_step": _step(kept - kept[0], size),
    }


def _step(values: Tensor, size: float) -> float | None:
    """The step of a grid through all values (m,), sorted and starting at 0; None below the finest grid that counts."""
    if len(values) < 3:
        return None
    step = float(values.diff().min())
    if step < COARSE * size:
        return None
    larger = [*values.diff().sort().values.tolist(), *values[1:].tolist()]  # each tells the step more exactly
    for difference in larger:
        step = difference / max(round(difference / step), 1)
    off = (values / step - (values / step).round()).abs().max()
    return step if float(off) < 0.05 else None
