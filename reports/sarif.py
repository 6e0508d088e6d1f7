"""SARIF 2.1.0 (OASIS): one result per failure, at the baseline it is held against, for code-scanning pages. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from audit.versions import installed

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RULES = {
    "robust-accuracy-drop": "An accuracy fell by more than is allowed, and chance does not explain it.",
    "verdict": "The audit's verdict is one that fails.",
    "audit-error": "The model could not be judged.",
}


def render_sarif(entries: Sequence[Mapping[str, Any]], config: str) -> str:
    """A SARIF log. config: where a failure is shown whose model has no baseline."""
    driver = {
        "name": "robustness-audit", "version": installed("robustness-audit") or "unknown",
        "rules": [{"id": rule, "shortDescription": {"text": text}} for rule, text in RULES.items()],
    }  # fmt: skip
    results = [result for entry in entries for result in _results(entry, config)]
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(log, indent=1) + "\n"


def _results(entry: Mapping[str, Any], config: str) -> list[dict[str, Any]]:
    place = entry["baseline"] or config
    if entry["error"]:
        return [_result("audit-error", entry["name"], entry["name"], entry["error"], place)]
    rows = entry["comparison"]["rows"] if entry["comparison"] else []
    names = {row["sentence"]: row["name"] for row in rows}
    return [
        _result("robust-accuracy-drop", f"{entry['name']}/{names[said]}", entry["name"], said, place)
        if said in names
        else _result("verdict", f"{entry['name']}/verdict", entry["name"], said, place)
        for said in entry["failures"]
    ]


def _result(rule: str, key: str, model: str, sentence: str, place: str) -> dict[str, Any]:
    """key: what makes two results of different days the same one."""
    return {
        "ruleId": rule, "level": "error", "message": {"text": f"{model}: {sentence}"},
        "partialFingerprints": {"robustnessAudit/v1": key},
        "locations": [{
            "physicalLocation": {"artifactLocation": {"uri": uri(place)}, "region": {"startLine": 1}}
        }],
    }  # fmt: skip


def uri(place: str) -> str:
    """A path as SARIF wants it: relative to the working directory where it lies below it, with / and escaped."""
    path = Path(relative(place))
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


def relative(place: str) -> str:
    """A path from the working directory, where it lies below it: what a code page can show."""
    path = Path(place)
    inside = path.is_absolute() and path.is_relative_to(Path.cwd())
    return (path.relative_to(Path.cwd()) if inside else path).as_posix()
