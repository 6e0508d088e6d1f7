"""A plug-in of somebody else's, installed by pip, offers its defense, attack, data set and reference."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "plugin_package"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which pip has installed the plug-in."""
    place = tmp_path_factory.mktemp("site")
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "plugin")  # building leaves files behind
    command = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(place),
        str(source),
    ]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return place


def call(installed: Path, *arguments: str, code: int = 0) -> str:
    paths = os.pathsep.join([str(installed), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "audit", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_installed_plugin_is_listed_audited_verified_and_compared(installed, tmp_path):
    for kind, name in (
        ("defenses", "squeezed"), ("attacks", "corner"), ("datasets", "halves"), ("references", "bare"),
    ):  # fmt: skip
        assert name in call(installed, "list", kind)
    out = tmp_path / "run"
    found = json.loads(call(
        installed, "run", "--defense", "squeezed", "--suite", "quick", "--eps", "0.15", "--claim-robust", "0.9",
        "--claim-attack", "corner", "--reference", "bare", "--out", str(out), "--json",
    ))  # fmt: skip
    assert found["defense"]["name"] == "squeezed"
    assert found["dataset"]["name"] == "halves"
    assert found["clean"]["accuracy"] == 1.0
    ran = {a["attack"]: a for a in found["attacks"]}
    assert ran["corner"]["done"]
    assert not ran["corner"]["errors"]
    assert found["adaptive"]["accuracy"] < 0.7
    assert found["verdict"]["outcome"] == "refuted"
    assert [r["name"] for r in found["references"]] == ["bare"]
    assert "0 rejected; 0 units missing" in call(installed, "verify", str(out))


@pytest.mark.slow
def test_without_the_plugin_its_names_are_unknown(tmp_path):
    empty = tmp_path / "nothing"
    empty.mkdir()
    call(empty, "run", "--defense", "squeezed", code=2)
