"""The report: valid against its schema, self-contained, escaped, and free of torch."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from audit import run
from audit.display import panel
from audit.ledger import Ledger, write_json
from audit.plan import Plan
from audit.summary import Audit, load_run
from reports import write_reports
from reports.html import render_html
from reports.markdown import render_markdown
from reports.wording import fair

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def audit(audited) -> Audit:
    return audited("super_fitting")


def schema() -> dict:
    return json.loads(resources.files("reports").joinpath("schema/report-1.json").read_text())


def test_the_report_fits_the_published_schema(audit):
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(audit.to_dict())))


def test_the_report_of_a_defense_with_a_test_time_part_fits_it_too(audited):
    data = json.loads(json.dumps(audited("tpap").to_dict()))
    jsonschema.Draft202012Validator(schema()).validate(data)
    assert {"fgsm", "apgd-margin", "square-1000"} <= {family["attack"] for family in data["routes"]}
    assert all(family["end_to_end"]["accuracy"] is not None for family in data["routes"])


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
    assert data["adaptive"]["unknown"] == data["verdict"]["unknown"] == data["claimed"]["unknown"] == 0
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
            if outward or tag in ("iframe", "object", "embed", "form"):
                self.outside.append(f"{tag} {name}={value}")


def test_the_page_loads_nothing_from_anywhere(audit):
    page = (write_reports(audit.path)).read_text()
    links = _Links()
    links.feed(page)
    assert links.outside == []
    assert re.search(r"url\((?!#)", page) is None
    assert "default-src 'none'" in page
    assert len(page) < 3_000_000


def test_names_from_outside_are_escaped(audit):
    data = audit.to_dict()
    evil = "<script>alert('x')</script>|`![x](http://evil) @you *b* & www.evil.org"
    data["defense"]["name"] = data["dataset"]["source"] = evil
    data["attacks"][0]["name"] = data["diagnoses"][0]["sentence"] = data["run"]["command"] = evil
    data["verdict"]["reasons"] = [evil]
    figure = {"accuracy": 0.5, "interval": [0.4, 0.6], "n": 20, "correct": 10}
    data["references"] = [{"name": evil, "clean": figure, "adaptive": figure, "differs": evil}]
    around = [{"name": evil, "robust": 0.5, "clean": 0.9}]
    data["leaderboard"] = {**data["leaderboard"], "around": around, "itself": around[0], "unfair": [evil]}
    page, text = render_html(data, audit), render_markdown(data)
    assert page.count("<script") == page.count("</script") == 2  # the data and the page's own
    assert "&lt;script&gt;" in page
    stored = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert stored is not None
    assert json.loads(stored[1]) == json.loads(json.dumps(data))
    prose = "\n".join(
        line for line in text.splitlines() if not line.startswith("    ")
    )  # code blocks show text as it is
    live = ("<script", "|`", "![", "](", "://evil", "@you", "*b*", "& ", "www.evil")
    assert [mark for mark in live if mark in prose] == []
    assert "<script" in text  # the command, in a block of code


def test_the_papers_numbers_stand_beside_what_differs(audit):
    page = render_html(audit.to_dict(), audit)
    assert "arXiv 2205.02741, Table 3" in page
    assert "data set, width" in page
    sentence = "7 printed claims are for cifar10 with middle_cnn at Linf 8/255; nothing here speaks of them."
    assert sentence in page
    assert sentence in render_markdown(audit.to_dict())


def test_an_unfinished_run_says_so(audit, tmp_path):
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


# states of a run that are not the usual one


def tampered(audit: Audit, out: Path, change: Callable[[Ledger, Plan], None]) -> Audit:
    """A copy of the run whose stored units `change` has edited."""
    shutil.copytree(audit.path, out)
    change(Ledger(out), audit.results.plan)
    return load_run(out)


def crash(*names: str, message: str = "RuntimeError: [bold]no memory") -> Callable[[Ledger, Plan], None]:
    """Make steps look as if they had crashed on every image that they did not break."""

    def change(ledger: Ledger, plan: Plan) -> None:
        for unit in plan.units():
            if unit.step is not None and plan.steps[unit.step].name in names:
                arrays, meta = ledger.read(unit.name)
                arrays["broken"] = arrays["returned_broken"] = np.zeros_like(arrays["broken"])
                arrays["error"], arrays["x_adv"] = ~arrays["broken"], arrays["x_adv"][:0]
                ledger.write(unit.name, arrays, {**meta, "error": message})

    return change


def shown(audit: Audit) -> tuple[dict, str, str, str]:
    """report.json, the page, the markdown and the panel of a run."""
    data = json.loads(json.dumps(audit.to_dict()))
    jsonschema.Draft202012Validator(schema()).validate(data)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(panel(audit, "report.html"))
    return data, render_html(data, audit), render_markdown(data), console.export_text()


def attack(data: dict, name: str) -> dict:
    return next(a for a in data["attacks"] if a["name"] == name)


def test_an_attack_that_crashed_has_no_accuracy_and_its_images_are_unknown(audit, tmp_path):
    found = tampered(audit, tmp_path / "r", crash("rescaled-ce", "apgd-margin"))
    data, page, text, printed = shown(found)
    unknown, upper = data["adaptive"]["unknown"], data["adaptive"]["accuracy"]
    assert unknown == int(found.results.unknown.sum()) == data["verdict"]["unknown"] > 0
    for name in "rescaled-ce", "apgd-margin":
        crashed = attack(data, name)
        assert (crashed["accuracy"], crashed["interval"], crashed["accuracy_is"]) == (None, None, "cumulative")
        assert f"crashed on {crashed['errors']} images" in page
        assert f"crashed on {crashed['errors']} images" in text
    for output in page, text:
        assert f"at most {upper:.1%}, {unknown} unknown" in output
    assert re.search(rf"at most {upper:.1%} \[.*\], {unknown} unknown", printed)


def test_no_figure_is_a_bound_when_nothing_is_unknown(audit):
    data, page, text, printed = shown(audit)
    assert data["adaptive"]["unknown"] == 0
    for output in page, text, printed:
        assert re.search(r"at (most|least) \d", output) is None


def test_a_claimed_attack_that_crashed_bounds_the_claimed_number_from_below(audit, tmp_path):
    def one_shard(ledger: Ledger, plan: Plan) -> None:
        unit = next(u for u in plan.units() if u.step is not None and plan.steps[u.step].name == "pgd-20")
        arrays, meta = ledger.read(unit.name)
        arrays["error"] = arrays["crashed"] = ~arrays["broken"] & (np.cumsum(~arrays["broken"]) <= 2)
        ledger.write(unit.name, arrays, {**meta, "error": "RuntimeError"})

    data, page, text, printed = shown(tampered(audit, tmp_path / "r", one_shard))
    assert data["claimed"]["unknown"] == 2
    for output in page, text:
        assert f"at least {data['claimed']['accuracy']:.1%}, 2 unknown" in output
        assert f"Under audit: at least {data['claim']['robust_acc']:.1%}" in output
    assert "2 unknown" in printed


def test_crashed_claimed_attacks_are_not_said_to_be_missing_from_the_suite(audit, tmp_path):
    found = tampered(audit, tmp_path / "r", crash("fgsm", "bim-20", "pgd-20"))
    data, page, text, printed = shown(found)
    assert data["claim"] is None
    assert data["claimed"]["accuracy"] is None
    for output in page, text, printed:
        assert "the claimed attacks crashed" in output
        assert "no memory" in output
        assert "ran none" not in output
        assert "were not run" not in output
    assert "no claim to judge" in printed


def test_a_step_that_is_not_done_has_no_accuracy(audit, tmp_path):
    found = tampered(audit, tmp_path / "r", lambda ledger, plan: None)
    for path in (found.path / "units").glob("*apgd-margin*"):
        path.unlink()
    found = load_run(found.path)
    data, page, text, _ = shown(found)
    assert attack(data, "apgd-margin")["accuracy"] is None
    assert not attack(data, "apgd-margin")["done"]
    for output in page, text:
        assert f"at most {data['adaptive']['accuracy']:.1%} so far" in output
        assert "has not run" in output
        assert "not finished" in output


def test_before_the_clean_pass_nothing_is_measured(audit, tmp_path):
    found = tampered(audit, tmp_path / "r", lambda ledger, plan: None)
    for path in (found.path / "units").iterdir():
        path.unlink()
    data, _, text, _ = shown(load_run(found.path))
    assert [data[key]["accuracy"] for key in ("clean", "claimed", "adaptive")] == [None, None, None]
    assert text.count("not measured |") >= 3


def test_rejected_images_count_as_standing_everywhere(audit, tmp_path):
    def reject(ledger: Ledger, plan: Plan) -> None:
        checks = json.loads((tmp_path / "r" / "checks.json").read_text())
        write_json(
            tmp_path / "r" / "checks.json",
            {**checks, "rejected": 5, "rejected_ids": [0, 1, 2, 3, 4], "unproven_ids": [0, 1, 2, 3, 4]},
        )

    found = tampered(audit, tmp_path / "r", reject)
    rejected = int((found.results.correct & ~found.results.survives_all)[:5].sum())
    data, _, text, _ = shown(found)
    assert data["adaptive"]["correct"] == audit.to_dict()["adaptive"]["correct"] + rejected > rejected > 0
    last = [a for a in data["attacks"] if a["scope"] != "control"][-1]
    assert last["cumulative"]["correct"] == data["adaptive"]["correct"]
    assert f"{data['adaptive']['unknown']} unknown" in text


@pytest.mark.slow
def test_headings_are_true_whatever_the_verdict(audit):
    data = audit.to_dict()
    for outcome in "upheld", "refuted", "inconclusive":
        page = render_html({**data, "verdict": {**data["verdict"], "outcome": outcome}}, audit)
        headings = re.findall(r"<h2>(.*?)</h2>", page)
        assert headings[:3] == [
            "What each attack leaves standing", "Which image fell to which attack", "Reasons that the numbers may lie",
        ]  # fmt: skip


def test_images_of_ones_own_differ_from_the_papers():
    claim = {"dataset": "d", "architecture": "a", "threat": {"eps": 0.1, "norm": "Linf"}}
    data = {
        "dataset": {"name": "d"}, "defense": {"architecture": {"name": "a", "width": 1.0}},
        "threat": {"eps": 0.1, "norm": "Linf"}, "run": {"sources": {"data": "", "data_dir": "x"}},
    }  # fmt: skip
    assert fair(claim, data) == ""
    assert fair(claim, {**data, "run": {"sources": {"data": "own.npz", "data_dir": ""}}}) == "images"
    assert fair(claim, {**data, "run": {}}) == ""


@pytest.mark.parametrize("damage", ["truncated gallery", "gallery without images", "checks that are a list"])
def test_a_damaged_side_file_leaves_a_report(audit, tmp_path, damage):
    copy = tmp_path / "run"
    shutil.copytree(audit.path, copy)
    gallery = copy / "gallery.npz"
    if damage == "truncated gallery":
        gallery.write_bytes(gallery.read_bytes()[:100])
    elif damage == "gallery without images":
        np.savez(gallery, ids=np.arange(3))
    else:
        (copy / "checks.json").write_text("[1]")
    write_reports(copy)
    whole = json.loads(json.dumps(audit.to_dict()))["adaptive"]
    assert json.loads((copy / "report.json").read_text())["adaptive"] == whole
    if damage == "checks that are a list":
        assert load_run(copy).results.checks == {}


@pytest.mark.parametrize("outcome", ["refuted", "inconclusive", "upheld"])
def test_every_report_names_the_kind_of_masking_whatever_the_verdict(audit, outcome):
    again = load_run(audit.path)
    again.__dict__["verdict"] = replace(again.verdict, outcome=outcome, reasons=("said",))
    data = again.to_dict()
    assert data["masking"]["kind"] == "vanishing"
    words = data["masking"]["words"]
    console = Console(file=io.StringIO(), width=200)
    console.print(panel(again, "report.html"))
    for text in (render_html(data, again), render_markdown(data), console.file.getvalue()):
        assert words in text


def test_a_healthy_model_has_no_kind(tmp_path):
    data = run("sim_adv", suite="quick", n=12, out=tmp_path).to_dict()
    assert data["masking"] == {"kind": None, "words": "none found"}
    assert "none found" in render_markdown(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "eps", "kind", "words"),
    [
        ("super_fitting", "8/255", "vanishing", "the loss saturates"),
        ("tpap", "0.2", "dynamic", "made on the bare network do not transfer"),
        ("co_noise", "0.3", "stochastic", "the gradient is random"),
        ("sim_adv", "0.2", None, "none found"),
    ],
)
def test_the_report_of_each_shipped_defense_names_its_kind(name, eps, kind, words, tmp_path):
    found = run(name, suite="quick", n=16, eps=eps, out=tmp_path, settings=("unbounded.n_iter=2",))
    data = found.to_dict()
    assert data["masking"]["kind"] == kind
    assert words in data["masking"]["words"]
    assert any("gradient masking" in reason for reason in found.verdict.reasons) == (kind is not None)
