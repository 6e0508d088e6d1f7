"""A badge: one line of SVG with the robust accuracy and whether it passed. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from reports.escaping import xml_text

LABEL = "robust accuracy"
# White text on each has a contrast of at least 4.5 to 1 (WCAG AA).
COLOURS = {"passed": "#1a7f37", "failed": "#b42318", "error": "#57606a"}
WIDTH = 6.6  # of one character of the 11 px font, a little more than the mean


def render_badge(entry: Mapping[str, Any]) -> str:
    """An SVG of 20 px height, `robust accuracy | 45.0 %`, green, red or, where nothing was measured, grey."""
    run = entry["run"]
    robust = None if run is None else run["robust"]
    value = "error" if entry["error"] else "not measured" if robust is None else f"{robust['accuracy']:.1%}"
    if entry["status"] == "failed":
        value += " ↓" if entry["comparison"] and entry["comparison"]["regressed"] else " ✗"
    return _svg(
        LABEL, value, COLOURS[entry["status"]], xml_text(f"{entry['name']}: {LABEL} {value}, {entry['status']}")
    )


def _svg(label: str, value: str, colour: str, title: str) -> str:
    left, right = (round(len(text) * WIDTH) + 12 for text in (label, value))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label={quoteattr(title)}>'
        f"<title>{escape(title)}</title>"
        f'<rect width="{left + right}" height="20" rx="3" fill="{colour}"/>'
        f'<path d="M3 0h{left - 3}v20h-{left - 3}a3 3 0 0 1-3-3v-14a3 3 0 0 1 3-3z" fill="#444c56"/>'
        '<g fill="#ffffff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{left / 2:g}" y="14">{escape(label)}</text>'
        f'<text x="{left + right / 2:g}" y="14">{escape(value)}</text></g></svg>\n'
    )
