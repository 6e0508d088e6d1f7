"""What the user changes of a suite: `--set step.option=value`. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from audit.errors import BadInput
from audit.registry import closest
from audit.types import Step


def override(
    steps: Iterable[Step], settings: Iterable[str], options: Mapping[str, Mapping[str, Any]]
) -> tuple[Step, ...]:
    """The steps with every option filled in, after applying `--set step.param=value`.

    options: each attack's options with their defaults. Raises BadInput for a step, an option or a type that the
    suite does not have.
    """
    changed = {step.name: replace(step, params={**options[step.attack], **step.params}) for step in steps}
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, dot, option = target.partition(".")
        if not (equals and dot):
            raise BadInput(f"--set {setting!r} is not step.option=value; type for example --set square.n_queries=1000")
        if name not in changed:
            raise BadInput(f"--set {setting!r} names step {name!r}: {closest(name, list(changed))}")
        known = options[changed[name].attack]
        if option not in known:
            hint = closest(option, sorted(known)) if known else "that attack has no options."
            raise BadInput(f"--set {setting!r} names option {option!r}: {hint}")
        changed[name] = replace(
            changed[name], params={**changed[name].params, option: _parse(setting, text, known[option])}
        )
    return tuple(changed.values())


def _parse(setting: str, text: str, default: Any) -> int | float | str:
    kind = type(default)
    if kind is str:  # a choice or a path: the attack knows what it takes
        return text
    try:
        value: int | float = kind(text)
    except ValueError:
        raise BadInput(f"--set {setting!r} has value {text!r}, expected {kind.__name__} such as {default}") from None
    if not (0 < value < math.inf or value == default == 0):  # NaN too
        expected = f"a positive {kind.__name__} such as {default}" if default else f"0 or a positive {kind.__name__}"
        raise BadInput(f"--set {setting!r} has value {text}, expected {expected}")
    return value


def resolve_temperature(steps: Iterable[Step], temperature: float) -> tuple[Step, ...]:
    """Replace every temperature of "auto" by `temperature`."""
    return tuple(
        replace(step, adapters=tuple(
            replace(adapter, params={k: temperature if v == "auto" else v for k, v in adapter.params.items()})
            for adapter in step.adapters
        ))
        for step in steps
    )  # fmt: skip
