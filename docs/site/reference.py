"""Writes docs/reference.md: every flag of every command and every public name, from the code itself.

Run from the repository's root: python -m docs.site.reference. A test holds the page against what this gives.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

import audit
from audit import registry
from audit.cli import COMMANDS, app
from audit.preparation import prepare
from audit.testing import check_attack, check_defense

PAGE = Path(__file__).parents[1] / "reference.md"
START = """# Reference

Every command with its flags, and every public name. This page is written by `python -m docs.site.reference`; a test fails when it is
not up to date. What a command's exit code means stands [here](index.md#exit-codes).

## Commands
"""


def page() -> str:
    """The whole page, as Markdown."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    parts = [START, *(_command(name, found) for name, found in commands.items())]
    parts += ["## Public names of `audit`\n", *(_callable(name, getattr(audit, name)) for name in audit.__all__)]
    parts.append(_callable("prepare", prepare).replace("### prepare", "### The options of run"))
    parts += [
        "## Checks for attacks and defenses of your own\n",
        "`from audit.testing import check_attack, check_defense`, in your tests.\n",
    ]
    parts += [_callable(check.__name__, check) for check in (check_attack, check_defense)]
    parts += ["## Adapters\n", "By their names in a step; see [writing an adapter](adapters.md).\n"]
    parts += [_callable(name, registry.adapters.load(name)) for name in registry.adapters.names()]
    return "\n".join(parts).rstrip() + "\n"


def _command(name: str, command: Any) -> str:
    kinds = get_type_hints(COMMANDS[name])  # typer keeps the kind of value in another place in each release
    rows = [_row(param, kinds[param.name]) for param in command.params if param.name in kinds]
    table = ["| flag | meaning | default |", "|---|---|---|", *rows]
    return "\n".join([f"### audit {name}\n", f"{_cell(_first(command.help))}\n", *table, ""])


def _row(param: Any, kind: Any) -> str:
    if param.param_type_name == "argument":
        shown = param.name.upper()
    else:
        shown = ", ".join(param.opts) + ("" if kind is bool else f" {_word(kind)}")
    return f"| `{shown}` | {_cell(param.help or '')} | {_default(param)} |"


def _word(kind: Any) -> str:
    """What to put for the value: `list[int] | None` is N."""
    inner = [part for part in get_args(kind) if part is not type(None)]
    if inner:
        return _word(inner[0])
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    value = param.default
    return "" if value is None or value is False or value == "" else f"`{value}`"


def _callable(name: str, thing: Callable[..., Any]) -> str:
    real = getattr(thing, "__name__", name)
    if real != name and real in audit.__all__:
        return f"### {name}\n\nAnother name of [{real}](#{real.lower()}).\n"
    parts = [f"### {name}\n", f"```python\n{_signature(name, thing)}\n```\n", *_paragraphs(inspect.getdoc(thing) or "")]
    parts += [f"- `{found}`: {_cell(said)}" for found, said in _members(thing)]
    return "\n".join([*parts, ""])


def _signature(name: str, thing: Callable[..., Any]) -> str:
    """One parameter a line where it would be too long for the page."""
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return f"class {name}({thing.__base__.__name__})"
    shown = list(_parameters(inspect.signature(thing)))
    line = f"{name}({', '.join(shown)})"
    return line if len(line) <= 100 else "\n".join([f"{name}(", *(f"    {part}," for part in shown), ")"])


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    starred = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        yield str(parameter.replace(annotation=_Plain(parameter.annotation)))


class _Plain(str):
    """An annotation as it was written, which `inspect` would put into quotes."""

    def __repr__(self) -> str:
        return str(self)


def _members(thing: Any) -> Iterator[tuple[str, str]]:
    """The documented public methods and properties that a class itself defines."""
    if not inspect.isclass(thing) or not dataclasses.is_dataclass(thing):
        return
    for name, value in vars(thing).items():
        said = inspect.getdoc(value)
        documented = callable(value) or isinstance(value, property | classmethod) or hasattr(value, "attrname")
        if not name.startswith("_") and documented and said:
            yield name, _first(said)


def _paragraphs(text: str) -> list[str]:
    """A docstring's paragraphs; indented ones are code."""
    return [f"{_code(part)}\n" for part in text.split("\n\n")]


def _code(paragraph: str) -> str:
    return paragraph if paragraph.startswith((" ", "-")) else " ".join(paragraph.split()).replace("|", "\\|")


def _first(text: str | None) -> str:
    return (text or "").split("\n\n")[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
