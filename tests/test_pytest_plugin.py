"""The plug-in: light in every session, one sentence where a model is not as robust as it was or as is claimed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from audit.baselines import read_baseline
from tests.test_guard import weaker

pytestmark = pytest.mark.usefixtures("undrawn")

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
KNOWN = 'n=12, batch_size=12, eps="2/255"'
WIDE = KNOWN.replace("2/255", "8/255")


@pytest.fixture
def run(pytester, monkeypatch):
    """Run the tests of a text in this process, with the plug-in and warnings as errors."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.syspath_prepend(str(ROOT))

    def go(text: str, *arguments: str):
        pytester.makepyfile(test_mine=text)
        return pytester.runpytest_inprocess("-p", "audit.pytest_plugin", "--strict-markers", "-W", "error", *arguments)

    return go


def test_a_session_with_the_plug_in_imports_nothing_heavy(tmp_path):
    """As pytest finds it when the project is installed: through its entry point, warnings being errors."""
    info = tmp_path / "site" / "planted-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\naudit.pytest_plugin = audit.pytest_plugin\n")
    (tmp_path / "test_light.py").write_text(
        "import sys\n\ndef test_light(request):\n"
        "    assert request.config.pluginmanager.hasplugin('audit.pytest_plugin')\n"
        "    heavy = {'torch', 'numpy', 'scipy', 'audit.guard', 'audit.runner', 'audit.preparation', 'typer'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "--strict-markers",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_project_declares_the_plug_in():
    import tomllib

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert declared == {"audit.pytest_plugin": "audit.pytest_plugin"}


def test_a_test_that_audits_is_marked(run):
    text = "def test_a(assert_robust): pass\ndef test_b(): pass\n"
    run(text, "-m", "robust").assert_outcomes(passed=1, deselected=1)
    run(text, "-m", "not robust").assert_outcomes(passed=1, deselected=1)
    assert "--audit-update-baseline" in run(text, "--help").stdout.str()
    assert "robust: audits a model" in run(text, "--markers").stdout.str()


@pytest.mark.slow
def test_from_no_baseline_to_a_drop(run, pytester):
    text = f'def test_a(assert_robust):\n    assert_robust("undefended", {KNOWN}, baseline="frozen/a.json")\n'
    missing = run(text)
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(
        ["*there is no baseline *frozen/a.json; type pytest --audit-update-baseline and commit it"]
    )
    run(text, "--audit-update-baseline").assert_outcomes(passed=1)
    assert read_baseline(pytester.path / "frozen/a.json").comparable["n"] == 12
    run(text).assert_outcomes(passed=1)

    weaker(pytester.path / "weak.pt")
    fallen = run(text.replace("baseline", 'weights="weak.pt", baseline'))
    fallen.assert_outcomes(failed=1)
    fallen.stdout.fnmatch_lines(
        ["undefended is not as robust as it should be:", "worst case: * images lost, 0 won, p = *"]
    )
    assert "Traceback" not in fallen.stdout.str()

    other = run(text.replace("2/255", "3/255"))
    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(['*cannot be compared with the baseline: eps: "2/255" -> "3/255"*'])


@pytest.mark.slow
def test_a_claim_that_is_refuted_fails_and_a_modest_one_passes(run, pytester):
    text = (
        "def test_claims(assert_robust):\n"
        f'    found = assert_robust("undefended", "fashion_mnist", {WIDE}, claim=0.1)\n'
        '    assert found.claim.robust_acc == 0.1\n'
        f'    assert_robust("undefended", {WIDE}, claim=0.9, fail_on=())\n'
        f'    assert_robust("undefended", {WIDE}, claim=0.9)\n'
    )  # fmt: skip
    result = run(text)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["verdict refuted: Refuted: the claim is 90.0%*"])
    kept = list((pytester.path / ".pytest_cache").rglob("plan.json"))
    assert len(kept) == 2  # the last two are one plan


def test_images_of_ones_own_and_bad_input_are_told_in_one_sentence(run, pytester):
    result = run('def test_a(assert_robust):\n    assert_robust("undefended", "images.npz", n=4)\n')
    result.assert_outcomes(failed=1)
    assert "images.npz" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


@pytest.mark.slow
def test_an_unchanged_model_is_not_attacked_again(run, pytester):
    text = f'def test_a(assert_robust):\n    assert_robust("undefended", {KNOWN}, claim=0.1)\n'

    def written() -> int:
        run(text).assert_outcomes(passed=1)
        (last,) = (pytester.path / ".pytest_cache").rglob("checks.json")
        return last.stat().st_mtime_ns

    first = written()
    assert written() == first
    run("def test_b(): pass", "--cache-clear").assert_outcomes(passed=1)
    assert written() > first


@pytest.mark.slow
def test_a_model_and_images_of_the_session_are_audited(run, pytester):
    text = (
        "import numpy as np\nimport torch\n\n"
        "def test_a(assert_robust):\n"
        "    torch.manual_seed(0)\n"
        "    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()\n"
        "    x = np.random.default_rng(0).random((12, 1, 8, 8), dtype=np.float32)\n"
        "    y = model(torch.from_numpy(x)).argmax(1).numpy()\n"
        '    found = assert_robust(model, (x, y), eps=0.001, claim=0.9, baseline="linear.json")\n'
        "    assert found.clean.accuracy == 1\n"
    )
    run(text, "--audit-update-baseline").assert_outcomes(passed=1)
    run(text).assert_outcomes(passed=1)
    fallen = run(text.replace("eps=0.001, claim=0.9", "eps=0.5"), "--audit-update-baseline")
    fallen.assert_outcomes(passed=1)  # no claim, and the new radius is frozen
    other = run(text)
    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(['*eps: "0.5" -> "0.001"*'])
