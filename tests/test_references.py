"""References: found by name, run on the same images inside the run, compared image by image."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest
from scipy.stats import binomtest

import audit
from audit.cli import main
from audit.errors import BadInput, BadWeights, UnknownName
from audit.paired import compare, references_of
from audit.references import find, named
from audit.stats import paired_score_interval
from audit.verify import reverify, sound
from reports import write_reports
from reports.references import rows
from tests.built import built, mask, ran
from tests.own_models import save_images

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK = {"suite": "quick", "n": 12, "eps": 16 / 255}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "run"
    audit.run("undefended", reference="pgd_at", out=place, **QUICK)
    write_reports(place)
    return place


@pytest.mark.slow
def test_the_pair_is_counted_on_the_images_themselves(run_dir):
    own, other = audit.load_run(run_dir), audit.load_run(run_dir / "references" / "pgd_at")
    assert other.results.plan.identity["defense"] == "pgd_at"
    assert other.results.plan.identity["dataset_digest"] == own.results.plan.identity["dataset_digest"]
    (entry,) = own.to_dict()["references"]
    mine, theirs = own.results.survives_all, other.results.survives_all
    assert entry["only_defense"] == int((mine & ~theirs).sum())
    assert entry["only_reference"] == int((theirs & ~mine).sum()) > 0
    assert entry["difference"] == pytest.approx((int(mine.sum()) - int(theirs.sum())) / 12)
    discordant = entry["only_defense"] + entry["only_reference"]
    assert entry["p_value"] == pytest.approx(binomtest(entry["only_defense"], discordant).pvalue)
    assert entry["interval"][0] < entry["difference"] < entry["interval"][1]
    assert entry["adaptive"]["accuracy"] == other.adaptive.accuracy


@pytest.mark.slow
def test_the_report_has_the_table_and_fits_its_schema(run_dir):
    data = json.loads((run_dir / "report.json").read_text())
    jsonschema.validate(data, json.loads(resources.files("reports").joinpath("schema/report-1.json").read_text()))
    assert "Beside its references, image by image" in (run_dir / "report.html").read_text()
    text = (run_dir / "report.md").read_text()
    (row,) = rows(data)
    assert f"| {' | '.join(row)} |" in text
    assert row[0] == "pgd_at"


@pytest.mark.slow
def test_both_runs_can_be_verified_and_resume(run_dir):
    assert sound(reverify(run_dir))
    assert sound(reverify(run_dir / "references" / "pgd_at"))
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("units/*")}
    audit.run("undefended", reference=["pgd_at"], out=run_dir, **QUICK)
    assert before == {path: path.stat().st_mtime_ns for path in run_dir.rglob("units/*")}


@pytest.mark.slow
def test_without_references_there_is_no_section(tmp_path):
    audit.run("undefended", out=tmp_path / "run", suite="quick", n=2)
    write_reports(tmp_path / "run")
    assert "Beside its references" not in (tmp_path / "run" / "report.html").read_text()
    assert audit.load_run(tmp_path / "run").to_dict()["references"] == []


def test_names_are_registered_or_those_of_a_defense(tmp_path):
    assert find("standard").defense == "undefended"
    assert find("pgd_at").defense == "pgd_at"
    assert find("tests.own_models:build").defense == "tests.own_models:build"
    assert named(" standard, pgd_at,") == ("standard", "pgd_at")
    assert named("") == ()
    with pytest.raises(BadInput, match="name one model twice"):
        named("a:b,a-b")
    with pytest.raises(UnknownName, match="did you mean 'pgd_at'"):
        audit.run("undefended", reference="pgd_att", out=tmp_path / "a", **QUICK)
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_a_reference_without_weights_for_the_images_is_said_before_anything_runs(tmp_path):
    data = save_images(tmp_path / "x.npz")
    with pytest.raises(BadWeights, match="no weights of pgd_at are shipped for dataset 'own_images'"):
        audit.run("tests.own_models:build", data=data, eps=0.1, suite="quick", reference="pgd_at", out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    found = audit.run(
        "tests.own_models:build", data=data, eps=0.1, suite="quick", out=tmp_path / "b",
        reference="tests.own_models:with_weights",
    )  # fmt: skip
    assert [name for name, _ in references_of(found.path)] == ["tests.own_models-with_weights"]


@pytest.mark.slow
def test_the_first_command_of_the_readme(tmp_path, capsys):
    command = "run --defense super_fitting --suite quick --n 6 --reference standard,pgd_at --json --out"
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), str(tmp_path / "run")])
    assert ended.value.code == 0
    assert [r["name"] for r in json.loads(capsys.readouterr().out)["references"]] == ["pgd_at", "standard"]
    assert (tmp_path / "run" / "references" / "standard" / "report.html").is_file()


def test_what_cannot_be_compared_says_why():
    same = {"dataset_digest": "d", "suite": "s"}
    own = built(ran("a", mask((0, 100))), **same)
    for other, why in (
        (built(ran("a"), **same, eps=0.1), "another eps"),
        (built(ran("a"), **{**same, "dataset_digest": "e"}), "another images"),
        (built(ran("a"), **same, missing=2), "a run that is not finished"),
    ):
        found = compare("r", own, other)
        assert found.differs == why
        assert found.difference is None
    found = compare("r", own, built(ran("a", mask((50, 300))), **same))
    assert (found.only_defense, found.only_reference, found.differs) == (200, 50, "")
    assert found.difference == pytest.approx(0.15)
    assert found.p_value < 1e-10


def shares(*counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs by both, first only, second only, neither."""
    first, second = ((1, 1, 0, 0), (1, 0, 1, 0))
    return tuple(np.repeat(np.asarray(side, np.float64), counts) for side in (first, second))


def test_the_interval_holds_what_it_promises():
    dice = np.random.default_rng(0)
    for both, one, other in ((0.5, 0.2, 0.1), (0.8, 0.05, 0.05), (0.1, 0.6, 0.0), (0.0, 0.02, 0.0)):
        truth, p, held = one - other, (both, one, other, 1 - both - one - other), 0
        for _ in range(400):
            low, high = paired_score_interval(*shares(*dice.multinomial(60, p)))
            held += low <= truth <= high
        assert held >= 0.93 * 400, p


def test_the_interval_is_symmetric_and_never_a_point():
    first, second = shares(30, 9, 4, 17)
    low, high = paired_score_interval(first, second)
    assert (-high, -low) == pytest.approx(paired_score_interval(second, first))
    assert low < 5 / 60 < high
    low, high = paired_score_interval(*shares(60, 0, 0, 0))
    assert low < 0 < high
    assert paired_score_interval(*shares(0, 60, 0, 0))[1] == 1.0


def test_shares_between_zero_and_one_widen_the_interval():
    first, second = shares(30, 10, 5, 15)
    sharp = paired_score_interval(first, second)
    soft = paired_score_interval(0.25 + 0.5 * first, 0.25 + 0.5 * second)
    assert soft[0] <= sharp[0]
    assert soft[1] >= sharp[1]
