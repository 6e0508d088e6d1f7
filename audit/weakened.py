"""Which of a suite's attacks were made weaker by hand. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from audit.types import Step

Cost = Callable[[Step, dict[str, Any]], tuple[int, int]]


def weakened(own: Sequence[Step], asked: Sequence[Step], cost: Cost) -> list[str]:
    """`step.option: 5000 -> 10` for each option that may make a step weaker than the suite has it.

    own, asked: the suite's steps and the changed ones, by the same names, with every option filled in; cost: forward
    and backward passes of one image that survives a step run with the given options. A change is taken for
    strengthening only when it lowers no number and costs more: of a step size or a mode nobody can tell, nor of a
    target, though to look for one costs a pass.
    """
    before = {step.name: step for step in own}
    return [
        f"{step.name}.{option}: {before[step.name].params.get(option)} -> {value}"
        for step in asked
        if step.name in before
        for option, value in step.params.items()
        if _may_weaken(before[step.name], option, value, cost)
    ]


def _may_weaken(own: Step, option: str, value: Any, cost: Cost) -> bool:
    params = dict(own.params)
    if params.get(option) == value:
        return False
    lowered = _number(value) and _number(params.get(option)) and value < params[option]
    return bool(lowered) or option == "target" or sum(cost(own, {**params, option: value})) <= sum(cost(own, params))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
