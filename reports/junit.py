"""JUnit XML: one suite per model, one case per figure. Torch-free.

The format has no standard; what Jenkins, GitLab and GitHub readers take in common is used: testsuites, testsuite, testcase,
failure, error, skipped, system-out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from reports.escaping import xml_text


def render_junit(entries: Sequence[Mapping[str, Any]]) -> str:
    """An XML document for the entries of `audit.guard`."""
    root = ET.Element("testsuites", name="robustness-audit")
    for entry in entries:
        _suite(root, entry)
    for total in ("tests", "failures", "errors"):
        root.set(total, str(sum(int(suite.get(total, "0")) for suite in root)))
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, entry: Mapping[str, Any]) -> None:
    name = xml_text(entry["name"])
    suite = ET.SubElement(root, "testsuite", name=name)
    comparison = entry["comparison"]
    if entry["error"]:
        _told(_case(suite, name, "audit"), "error", entry["error"])
    for row in comparison["rows"] if comparison else ():
        case = _case(suite, name, row["name"])
        if row["fails"] and row["sentence"] in entry["failures"]:
            _told(case, "failure", row["sentence"])
        elif not row["judged"]:
            _told(case, "skipped", f"not judged, part of the worst case: {row['sentence']}")
        else:
            ET.SubElement(case, "system-out").text = xml_text(row["sentence"])
    if entry["run"] is not None:
        _verdict(_case(suite, name, "verdict"), entry)
        suite.set("time", f"{entry['run']['seconds']:.3f}")
    for total, tag in (
        ("tests", "testcase"),
        ("failures", "testcase/failure"),
        ("errors", "testcase/error"),
        ("skipped", "testcase/skipped"),
    ):
        suite.set(total, str(len(suite.findall(tag))))


def _verdict(case: ET.Element, entry: Mapping[str, Any]) -> None:
    failures = [failure for failure in entry["failures"] if failure.startswith("verdict ")]
    if failures:
        _told(case, "failure", failures[0])
    else:
        ET.SubElement(case, "system-out").text = xml_text(" ".join([entry["run"]["verdict"], *entry["run"]["reasons"]]))


def _case(suite: ET.Element, model: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=f"robustness.{model}", name=xml_text(name))


def _told(case: ET.Element, kind: str, sentence: str) -> None:
    ET.SubElement(case, kind, message=xml_text(sentence)).text = xml_text(sentence)
