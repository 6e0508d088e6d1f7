"""A package for a new defense, with tests that pass: what `audit new-defense` writes. Torch-free."""

from __future__ import annotations

import keyword
import sys
from importlib import resources
from pathlib import Path

from audit import registry
from audit.errors import BadInput
from audit.ledger import write_atomically

FILES = {
    "pyproject.toml": "pyproject",
    "README.md": "readme",
    "@NAME@/__init__.py": "",
    "@NAME@/defense.py": "defense",
    "tests/test_@NAME@.py": "test",
}


def write_skeleton(name: str, out: Path) -> list[Path]:
    """Write the files into the folder `out`, and return them.

    Raises BadInput for a name that cannot be a package's, that a defense or an installed module has, or a folder that
    holds one of the files; CannotWrite.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise BadInput(
            f"{name!r} cannot name a Python package, expected lower-case letters, digits and _ as my_defense"
        )
    if (
        name in registry.defenses.names()
        or name in sys.stdlib_module_names
        or name in ("audit", "defenses", "adapters")
    ):
        raise BadInput(f"{name!r} is taken, expected a new name; type for example my_{name}")
    texts = {out / path.replace("@NAME@", name): _text(part).replace("@NAME@", name) for path, part in FILES.items()}
    there = [path for path in texts if path.exists()]
    if there:
        raise BadInput(f"{there[0]} exists already, expected an empty folder; type --out DIR")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    return list(texts)


def _text(part: str) -> str:
    if not part:
        return '"""@NAME@."""\n'
    return resources.files("audit.data").joinpath(f"new_defense/{part}.txt").read_text(encoding="utf-8")
