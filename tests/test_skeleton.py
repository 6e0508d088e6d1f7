"""What `audit new-defense` writes: a package whose own tests pass and that the command line finds."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from audit.cli import main
from audit.errors import BadInput
from audit.models.own import ModelDefense
from audit.models.spec import Declared, resolve
from audit.registry import datasets
from audit.skeleton import FILES, write_skeleton
from audit.testing import check_defense

ROOT = Path(__file__).parent.parent


def test_the_written_defense_keeps_the_contract(tmp_path, monkeypatch):
    written = write_skeleton("fresh_defense", tmp_path)
    assert len(written) == len(FILES) == len([p for p in tmp_path.rglob("*") if p.is_file()])
    monkeypatch.syspath_prepend(str(tmp_path))
    found = resolve("fresh_defense.defense:DEFENSE", Declared())
    assert isinstance(found, ModelDefense)
    assert found.name == "fresh_defense"
    check_defense(found, datasets.load("fashion_mnist").load())
    assert not [path for path in written if "@" in path.read_text() or "@" in path.name]
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["audit.defenses"] == {"fresh_defense": "fresh_defense.defense:DEFENSE"}


@pytest.mark.slow
def test_its_own_tests_pass_as_they_were_written(tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["new-defense", "fresh_defense", "--out", str(tmp_path / "new")])
    assert ended.value.code == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=tmp_path / "new", capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my-defense", "'my-defense' cannot name a Python package, expected lower-case"),
        ("class", "'class' cannot name a Python package"),
        ("Mine", "'Mine' cannot name"),
        ("tpap", "'tpap' is taken, expected a new name; type for example my_tpap"),
        ("json", "'json' is taken"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name, sentence, tmp_path):
    with pytest.raises(BadInput, match=sentence):
        write_skeleton(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(BadInput, match=r"README.md exists already, expected an empty folder; type --out DIR"):
        write_skeleton("fresh_defense", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"
