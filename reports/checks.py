"""What a check says, for people: plain lines, and the words that all renderers share. Torch-free.

Renderers take the dictionaries of `audit.guard.Entry.to_dict`. Names and sentences come from outside (a model's name, a file's
path, an exception's text), so each renderer escapes them for its own format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audit.ledger import write_atomically
from reports.badge import render_badge
from reports.junit import render_junit
from reports.sarif import render_sarif

Entry = Mapping[str, Any]
MARKS = {"regressed": "FELL", "unclear": "?", "held": "ok", "improved": "rose"}


def lines(entry: Entry) -> list[str]:
    """What a terminal shows of one model: the outcome, every figure, and what else is to be known."""
    head = f"{entry['name']}: {entry['status']}"
    if entry["error"]:
        return [head, f"  error: {entry['error']}"]
    found = [head, f"  {headline(entry)}"]
    if entry["units"]:
        found.append(f"  {reused(entry)}")
    comparison = entry["comparison"]
    if comparison is not None:
        found += [f"  {mark(row):<5} {row['sentence']}" for row in comparison["rows"]]
        found += [f"  note  {note}" for note in comparison["notes"]]
    told = {row["sentence"] for row in comparison["rows"]} if comparison else set()
    return found + [f"  FAIL  {failure}" for failure in entry["failures"] if failure not in told]


def mark(row: Mapping[str, Any]) -> str:
    """A word for what became of a figure; figures that cannot fail are in brackets."""
    word = MARKS[row["status"]]
    return word if row["judged"] else f"({word})"


def headline(entry: Entry) -> str:
    """Robust accuracy with its interval, and what it was measured on."""
    run = entry["run"]
    robust = "refused: no attack saw the whole defense" if run["robust"] is None else figure(run["robust"])
    return (
        f"robust {robust}, clean {figure(run['clean'])}, {run['threat']}, n = {run['n']}, suite {run['suite']}, "
        f"verdict {run['verdict']}"
    )


def figure(value: Mapping[str, Any]) -> str:
    low, high = value["interval"]
    return f"{value['accuracy']:.1%} [{low:.1%}, {high:.1%}]"


def reused(entry: Entry) -> str:
    """How much of the run was there already."""
    if entry["units"] == entry["reused"]:
        return f"nothing changed: all {entry['units']} units were there"
    return f"{entry['units'] - entry['reused']} of {entry['units']} units were run, {entry['reused']} were there"


def write_outputs(data: Mapping[str, Any], out: Path, *, config: str, summary: str) -> list[Path]:
    """checks.json, summary.md, junit.xml, audit.sarif and badges/NAME.svg; the paths that were written.

    data: the dictionary of `audit.guard.collected`; config: the file that a reader is pointed to where a model has no baseline;
    summary: the content of summary.md. Raises CannotWrite.
    """
    entries: Sequence[Entry] = data["models"]
    files = {
        out / "checks.json": json.dumps(data, indent=1) + "\n",
        out / "summary.md": summary,
        out / "junit.xml": render_junit(entries),
        out / "audit.sarif": render_sarif(entries, config),
    }
    files |= {out / "badges" / f"{entry['slug']}.svg": render_badge(entry) for entry in entries}
    for path, content in files.items():
        write_atomically(path, content.encode())
    return list(files)
