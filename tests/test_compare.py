"""Several audits in one page: the figures are those of their reports, and names cannot become markup."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import pytest

from audit.cli import main
from audit.summary import Audit, load_run
from reports.compare import attacks, differing, named, pairs, render_html, render_markdown

pytestmark = pytest.mark.usefixtures("undrawn")

EVIL = "<script>alert('x')</script>|`_*"


@pytest.fixture(scope="module")
def audits(audited) -> list[Audit]:
    return [audited(name) for name in ("super_fitting", "undefended")]


def test_every_figure_is_the_one_of_its_own_report(audits):
    entries = named(audits)
    text, page = render_markdown(entries), render_html(entries)
    for audit in audits:
        data = audit.to_dict()
        row = next(line for line in text.splitlines() if line.startswith(f"| {data['defense']['name']} |"))
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        assert cells[1] == data["verdict"]["outcome"]
        assert cells[3] == f"{data['clean']['accuracy']:.1%}"
        assert cells[6] == f"{data['adaptive']['accuracy']:.1%}"
        assert cells[6] in page
    stored = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert stored is not None
    assert json.loads(stored[1])["reports"] == json.loads(json.dumps([a.to_dict() for a in audits]))


def test_attacks_that_one_of_them_lacks_leave_a_gap(audits):
    entries = named(audits)
    fewer = {**entries[1].data, "attacks": [a for a in entries[1].data["attacks"] if a["name"] != "fgsm"]}
    rows = {row[0]: row[1:] for row in attacks([entries[0], dataclasses.replace(entries[1], data=fewer)])}
    assert rows["fgsm"][0].endswith("%")
    assert rows["fgsm"][1] == ""
    assert rows["apgd-margin"][0].endswith("%*")


def test_two_runs_of_one_defense_are_told_apart(audits, tmp_path):
    shutil.copytree(audits[0].path, tmp_path / "again")
    entries = named([audits[0], load_run(tmp_path / "again")])
    assert [e.name for e in entries] == ["super_fitting (super_fitting)", "super_fitting (again)"]
    assert differing(entries) == []
    assert pairs(entries)[0][3] == "+0.0"
    assert [e.name for e in named([audits[0], audits[0]])] == [
        "super_fitting (super_fitting) 1",
        "super_fitting (super_fitting) 2",
    ]


def test_what_differs_is_said(audits, tmp_path):
    entries = named(audits)
    other = {**entries[1].data, "threat": {**entries[1].data["threat"], "eps": 0.5}}
    assert differing([entries[0], dataclasses.replace(entries[1], data=other)]) == ["The audits differ in radius."]
    part = tmp_path / "part"
    shutil.copytree(audits[0].path, part)
    max((part / "units").iterdir()).unlink()
    assert differing(named([load_run(part), audits[1]])) == ["Not finished: super_fitting."]


def test_names_from_outside_are_escaped(audits):
    entries = named(audits)
    data = {**entries[0].data, "verdict": {**entries[0].data["verdict"], "reasons": [EVIL]}}
    hostile = [dataclasses.replace(entries[0], name=EVIL, data=data), entries[1]]
    page, text = render_html(hostile), render_markdown(hostile)
    assert page.count("<script") == page.count("</script") == 2
    assert "<script" not in text
    assert "`" not in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith(("| attack", "| fgsm"))}) == 1


def test_the_command_writes_both_files_and_refuses_one_run(audits, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare", *(str(a.path) for a in audits), "--out", str(tmp_path / "c")])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "c" / "compare.html")
    assert (tmp_path / "c" / "compare.md").read_text() == render_markdown(named(audits))
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(audits[0].path)])
    assert ended.value.code == 2
    assert "expected two or more" in capsys.readouterr().err
