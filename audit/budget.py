"""What a run may cost. Torch-free.

A budget bounds a run without being part of its plan: no unit of work begins once it is spent, and the same command
with a larger one goes on where it stopped. What an earlier part of the run spent counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audit.errors import BadInput
from audit.ledger import Arrays

UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Budget:
    """seconds: of work, over all units of the run; passes: forward and backward ones, over all images."""

    seconds: float = math.inf
    passes: float = math.inf
    used_seconds: float = field(default=0.0, init=False)
    used_passes: int = field(default=0, init=False)

    def pay(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        """Book a finished unit."""
        self.used_seconds += float(meta["seconds"])
        self.used_passes += sum(int(arrays[name].sum()) for name in ("forwards", "backwards") if name in arrays)

    @property
    def spent(self) -> bool:
        return self.used_seconds >= self.seconds or self.used_passes >= self.passes

    def __str__(self) -> str:
        return (
            f"the budget is spent: {self.used_seconds:.0f} s and {self.used_passes:,} passes were used of "
            f"{self.seconds:g} s and {self.passes:,.0f} passes; the same command with a larger --budget goes on"
        )


def parse_budget(time: str | None, queries: int | None) -> Budget:
    """From what was typed: `5m`, `90s`, `1.5h` or a number of seconds; and a number of passes. Raises BadInput."""
    if queries is not None and queries < 1:
        raise BadInput(f"--budget-queries is {queries}, expected at least 1; type for example --budget-queries 1000000")
    return Budget(math.inf if time is None else _seconds(time), math.inf if queries is None else queries)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    seconds = float(found[1]) * UNITS[found[2] or "s"] if found else 0.0
    if seconds <= 0:
        raise BadInput(f"--budget is {text!r}, expected a time such as 90s, 5m or 1h; type for example --budget 5m")
    return seconds
