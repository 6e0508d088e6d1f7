"""The import contracts of pyproject.toml cover every attack file; `lint-imports` checks that they are kept."""

from __future__ import annotations

import tomllib
from pathlib import Path

from audit import registry

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def forbidden(module: str) -> set[str]:
    return {
        name
        for contract in CONTRACTS
        if contract["type"] == "forbidden" and module in contract["source_modules"]
        for name in contract["forbidden_modules"]
    }


def test_no_attack_file_may_import_the_library_of_another():
    libraries = {
        registry.attacks.target(name).partition(":")[0]: registry.attacks.load(name).library
        for name in registry.attacks
    }
    wrappers = {f"audit.attacks.{p.stem}" for p in (ROOT / "audit" / "attacks").glob("*.py")} - {
        "audit.attacks.__init__",
        "audit.attacks.common",
    }
    helpers = {"audit.attacks.art_cw": "art", "audit.attacks.art_estimator": "art"}
    assert wrappers - set(helpers) == set(libraries)
    libraries |= helpers
    for module, own in libraries.items():
        assert set(libraries.values()) - {own} <= forbidden(module), module


def test_attacks_and_adapters_may_not_import_what_runs_them():
    for package, others in (("audit.attacks", {"adapters"}), ("adapters", {"audit.attacks"})):
        assert {"defenses", "reports", "audit.engine", "audit.runner", *others} <= forbidden(package)
