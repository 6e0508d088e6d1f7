"""What CI systems read: well-formed, complete, and harmless whatever a model is called."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from audit.baselines import freeze
from audit.errors import BadInput, CannotWrite
from audit.guard import Rules, collected, examine, failed
from reports.badge import COLOURS, render_badge
from reports.checks import lines, write_outputs
from reports.escaping import APART, plain
from reports.github import publish, render_annotations, render_summary
from reports.junit import render_junit
from reports.sarif import render_sarif
from tests.built import claimed, mask, ran
from tests.frozen import audited

EVIL = "a|b<script>alert(1)</script>\"'&]]>`x`[y](z)\n::error::%0A,x=1\x00\x1b *@you* #1"


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """A model that passed, one that fell, one of another verdict, and one that could not be judged; the last two evil."""
    robust = tmp_path_factory.mktemp("frozen") / "ro,b:ust%.json"
    freeze(audited()).write(robust)
    fallen = audited(claimed("pgd-20", mask((0, 300))), ran("apgd", mask((0, 450)), attack="apgd-margin"))
    outcome = audited().verdict.outcome
    made = [
        examine(audited(), robust, Rules(), name="fine", units=14, reused=14),
        examine(fallen, robust, Rules(), name="fell", units=14, reused=4),
        examine(audited(), None, Rules(fail_on=(outcome,)), name=EVIL),
        failed(EVIL, BadInput(f"it said {EVIL}"), robust),
    ]
    return collected(made)["models"]


# --- lines


def test_the_lines_tell_what_moved_and_what_failed(entries):
    fine, fell, verdict, broken = ("\n".join(lines(entry)) for entry in entries)
    assert "fine: passed" in fine
    assert "nothing changed: all 14 units were there" in fine
    assert "  (ok)  apgd: 50.0% as before" in fine
    assert "  FELL  worst case: 50.0% -> 45.0%, -5.0 points" in fell
    assert "10 of 14 units were run, 4 were there" in fell
    assert "  FAIL" not in fell  # it stands in the table already
    assert f"  FAIL  verdict {entries[2]['run']['verdict']}: " in verdict
    assert "error: it said" in broken


# --- JUnit


def test_junit_has_a_case_for_every_figure_and_the_verdict(entries):
    root = ET.fromstring(render_junit(entries))
    fine, fell, verdict, broken = root
    assert [case.get("name") for case in fine] == ["worst case", "clean", "pgd-20", "apgd", "verdict"]
    assert [case.get("name") for case in fell if case.find("failure") is not None] == ["worst case"]
    assert fell.find("testcase/failure").get("message") == entries[1]["failures"][0]
    assert [case.get("name") for case in fell if case.find("skipped") is not None] == ["apgd"]
    assert [case.get("name") for case in verdict if case.find("failure") is not None] == ["verdict"]
    assert broken.find("testcase/error") is not None
    for side, expected in ((root, (12, 2, 1)), (fell, (5, 1, 0)), (broken, (1, 0, 1))):
        assert tuple(int(side.get(k)) for k in ("tests", "failures", "errors")) == expected


def test_junit_keeps_evil_names_as_text(entries):
    root = ET.fromstring(render_junit(entries))
    kept = EVIL.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert root[3].get("name") == kept
    assert kept in root[3].find("testcase/error").get("message")
    assert root.findall(".//script") == []


def test_a_drop_that_was_not_asked_for_is_no_failure(entries):
    quiet = {**entries[1], "failures": []}
    assert ET.fromstring(render_junit([quiet])).get("failures") == "0"


# --- GitHub


def cells(line):
    return line.strip().strip("|").split("|")


def test_the_summary_is_a_table_whatever_the_names(entries):
    text = render_summary(entries)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 5 + 2 * (1 + 4)
    assert {len(cells(row)) for row in rows[:5]} == {6}
    assert {len(cells(row)) for row in rows[5:]} == {2}
    assert "❌ failed" in text
    assert "the plan is the baseline" in text


def test_the_summary_holds_no_markup_but_its_own(entries):
    found = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.add(tag)
    parser.feed(render_summary(entries))
    assert found == {"details", "summary"}
    for piece in ("[y](z)", "`x`", "*@you", "<script", " #1"):
        assert piece not in render_summary(entries)


@pytest.mark.parametrize(
    "evil", [EVIL, "a\n\n# title", "![](http://x)", "\\| |", "&lt;b&gt;", "_a_ __b__", "WWW.x.org"]
)
def test_plain_text_reads_the_same_and_is_one_line(evil):
    import html

    assert html.unescape(plain(evil)).replace(APART, "") == " ".join(evil.split())
    assert not set("<>|[]`*@\n") & set(plain(evil))
    assert not any(mark in plain(evil).lower() for mark in ("://", "www.", "_a", "b_"))
    assert "@you" not in html.unescape(plain(evil))


def test_names_of_identifiers_stay_readable():
    assert plain("n_iter = 20, pgd-20: 8/255") == "n_iter = 20, pgd-20: 8/255"


def test_annotations_are_one_command_each(entries):
    commands = render_annotations(entries, "audit.toml")
    assert len(commands) == 3
    assert not any("\n" in command or "\r" in command for command in commands)
    assert commands[0].startswith("::error file=")
    assert "ro%2Cb%3Aust%25.json,line=1,title=fell%3A robust accuracy::worst case: 50.0%25 -> 45.0%25" in commands[0]
    assert commands[1].startswith("::error file=audit.toml,line=1,title=")
    for command in commands:
        properties = command.removeprefix("::error ").split("::")[0]
        assert [part.split("=")[0] for part in properties.split(",")] == ["file", "line", "title"]


def test_github_gets_its_summary_and_others_nothing(entries, tmp_path):
    target = tmp_path / "summary.md"
    target.write_text("before\n")
    assert publish(entries, {}, "audit.toml") == []
    assert publish(entries, {"GITHUB_STEP_SUMMARY": str(target)}, "audit.toml") == []
    assert target.read_text(encoding="utf-8") == "before\n" + render_summary(entries)
    assert publish(entries, {"GITHUB_ACTIONS": "true"}, "audit.toml") == render_annotations(entries, "audit.toml")
    with pytest.raises(CannotWrite, match=r"could not write the step summary .*; unset GITHUB_STEP_SUMMARY"):
        publish(entries, {"GITHUB_STEP_SUMMARY": str(tmp_path)}, "audit.toml")


def test_a_summary_too_long_for_github_keeps_every_model_in_its_table(entries, monkeypatch):
    monkeypatch.setattr("reports.github.MOST", len(render_summary(entries).encode()) - 9)
    text = render_summary(entries)
    assert "The figures of 1 models are left out" in text
    assert text.count("❌ failed") == 2


# --- SARIF


def test_sarif_names_rule_place_and_model(entries):
    log = json.loads(render_sarif(entries, "audit.toml"))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert [result["ruleId"] for result in run["results"]] == ["robust-accuracy-drop", "verdict", "audit-error"]
    for result in run["results"]:
        assert result["ruleId"] in rules
        assert set(result) == {"ruleId", "level", "message", "partialFingerprints", "locations"}
        place = result["locations"][0]["physicalLocation"]
        assert place["region"] == {"startLine": 1}
    first, second, _ = run["results"]
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("/ro%2Cb%3Aust%25.json")
    assert second["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "audit.toml"
    assert first["partialFingerprints"] == {"robustnessAudit/v1": "fell/worst case"}
    assert first["message"]["text"] == f"fell: {entries[1]['failures'][0]}"


def test_sarif_points_below_the_working_directory_by_relative_paths(entries, monkeypatch):
    monkeypatch.chdir(Path(entries[1]["baseline"]).parent)
    log = json.loads(render_sarif(entries[1:2], "audit.toml"))
    place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "ro%2Cb%3Aust%25.json"


def test_nothing_failed_means_no_results(entries):
    assert json.loads(render_sarif(entries[:1], "audit.toml"))["runs"][0]["results"] == []


# --- the badge


@pytest.mark.parametrize(("number", "said"), [(0, "50.0%"), (1, "45.0% ↓"), (2, "50.0% ✗"), (3, "error")])
def test_the_badge_is_svg_with_the_figure(entries, number, said):
    root = ET.fromstring(render_badge(entries[number]) if number != 3 else render_badge({**entries[3], "name": "x"}))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["robust accuracy", said]
    assert root[1].get("fill") == COLOURS[entries[number]["status"]]
    assert root.get("role") == "img"


def test_the_badge_escapes_its_title(entries):
    text = render_badge({**entries[2], "name": "<b>\"'&"})
    assert ET.fromstring(text).get("aria-label").startswith("<b>\"'&: robust accuracy")
    assert "<b>" not in text


def test_white_can_be_read_on_every_colour():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in (*COLOURS.values(), "#444c56"):
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


# --- files


def test_every_output_is_written(entries, tmp_path):
    data = {"checks_version": 1, "status": "failed", "models": entries[:2]}
    written = write_outputs(data, tmp_path / "out", config="audit.toml", summary="text")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in written}
    assert names == {"checks.json", "summary.md", "junit.xml", "audit.sarif", "badges/fine.svg", "badges/fell.svg"}
    assert json.loads((tmp_path / "out/checks.json").read_text()) == json.loads(json.dumps(data))
    assert (tmp_path / "out/summary.md").read_text() == "text"
