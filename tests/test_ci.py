"""`audit.toml` and `audit ci`: every mistake is one sentence, only what changed is run, and a drop ends in exit code 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
from safetensors.torch import load_file

from audit import execution
from audit.baselines import read_baseline
from audit.ci_config import Model, read_config
from audit.errors import BadInput
from audit.guard import Rules
from audit.ledger import Ledger
from audit.summary import load_run
from defenses.base import ZOO
from tests.test_cli import call
from tests.test_guard import weaker

pytestmark = pytest.mark.usefixtures("undrawn")


def config(folder: Path, text: str) -> Path:
    (folder / "audit.toml").write_text(text)
    return folder / "audit.toml"


# --- the file


def test_a_file_is_read_with_its_defaults_and_paths(tmp_path):
    read = read_config(config(tmp_path, """
        [ci]
        cache = "kept"
        [defaults]
        suite = "quick"
        n = 200
        fail_on = ["refuted"]
        max_drop = 0.02
        [[models]]
        defense = "undefended"
        [[models]]
        name = "wide net"
        defense = "pgd_at"
        n = 50
        eps = "8/255"
        set = ["pgd-20.steps=5"]
        weights = "net.pt"
        baseline = "frozen/wide.json"
        fail_on = ["drop", "inconclusive"]
        alpha = 0.01
        budget = "5m"
        budget_queries = 1000
    """))  # fmt: skip
    assert (read.cache, read.out) == (tmp_path / "kept", tmp_path / "audit-ci")
    assert read.models == (
        Model("undefended", "undefended", {"suite": "quick", "n": 200}, None, Rules(0.02, 0.05, ("refuted",))),
        Model(
            "wide net", "pgd_at",
            {"suite": "quick", "n": 50, "eps": "8/255", "settings": ("pgd-20.steps=5",), "weights": tmp_path / "net.pt"},
            tmp_path / "frozen/wide.json", Rules(0.02, 0.01, ("drop", "inconclusive")), "5m", 1000,
        ),
    )  # fmt: skip
    assert read.models[1].slug == "wide-net"


MODEL = '[[models]]\ndefense = "undefended"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no models; add a table [[models]]"),
        ("models = 3", "has models as a int; type [[models]]"),
        ("[[defaults]]", "has defaults as a list; type [defaults]"),
        ("models = [3]", "models[1] is 3, expected a table"),
        ("[model]", "has the key 'model': did you mean 'models'?"),
        ("[ci]\ncash = 'x'", "[ci] has the key 'cash': did you mean 'cache'?"),
        ("[defaults]\nsuit = 'quick'", "[defaults] has the key 'suit': did you mean 'suite'?"),
        ("[defaults]\nbaseline = 'x.json'", "[defaults] has the key 'baseline'"),
        ("[[models]]\nsuite = 'quick'", 'models[1] names no defense; type defense = "undefended"'),
        (MODEL + "model = 'timm:x'", "models[1] names both a defense and a model"),
        (MODEL + MODEL, "has several models named undefended; give each a name of its own"),
        (MODEL + "epz = 0.1", "models[1] has the key 'epz': did you mean 'eps'?"),
        (MODEL + "n = '200'", "models[1] has n = '200', expected a whole number; type n = 200"),
        (MODEL + "n = true", "models[1] has n = True, expected a whole number"),
        (MODEL + "n = 2.5", "models[1] has n = 2.5, expected a whole number"),
        (MODEL + "download = 1", "expected true or false; type download = true"),
        (MODEL + "set = 'a.b=1'", 'expected a list of texts; type set = ["square.n_queries=1000"]'),
        (MODEL + "set = [1]", "expected a list of texts"),
        (MODEL + "suite = 3", 'expected a text; type suite = "quick"'),
        (MODEL + "max_drop = 'x'", "expected a number; type max_drop = 0.01"),
        (MODEL + "fail_on = ['drops']", "models[1]: fail_on has 'drops', expected drop, refuted, inconclusive"),
        (MODEL + "budget = 'soon'", "models[1]: --budget is 'soon', expected a time such as 90s"),
        (MODEL + "fail_on = ['drop']", "models[1] fails on a drop and has no baseline; type baseline"),
        ("[[models", "cannot be read (Expected ']]'"),
    ],
)
def test_every_mistake_is_named_with_its_place(tmp_path, text, said):
    with pytest.raises(BadInput) as caught:
        read_config(config(tmp_path, text))
    assert said in str(caught.value)
    assert str(tmp_path / "audit.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_text_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"there is no .*audit.toml, expected the file that names the models"):
        read_config(tmp_path / "audit.toml")
    (tmp_path / "audit.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="cannot be read"):
        read_config(tmp_path / "audit.toml")


# --- the command

TWO = """
[defaults]
suite = "quick"
n = 12
batch_size = 12
[[models]]
name = "first"
defense = "undefended"
eps = "2/255"
weights = "net.pt"
baseline = "frozen/first.json"
[[models]]
name = "second"
defense = "undefended"
eps = "4/255"
baseline = "frozen/second.json"
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Path:
    """A project of two models, frozen and run once."""
    folder = tmp_path_factory.mktemp("project")
    torch.save(load_file(ZOO / "undefended-fashion_mnist-small.safetensors"), folder / "net.pt")
    path = config(folder, TWO)
    assert call("ci", "--config", path, "--quiet") == 2  # no baselines yet
    assert call("ci", "--config", path, "--update-baselines", "--quiet") == 0
    return folder


