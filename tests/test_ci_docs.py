"""docs/ci.md and the files that CI systems run say what the code does."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from audit import preparation
from audit.ci_config import CI_KEYS, OWN_KEYS, RULE_KEYS, RUN_KEYS, read_config
from audit.cli import app
from audit.guard import REASONS
from audit.options import FailOn

ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "docs/ci.md").read_text()
ACTION = (ROOT / ".github/actions/audit/action.yml").read_text()
COMMANDS = [
    found[1].strip()
    for text in (DOCS, ACTION, (ROOT / "Makefile").read_text())
    for line in text.splitlines()
    if (found := re.match(r"^\s+(?:- |run: )?(?:OMP_NUM_THREADS=1 )?(?:\$\(BIN\)/)?(python -m audit [^#]*)", line))
]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)


def test_the_commands_were_found():
    assert len(COMMANDS) >= 9
    kinds = {shlex.split(command)[3] for command in COMMANDS}
    assert {"run", "baseline", "check", "ci"} <= kinds


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command):
    words = shlex.split(command)[3:]
    known = typer.main.get_command(app).commands[words[0]]
    known.make_context(words[0], words[1:])  # raises for an unknown flag or a value that does not fit


def test_the_toml_is_valid_and_shows_each_table(tmp_path):
    (text,) = blocks("toml")
    (tmp_path / "audit.toml").write_text(text)
    read = read_config(tmp_path / "audit.toml")
    assert [model.name for model in read.models] == ["plain", "trained"]
    for model in read.models:
        inspect.signature(preparation.prepare).bind(model.defense, **model.options)


def test_every_key_of_the_file_is_a_flag_or_is_explained():
    run = typer.main.get_command(app).commands["run"]
    flags = {option.lstrip("-").replace("-", "_") for p in run.params for option in p.opts}
    assert set(RUN_KEYS) <= flags
    for key in {*OWN_KEYS, *RULE_KEYS, *CI_KEYS} - flags - {"model"}:
        assert f"`{key}`" in DOCS or f"\n{key} = " in DOCS, key
    asked = flags & set(inspect.signature(preparation.prepare).parameters) - {"defense", "model"}
    assert asked <= set(RUN_KEYS)  # a new flag that changes a plan is a new key


def test_the_options_of_the_file_fit_what_they_are_given_to():
    known = set(inspect.signature(preparation.prepare).parameters)
    renamed = {"set": "settings", "trait": "traits"}
    read_as_flags = {"mean", "std", "resize", "value_range"}
    assert {renamed.get(key, key) for key in RUN_KEYS} - read_as_flags <= known


def test_the_python_calls_the_fixture_as_it_is():
    (text,) = blocks("python")
    source = (ROOT / "audit/pytest_plugin.py").read_text()
    taken = set(re.findall(r"^        (?:model|data)|\b(claim|suite|baseline|max_drop|alpha|fail_on)\b", source))
    known = taken | set(inspect.signature(preparation.prepare).parameters)
    space: dict = {}
    exec(text, space)
    seen = []

    class Found:
        class clean:
            accuracy = 0.9

    def record(model, data=None, **options):
        seen.append((model, set(options)))
        return Found

    for name, function in space.items():
        if name.startswith("test_"):
            function(record)
    assert [model for model, _ in seen] == ["undefended", "pgd_at"]
    assert all(options <= known for _, options in seen)


def test_reasons_to_fail_are_one_list():
    assert set(REASONS) == {str(reason) for reason in FailOn}


# --- what is pasted into CI systems


def test_no_input_reaches_a_shell_but_through_the_environment():
    scripts = re.findall(r"^      run: (.*(?:\n        .*)*)", ACTION, re.MULTILINE)
    assert len(scripts) == 3
    assert not any("${{" in script for script in scripts)
    assert ACTION.count("shell: bash") == 3


def test_the_cache_is_the_files_own_and_no_two_jobs_of_a_matrix_share_an_artifact(tmp_path):
    (script,) = re.findall(r"^      run: \|\n((?:        .*\n)+)", ACTION, re.MULTILINE)
    config = tmp_path / "audit.toml"
    config.write_text('[ci]\ncache = "kept"\n[[models]]\ndefense = "undefended"\n')
    said = []
    for cache in ("", "told", ""):
        output = tmp_path / "output"
        output.write_text("")
        environment = {**os.environ, "CONFIG": str(config), "CACHE": cache, "GITHUB_OUTPUT": str(output), "RUNNER_OS": "Linux"}  # fmt: skip
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        subprocess.run(["bash", "-e", "-c", script], env=environment, cwd=ROOT, check=True)
        said.append(dict(line.split("=", 1) for line in output.read_text().splitlines()))
    assert [Path(one["cache"]).name for one in said] == ["kept", "told", "kept"]
    assert said[0]["suffix"] != said[2]["suffix"]
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", one["suffix"]) for one in said)
    assert "name: audit-ci-${{ github.job }}-${{ steps.where.outputs.suffix }}" in ACTION
    assert ACTION.count("path: ${{ steps.where.outputs.cache }}") == 2


def test_units_and_results_are_kept_after_a_failure():
    names = re.findall(r"- name: (Keep .*)\n\s+if: always\(\)", ACTION)
    assert names == ["Keep finished units", "Keep the results"]
    (gitlab,) = (text for text in blocks("yaml") if "image:" in text)
    assert gitlab.count("when: always") == 2
    assert "junit: audit-ci/junit.xml" in gitlab


def test_the_workflow_uses_the_action_and_its_inputs():
    (workflow,) = (text for text in blocks("yaml") if "runs-on" in text)
    assert "/.github/actions/audit@" in workflow
    declared = re.findall(r"^  ([a-z-]+):$", ACTION.split("runs:")[0], re.MULTILINE)
    assert declared == ["config", "cache", "python-version", "install", "upload-sarif"]
    used = re.findall(r"inputs\.([a-z-]+)", ACTION)
    assert set(used) == set(declared)
    assert "config: audit.toml" in workflow


@pytest.mark.parametrize("name", ["baselines/audit.toml"])
def test_the_zoos_guard_names_a_baseline_for_each_model(name):
    read = read_config(ROOT / "reports" / name)
    assert [model for model in read.models if model.baseline is None] == []
    frozen = {path.name for path in (ROOT / "reports/baselines").glob("*.json")}
    assert {model.baseline.name for model in read.models} == frozen
