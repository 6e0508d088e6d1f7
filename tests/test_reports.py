"""The report: valid against its schema, self-contained, escaped, and free of torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import resources

import jsonschema
import pytest

from audit import run
from audit.summary import Audit, load_run
from reports import write_reports
from reports.html import render_html
from reports.markdown import render_markdown


@pytest.fixture(scope="module")
def audit(tmp_path_factory) -> Audit:
    return run("super_fitting", suite="quick", n=20, out=tmp_path_factory.mktemp("runs") / "r")


def schema() -> dict:
    return json.loads(resources.files("reports").joinpath("schema/report-1.json").read_text())


def test_the_report_fits_the_published_schema(audit):
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(audit.to_dict())))


def test_the_schema_refuses_a_missing_and_an_unknown_key(audit):
    data = json.loads(json.dumps(audit.to_dict()))
    del data["verdict"]["outcome"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())
    data = json.loads(json.dumps(audit.to_dict())) | {"surprise": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())


def test_the_numbers_agree_with_one_another(audit):
    data = audit.to_dict()
    for key in ("clean", "claimed", "adaptive"):
        low, high = data[key]["interval"]
        assert low <= data[key]["accuracy"] <= high
        assert data[key]["accuracy"] == data[key]["correct"] / data[key]["n"]
    assert data["adaptive"]["accuracy"] <= data["claimed"]["accuracy"] <= data["clean"]["accuracy"]
    last = [a for a in data["attacks"] if a["scope"] != "control"][-1]
    assert last["cumulative"]["accuracy"] == data["adaptive"]["accuracy"]
    assert data["totals"]["forwards"] == sum(a["forwards"] for a in data["attacks"])


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            outward = name in ("src", "href", "xlink:href") and not (value or "").startswith(("data:", "#"))
            if outward or tag in ("script", "link", "iframe"):
                self.outside.append(f"{tag} {name}={value}")


def test_the_page_loads_nothing_from_anywhere(audit):
    page = (write_reports(audit.path)).read_text()
    links = _Links()
    links.feed(page)
    assert links.outside == []
    assert "url(http" not in page
    assert len(page) < 3_000_000


def test_names_from_outside_are_escaped(audit):
    data = audit.to_dict()
    evil = "<script>alert('x')</script>|`"
    data["defense"]["name"] = data["dataset"]["source"] = evil
    data["verdict"]["reasons"] = [evil]
    page, text = render_html(data, audit), render_markdown(data)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    prose = "\n".join(
        line for line in text.splitlines() if not line.startswith("    ")
    )  # code blocks show text as it is
    assert "<script" not in prose
    assert re.search(r"(?<!\\)\|`", prose) is None


def test_the_papers_numbers_stand_beside_what_differs(audit):
    page = render_html(audit.to_dict(), audit)
    assert "arXiv 2205.02741, Table 3" in page
    assert "data set, width" in page


def test_an_unfinished_run_says_so(audit, tmp_path):
    import shutil

    part = tmp_path / "part"
    shutil.copytree(audit.path, part)
    for path in sorted((part / "units").iterdir())[-3:]:
        path.unlink()
    found = load_run(part)
    assert found.results.missing == 3
    assert "not finished" in render_html(found.to_dict(), found)


def test_reports_import_no_torch():
    code = "import sys, reports; assert not {'torch', 'defenses', 'adapters'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