@pytest.fixture
def project(guarded, tmp_path) -> Path:
    return Path(shutil.copytree(guarded, tmp_path / "project"))


def checks(folder: Path) -> dict:
    return json.loads((folder / "audit-ci/checks.json").read_text())


@pytest.mark.slow
def test_the_first_time_baselines_are_frozen(guarded):
    assert [read_baseline(guarded / f"frozen/{name}.json").comparable["n"] for name in ("first", "second")] == [12, 12]
    assert checks(guarded)["status"] == "passed"


@pytest.mark.slow
def test_what_did_not_change_is_not_run_again(project, monkeypatch, capsys):
    def never(*_):
        raise AssertionError("nothing changed")

    monkeypatch.setattr(execution, "execute", never)
    assert call("ci", "--config", project / "audit.toml") == 0
    printed = capsys.readouterr().out
    assert printed.count("nothing changed: all 7 units were there") == 2
    assert {m["status"] for m in checks(project)["models"]} == {"passed"}
    root = ET.fromstring((project / "audit-ci/junit.xml").read_text())
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("16", "0", "0")
    assert (project / "audit-ci/badges/first.svg").exists()
    for run in (project / "runs/ci").iterdir():
        assert (run / "report.html").exists()


@pytest.mark.slow
def test_a_changed_model_is_run_alone_and_its_drop_fails(project, monkeypatch, capsys):
    weaker(project / "net.pt")
    ran, execute = [], execution.execute
    monkeypatch.setattr(execution, "execute", lambda prepared, run_dir, *rest: ran.append(run_dir.name) or execute(prepared, run_dir, *rest))  # fmt: skip
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "step.md"))
    assert call("ci", "--config", project / "audit.toml") == 1
    printed = capsys.readouterr().out
    assert [name.rpartition("-")[0] for name in ran] == ["first"]
    assert "first: failed" in printed
    assert "second: passed" in printed
    assert "7 of 7 units were run, 0 were there" in printed
    assert "::error file=" in printed
    assert "❌ failed" in (project / "step.md").read_text()
    assert [m["status"] for m in checks(project)["models"]] == ["failed", "passed"]


@pytest.mark.slow
def test_a_torn_run_is_completed_from_what_is_there(project, capsys):
    (run_dir,) = (project / "runs/ci").glob("second-*")
    names = [path.stem for path in sorted((run_dir / "units").iterdir())]
    Ledger(run_dir).remove(names[3])
    assert call("ci", "--config", project / "audit.toml") == 0
    assert "1 of 7 units were run, 6 were there" in capsys.readouterr().out


@pytest.mark.slow
def test_one_model_that_cannot_be_judged_keeps_no_other_from_it(project, capsys):
    path = config(project, TWO.replace('eps = "2/255"', 'eps = "3/255"'))
    assert call("ci", "--config", path, "--json") == 2
    first, second = json.loads(capsys.readouterr().out)["models"]
    assert (first["status"], second["status"]) == ("error", "passed")
    assert 'eps: "2/255" -> "3/255"' in first["error"]
    root = ET.fromstring((project / "audit-ci/junit.xml").read_text())
    assert root.get("errors") == "1"


@pytest.mark.slow
def test_a_spent_budget_is_no_pass_and_the_next_time_goes_on(project, capsys):
    shutil.rmtree(project / "runs")
    first = TWO.partition('[[models]]\nname = "second"')[0]
    assert call("ci", "--config", config(project, first + "budget_queries = 300\n"), "--json") == 2
    (entry,) = json.loads(capsys.readouterr().out)["models"]
    assert entry["error"].startswith("first is not finished, the budget is spent: ")
    assert call("ci", "--config", config(project, first), "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["models"]
    assert entry["status"] == "passed"
    assert 0 < entry["reused"] < entry["units"]


def test_updating_a_model_without_a_baseline_says_what_to_type(tmp_path, capsys):
    path = config(tmp_path, '[[models]]\ndefense = "undefended"\n')
    assert call("ci", "--config", path, "--update-baselines") == 2
    assert 'undefended has no baseline to update; type baseline = "robust.json" in' in capsys.readouterr().out


# --- models of one's own


@pytest.mark.slow
def test_a_model_is_found_by_its_python_path_with_its_preprocessing(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)).eval()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = config(tmp_path, """
        [[models]]
        name = "linear"
        model = "mine:build"
        suite = "quick"
        n = 4
        mean = "0.5"
        std = "0.25"
        trait = ["stateful"]
        baseline = "linear.json"
    """)  # fmt: skip
    assert call("ci", "--config", path, "--update-baselines", "--quiet") == 0
    (entry,) = checks(tmp_path)["models"]
    assert entry["run"]["defense"] == "mine:build"
    plan = load_run(entry["run"]["path"]).results.plan
    assert "stateful" in plan.identity["traits"]
    assert plan.runtime["sources"]["declared"]["preprocessing"]["mean"] == [0.5]
