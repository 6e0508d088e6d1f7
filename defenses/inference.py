"""What a test-time part can be set to, and reading that from `KEY=VALUE`, as `--inference` takes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from audit.errors import BadInput
from audit.registry import closest

Number = Callable[[str], float]
OFF = "none"


def pixels(text: str) -> float:
    """A length in pixel units, as `16/255` or `0.1`. Raises ValueError unless it lies in (0, 1]."""
    found = positive(text)
    if found > 1:
        raise ValueError("a number in (0, 1] such as 16/255")
    return found


def positive(text: str) -> float:
    """Raises ValueError unless the text is a positive number or fraction."""
    try:
        found = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        found = 0.0
    if not 0 < found < math.inf:
        raise ValueError("a positive number such as 0.1")
    return found


def whole(text: str) -> int:
    """Raises ValueError unless the text is a positive whole number."""
    if not (text.isdecimal() and int(text)):
        raise ValueError("a positive whole number such as 10")
    return int(text)


@dataclass(frozen=True)
class Variants:
    """The kinds of a test-time part: `key` names the kind, `kinds` the numbers that each takes, `numbers` reads them.

    traits: those that the defense has because of the part, and loses with the kind "none".
    """

    key: str
    kinds: Mapping[str, Sequence[str]]
    numbers: Mapping[str, Number]
    traits: frozenset[str] = frozenset()

    def typed(self, settings: Sequence[str], stored: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters `stored` with `KEY=VALUE` settings put over them, without what the kind does not take.

        Raises BadInput for another form, a key that does not exist, comes twice or is not the kind's, and a value that
        cannot be.
        """
        found: dict[str, Any] = {}
        for setting in settings:
            key, given, value = (part.strip() for part in setting.partition("="))
            if not given or key in found:
                raise BadInput(f"--inference {setting!r} is no KEY=VALUE of its own; type --inference {self.example}")
            found[key] = self._value(key, value)
        kind = found.get(self.key, stored[self.key])
        takes = self.kinds.get(kind, ())  # what a manifest names may not exist; who builds the part says so
        for key in found:
            if key not in (self.key, *takes):
                names = ", ".join(takes) or "nothing"
                raise BadInput(
                    f"--inference {key} does not go with {self.key}={kind}, which takes {names}; leave it out"
                )
        return {key: value for key, value in {**stored, **found}.items() if key in (self.key, *takes)}

    def off(self, parameters: Mapping[str, Any]) -> bool:
        """Do the parameters switch the part off?"""
        return parameters.get(self.key) == OFF

    @property
    def example(self) -> str:
        return f"{self.key}={next(iter(self.kinds))}"

    def _value(self, key: str, text: str) -> Any:
        if key == self.key:
            if text not in self.kinds:
                raise BadInput(f"--inference {key} is {text!r}: {closest(text, list(self.kinds))}")
            return text
        if key not in self.numbers:
            raise BadInput(f"--inference has no key {key!r}: {closest(key, [self.key, *self.numbers])}")
        try:
            return self.numbers[key](text)
        except ValueError as error:
            raise BadInput(f"--inference {key} is {text!r}, expected {error}") from None
