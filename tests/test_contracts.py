"""The import contracts of pyproject.toml cover every attack file; `lint-imports` checks that they are kept."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from audit import registry

ROOT = Path(__file__).parent.parent
OURS = "ours"  # no library
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def forbidden(module: str) -> set[str]:
    return {
        name
        for contract in CONTRACTS
        if contract["type"] == "forbidden" and module in contract["source_modules"]
        for name in contract["forbidden_modules"]
    }


def place(name: str) -> str:
    """The file of an attack, or the package that holds it."""
    return ".".join(registry.attacks.target(name).partition(":")[0].split(".")[:3])


def test_no_attack_file_may_import_the_library_of_another():
    libraries = {place(name): registry.attacks.load(name).library for name in registry.attacks}
    found = (ROOT / "audit" / "attacks").iterdir()
    wrappers = {f"audit.attacks.{p.stem}" for p in found if not p.stem.startswith("__")} - {
        "audit.attacks.common",
        "audit.attacks.rounds",
    }
    helpers = {"audit.attacks.art_cw": "art", "audit.attacks.art_estimator": "art"}
    helpers |= {"audit.attacks.art_walks": "art", "audit.attacks.torchattacks_shapes": "torchattacks"}
    helpers["audit.attacks.autoattack_shapes"] = "pyautoattack"
    assert wrappers - set(helpers) == set(libraries)
    libraries |= helpers
    for module, own in libraries.items():
        assert set(libraries.values()) - {own, OURS} <= forbidden(module), module


def test_each_of_our_own_attacks_has_a_file_and_says_that_it_is_ours():
    targets = {registry.attacks.target(name).partition(":")[0] for name in registry.attacks}
    files = {p.stem for p in (ROOT / "audit" / "attacks" / "own").glob("*.py")} - {"__init__", "common"}
    assert {t.rpartition(".")[2] for t in targets if t.startswith("audit.attacks.own.")} == files
    for name in registry.attacks:
        assert (registry.attacks.load(name).library == OURS) == (place(name) == "audit.attacks.own"), name


def test_attacks_adapters_and_defenses_may_not_import_what_runs_them():
    machinery = {"audit.engine", "audit.runner", "audit.preparation", "audit.results", "audit.plan", "audit.oracle"}
    known = {"audit.attacks", "adapters", "defenses"}
    for package in known:
        assert {"reports", *machinery, *known} - {package} <= forbidden(package)


def test_modules_that_call_themselves_torch_free_are_held_to_it():
    said = {
        f"audit.{path.stem}"
        for path in (ROOT / "audit").glob("*.py")
        if "torch-free." in (ast.get_docstring(ast.parse(path.read_text())) or "").lower()
    }
    assert "audit.claims" in said
    assert {module for module in said if "torch" not in forbidden(module)} == set()
