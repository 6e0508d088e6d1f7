"""What a model does to an image in [0,1] before its first layer, declared once. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from audit.errors import BadInput


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resizing, value range and normalisation, in this order; it becomes a part of the audited model.

    resize: (height, width) in pixels, bilinear with antialiasing as torchvision's. value_range: what 0 and 1 become,
    as (0, 255) or (-1, 1). mean, std: per channel, or one number for all, in units of that range.
    Raises BadInput for a size, a range or a deviation that cannot be.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: tuple[int, int] | None = None
    value_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.value_range
        if not all(map(math.isfinite, (*self.mean, *self.std, low, high))) or low >= high:
            raise BadInput(
                f"the declared mean is {self.mean}, std {self.std}, value range {self.value_range}; expected finite "
                "numbers and a rising range; type for example --value-range 0,255"
            )
        if any(s <= 0 for s in self.std):
            raise BadInput(f"the declared std is {self.std}, expected positive numbers; type for example --std 0.25")
        if len(self.mean) > 1 and len(self.std) > 1 and len(self.mean) != len(self.std):
            raise BadInput(f"{len(self.mean)} means and {len(self.std)} deviations, expected one of each per channel")
        if self.resize is not None and min(self.resize) < 1:
            raise BadInput(
                f"the declared size is {self.resize}, expected positive pixels; type for example --resize 224"
            )

    @property
    def idle(self) -> bool:
        """Does it leave every image as it is?"""
        return self == Preprocessing()

    def to_dict(self) -> dict[str, Any]:
        """What is declared, as JSON."""
        return {name: list(value) for name, value in asdict(self).items() if value != getattr(Preprocessing(), name)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        return cls(**{name: tuple(value) for name, value in data.items()})


def typed(
    mean: str | None = None, std: str | None = None, resize: str | None = None, value_range: str | None = None
) -> Preprocessing | None:
    """What the flags declare; None where none was typed. Raises BadInput."""
    declared: dict[str, Any] = {}
    for name, text in (("mean", mean), ("std", std), ("value-range", value_range)):
        if text is not None:
            declared[name.replace("-", "_")] = _numbers(name, text)
    if resize is not None:
        declared["resize"] = _size(resize)
    if len(declared.get("value_range", (0, 1))) != 2:
        raise BadInput(f"--value-range is {value_range!r}, expected two numbers; type for example --value-range 0,255")
    return Preprocessing(**declared) if declared else None


def flags(declared: Preprocessing | None) -> list[tuple[str, str]]:
    """The flags that declare it again: the inverse of `typed`."""
    found = {} if declared is None else declared.to_dict()
    return [
        (name.replace("_", "-"), ("x" if name == "resize" else ",").join(map(repr, values)))
        for name, values in found.items()
    ]


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"--{name} is {text!r}, expected numbers with commas, as 0.49,0.48,0.45") from None


def _size(text: str) -> tuple[int, int]:
    try:
        sides = [int(part) for part in text.lower().split("x")]
        height, width = 2 * sides if len(sides) == 1 else sides
    except ValueError:
        raise BadInput(f"--resize is {text!r}, expected pixels as 224 or 224x288") from None
    return height, width
