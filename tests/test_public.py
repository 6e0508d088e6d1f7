"""The public face: a sorted, importable __all__, no heavy import, and a README that tells the truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import audit

pytestmark = pytest.mark.usefixtures("undrawn")

ROOT = Path(__file__).parent.parent


def test_all_is_sorted_and_resolves():
    assert audit.__all__ == sorted(audit.__all__)
    for name in audit.__all__:
        assert getattr(audit, name) is not None


def test_importing_audit_imports_no_torch_and_no_attack_library():
    heavy = "{'torch', 'torchvision', 'torchattacks', 'pyautoattack', 'matplotlib'}"
    code = f"import sys, audit, audit.types, audit.results; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["audit.summary", "audit.verdict", "audit.results", "audit.plan", "audit.stats"])
def test_what_reads_a_run_imports_no_torch(module):
    subprocess.run([sys.executable, "-c", f"import {module}, sys; assert 'torch' not in sys.modules"], check=True)


def test_the_readmes_commands_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("audit", "test"):
        assert f"make {target}" in readme
        assert f"\n{target}:" in makefile


def test_every_flag_of_run_is_in_the_readme():
    import re

    help_text = subprocess.run(
        [sys.executable, "-m", "audit", "run", "--help"], check=True, capture_output=True, text=True
    )
    flags = set(re.findall(r"--[a-z][a-z-]+", help_text.stdout)) - {"--help"}
    readme = (ROOT / "README.md").read_text()
    assert flags
    assert {flag for flag in flags if f"`{flag}" not in readme} == set()


def test_the_docs_hold_every_diagnosis():
    from audit.diagnoses import INDEX

    text = (ROOT / "docs" / "diagnoses.md").read_text()
    assert [f"| {name} | {what} |" for name, what in INDEX.items() if f"| {name} | {what} |" not in text] == []
