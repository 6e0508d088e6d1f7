"""What a diagnosis measured, held against its threshold, as a test that a reader can follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.iterations import short

# These look for too small a value; all others for too large a one.
TOO_SMALL = frozenset(
    ("ce_precision", "masked_gradient", "unstable_gradient", "quantised_output", "too_few_classes", "binarisation")
)
# Of these the threshold is of another quantity: a p-value, or yes and no.
NO_TEST = frozenset(("clean_accuracy_handshake", "end_to_end", "stateful"))


def held_against(found: Mapping[str, Any]) -> str:
    """The test, as "0.935 > 0.01"; empty where nothing was measured, and where a yes or no or another figure decided."""
    value, bar, name = found["value"], found["threshold"], found["name"]
    if value is None or not bar or name in NO_TEST:
        return ""
    seen = found["status"] in ("flagged", "resolved")
    met = value < bar if name in TOO_SMALL else value > bar
    if seen and not met and value != bar:  # something else than this value was what told
        return ""
    signs = ("<", "≥") if name in TOO_SMALL else (">", "≤")
    sign = signs[0] if met else f"{signs[0]}=" if seen else signs[1]
    return f"{short(float(value))} {sign.replace('>=', '≥').replace('<=', '≤')} {short(float(bar))}"
