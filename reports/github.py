"""What GitHub shows of a check: a step summary in markdown, and annotations by workflow commands. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audit.errors import CannotWrite
from reports.checks import figure, mark, reused
from reports.escaping import plain
from reports.sarif import relative

MOST = 1_000_000  # bytes; GitHub refuses a step summary of more than 1 MiB
SIGNS = {"passed": "✅", "failed": "❌", "error": "⚠️"}


def render_summary(entries: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line per model, then for each the figures that moved, and all of them folded away."""
    table = [
        "# Robust accuracy",
        "",
        "| model | | robust | clean | measured on | verdict |",
        "|---|---|---|---|---|---|",
    ]
    parts = ["\n".join([*table, *map(_line, entries)])]
    parts += ["\n".join(_details(entry)) for entry in entries]
    text, left_out = parts[0], 0
    for part in parts[1:]:
        if len((text + part).encode()) > MOST:
            left_out += 1
        else:
            text += "\n\n" + part
    return text + (f"\n\nThe figures of {left_out} models are left out: too long for GitHub.\n" if left_out else "\n")


def render_annotations(entries: Sequence[Mapping[str, Any]], config: str) -> list[str]:
    """A workflow command for each failure, at the baseline it is held against, else at the file `config`."""
    found = []
    for entry in entries:
        place = relative(entry["baseline"] or config)
        for sentence in entry["failures"] or filter(None, [entry["error"]]):
            title = f"{entry['name']}: {'could not be judged' if entry['error'] else 'robust accuracy'}"
            found.append(f"::error file={_property(place)},line=1,title={_property(title)}::{_data(sentence)}")
    return found


def publish(entries: Sequence[Mapping[str, Any]], environment: Mapping[str, str], config: str) -> list[str]:
    """On GitHub: append the summary to the step's, and return the lines to print. Elsewhere nothing. Raises CannotWrite."""
    if target := environment.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(target).open("a", encoding="utf-8") as file:
                file.write(render_summary(entries))
        except OSError as error:
            raise CannotWrite(
                f"could not write the step summary {target} ({error.strerror}), expected the file that GitHub names; unset "
                "GITHUB_STEP_SUMMARY"
            ) from error
    return render_annotations(entries, config) if environment.get("GITHUB_ACTIONS") == "true" else []


def _line(entry: Mapping[str, Any]) -> str:
    run = entry["run"]
    status = f"{SIGNS[entry['status']]} {entry['status']}"
    if run is None:
        return f"| {plain(entry['name'])} | {status} | | | | |"
    robust = "refused" if run["robust"] is None else figure(run["robust"])
    where = f"{run['dataset']}, n = {run['n']}, {run['threat']}, suite {run['suite']}"
    return (
        f"| {plain(entry['name'])} | {status} | {robust} | {figure(run['clean'])} | {plain(where)} | {run['verdict']} |"
    )


def _details(entry: Mapping[str, Any]) -> list[str]:
    name, comparison = plain(entry["name"]), entry["comparison"]
    found = [f"**{name}** {plain(text)}\n" for text in (*entry["failures"], *filter(None, [entry["error"]]))]
    if entry["units"]:
        found.append(f"{name}: {reused(entry)}.\n")
    if comparison is None:
        return found
    rows = [f"| {mark(row)} | {plain(row['sentence'])} |" for row in comparison["rows"]]
    notes = [f"- {plain(note)}" for note in comparison["notes"]]
    title = f"{name} against {plain(entry['baseline'])}"
    return [
        *found,
        f"<details><summary>{title}</summary>",
        "",
        "| | figure |",
        "|---|---|",
        *rows,
        "",
        *notes,
        "",
        "</details>",
    ]


def _data(text: str) -> str:
    """The message of a workflow command: the characters that would end it or be decoded."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
