"""`audit baseline`, `check` and `run --check`: pass, fail with exit code 1, or refuse with one sentence."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from audit import guard
from audit.baselines import freeze, read_baseline
from audit.commands.check import check
from audit.errors import BadInput
from audit.guard import Rules, collected, examine, exit_code, slug
from audit.ledger import Ledger
from audit.regression import ALPHA, MAX_DROP
from audit.summary import load_run
from defenses.base import ZOO
from tests.built import claimed, mask, ran
from tests.frozen import audited
from tests.test_cli import call

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK = ["--defense", "undefended", "--suite", "quick", "--n", "24", "--batch-size", "24", "--quiet"]
SCHEMA = json.loads((Path(__file__).parent.parent / "reports/schema/baseline-1.json").read_text())


def weaker(path: Path) -> Path:
    """The zoo's undefended network with noise on every weight."""
    dice = torch.Generator().manual_seed(0)
    state = load_file(ZOO / "undefended-fashion_mnist-small.safetensors")
    for name, value in state.items():
        if value.is_floating_point() and value.ndim > 1:
            state[name] = value + 0.6 * value.std() * torch.randn(value.shape, generator=dice)
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("guarded") / "run"
    assert call("run", *QUICK, "--eps", "2/255", "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def robust(run_dir) -> Path:
    assert call("baseline", run_dir, "-o", run_dir.parent / "robust.json") == 0
    return run_dir.parent / "robust.json"


# --- a real model, end to end


@pytest.mark.slow
def test_a_baseline_of_a_real_run_keeps_the_schema_and_its_figures(run_dir, robust):
    data = json.loads(robust.read_text())
    jsonschema.validate(data, SCHEMA)
    report = json.loads((run_dir / "report.json").read_text())
    figures = {figure["name"]: figure for figure in data["figures"]}
    assert figures["worst case"]["accuracy"] == report["adaptive"]["accuracy"]
    assert figures["worst case"]["interval"] == report["adaptive"]["interval"]
    assert figures["clean"]["accuracy"] == report["clean"]["accuracy"]
    told = {a["name"]: a["accuracy"] for a in report["attacks"] if a["scope"] != "control"}
    assert {name: figures[name]["accuracy"] for name in told} == told
    assert data["fingerprint"] == report["run"]["fingerprint"]


@pytest.mark.slow
def test_an_identical_run_passes(robust, tmp_path, capsys):
    arguments = [*QUICK, "--eps", "2/255", "--out", tmp_path / "again"]
    assert call("run", *arguments) == 0
    assert call("check", tmp_path / "again", "--baseline", robust) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("undefended: passed\n")
    assert "  ok    worst case: 75.0% as before" in printed
    assert "same weights, seed and versions" in printed
    assert call("run", *arguments, "--check", robust) == 0
    assert capsys.readouterr().out == ""  # --quiet


@pytest.mark.slow
def test_a_weaker_model_fails_with_exit_code_1_by_both_ways(robust, tmp_path, capsys):
    arguments = [*QUICK[:-1], "--eps", "2/255", "--weights", weaker(tmp_path / "weak.pt"), "--out", tmp_path / "weak"]
    assert call("run", *arguments, "--check", robust) == 1
    printed = capsys.readouterr().out
    assert "undefended: failed" in printed
    assert "  FELL  worst case: 75.0% -> " in printed
    assert "images lost, 0 won, p = " in printed
    assert "weights_sha256" in printed
    assert call("check", tmp_path / "weak", "--baseline", robust, "--quiet") == 1
    assert call("check", tmp_path / "weak", "--baseline", robust, "--max-drop", "0.9") == 0
    capsys.readouterr()
    assert call("run", *arguments, "--check", robust, "--json") == 1
    assert call("run", *arguments, "--check", robust, "--quiet", "--max-drop", "0.9") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["schema_version"] == 1  # the report and nothing else
    assert "undefended: failed" in err


def broken_more(run_dir: Path, to: Path, count: int) -> Path:
    """A copy of a run in which its last attack broke `count` more images than it did."""
    shutil.copytree(run_dir, to)
    plan, ledger = load_run(to).results.plan, Ledger(to)
    counted = [u for u in plan.units() if u.step is not None and plan.steps[u.step].scope == "survivors"]
    for unit in reversed(counted):
        stored = ledger.read(unit.name)
        assert stored is not None
        arrays, meta = stored
        standing = np.flatnonzero(~arrays["broken"])[:count]
        if len(standing) == count:
            for name in "broken", "returned_broken":
                arrays[name][standing] = True
            for name in (name for name in arrays if name == "p" or name.startswith("p_")):
                arrays[name][standing] = 0.0
            ledger.write(unit.name, arrays, meta)
            return to
    raise AssertionError(f"no attack left {count} images standing, expected more of this model")


@pytest.mark.slow
def test_three_points_planted_in_a_run_directory_are_caught_with_every_file(tmp_path, capsys):
    """At n = 200 three points are six images, the fewest that prove anything; none lost passes, nor do five fail."""
    whole = [*QUICK, "--eps", "2/255", "--n", "200", "--batch-size", "200"]
    assert call("run", *whole, "--out", tmp_path / "run") == 0
    assert call("baseline", tmp_path / "run", "-o", tmp_path / "robust.json") == 0
    capsys.readouterr()
    for count, code in ((0, 0), (5, 0), (6, 1)):
        lost = broken_more(tmp_path / "run", tmp_path / f"lost-{count}", count)
        out = tmp_path / f"out-{count}"
        assert call("check", lost, "--baseline", tmp_path / "robust.json", "--out", out) == code, count
        printed = capsys.readouterr().out
        assert ("FELL  worst case" in printed) == bool(code)
        (model,) = json.loads((out / "checks.json").read_text())["models"]
        assert model["status"] == ("failed" if code else "passed")
        assert ("6 images lost, 0 won" in printed) == bool(code)
        assert ("<failure" in (out / "junit.xml").read_text()) == bool(code)
        assert bool(json.loads((out / "audit.sarif").read_text())["runs"][0]["results"]) == bool(code)
        assert (out / "summary.md").read_text()
        assert len(list((out / "badges").glob("*.svg"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--eps", "4/255"], 'eps: "2/255" -> "4/255"'),
        (["--eps", "2/255", "--n", "23"], "n: 24 -> 23"),
        (["--eps", "2/255", "--suite", "claimed"], 'suite: "quick" -> "claimed"'),
        (["--eps", "2/255", "--set", "pgd-20.steps=5"], "steps.pgd-20.params.steps: 20 -> 5"),
    ],
)
def test_another_question_is_refused_before_anything_is_attacked(robust, tmp_path, capsys, changed, said):
    assert call("run", *QUICK, *changed, "--check", robust, "--out", tmp_path / "other") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_run_that_is_not_whole_is_refused(run_dir, robust, tmp_path, capsys):
    shutil.copytree(run_dir, tmp_path / "half")
    lost = next(iter(sorted((tmp_path / "half/units").glob("03-*.npz"))))
    Ledger(tmp_path / "half").remove(lost.stem)
    for arguments in (["check", tmp_path / "half", "--baseline", robust], ["baseline", tmp_path / "half"]):
        assert call(*arguments) == 2
        assert "is not finished (1 units are missing)" in capsys.readouterr().err


@pytest.mark.slow
def test_check_reads_a_run_without_torch(run_dir, robust):
    code = (
        f"import sys; from audit.cli import main\ntry: main(['check', {str(run_dir)!r}, '--baseline', {str(robust)!r}])\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# --- the rules, on planted runs


def planted(tmp_path) -> Path:
    freeze(audited()).write(tmp_path / "robust.json")
    return tmp_path / "robust.json"


def fallen():
    return audited(claimed("pgd-20", mask((0, 300))), ran("apgd", mask((0, 450)), attack="apgd-margin"))


def test_a_drop_fails_unless_it_is_not_asked_for(tmp_path):
    baseline = planted(tmp_path)
    found = examine(fallen(), baseline, Rules())
    assert (found.status, exit_code([found])) == ("failed", 1)
    assert found.failures == (found.comparison.rows[0].sentence,)
    assert examine(fallen(), baseline, Rules(fail_on=())).status == "passed"
    assert examine(fallen(), baseline, Rules(max_drop=0.05)).status == "passed"
    assert examine(audited(), baseline, Rules()).status == "passed"


def test_a_verdict_fails_where_it_is_asked_for(tmp_path):
    audit = audited()
    outcome = audit.verdict.outcome
    found = examine(audit, None, Rules(fail_on=(outcome,)))
    assert found.failures == (f"verdict {outcome}: {audit.verdict.reasons[0]}",)
    other = {"refuted": "inconclusive", "inconclusive": "refuted"}[outcome]
    assert examine(audit, None, Rules(fail_on=(other,))).status == "passed"
    with pytest.raises(BadInput, match="fail_on has 'drops', expected drop, refuted, inconclusive"):
        examine(audit, None, Rules(fail_on=("drops",)))


def test_the_worst_status_is_that_of_all(tmp_path):
    passed, broken = examine(audited(), None, Rules()), guard.failed("x", BadInput("the sentence"))
    lost = examine(fallen(), planted(tmp_path), Rules())
    assert [exit_code(e) for e in ([passed], [passed, lost], [lost, broken], [])] == [0, 1, 2, 0]
    assert collected([passed, lost])["status"] == "failed"
    assert broken.to_dict()["error"] == "the sentence"


def test_fail_on_drop_needs_a_baseline(capsys):
    assert call("run", "--defense", "undefended", "--fail-on", "drop") == 2
    assert "type --check robust.json" in capsys.readouterr().err


def test_the_flags_default_to_the_modules_numbers():
    defaults = {name: parameter.default for name, parameter in inspect.signature(check).parameters.items()}
    assert (defaults["max_drop"], defaults["alpha"]) == (MAX_DROP, ALPHA)


@pytest.mark.parametrize(("name", "safe"), [("a b/c", "a-b-c"), ("../..", "model"), ("ü:x", "x"), ("v1.2_b", "v1.2_b")])
def test_a_name_makes_a_safe_file_name(name, safe):
    assert slug(name) == safe


def test_a_written_baseline_is_the_one_that_is_read(tmp_path):
    guard.update(audited(), tmp_path / "sub" / "robust.json")
    assert read_baseline(tmp_path / "sub" / "robust.json").to_dict() == freeze(audited()).to_dict()
