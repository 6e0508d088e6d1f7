"""What typer refuses to parse, in one sentence like those of `audit.errors`."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperGroup

from audit.errors import UnknownName
from audit.registry import closest

# typer's own, or click's in older releases, which typer does not name.
Misuse: type[typer.BadParameter] = typer.BadParameter.__mro__[1]


class Commands(TyperGroup):
    """Commands of which an unknown one is answered with the nearest. Raises UnknownName."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UnknownName(f"unknown command {args[0]!r}: {closest(args[0], list(self.commands))}")
        return super().resolve_command(ctx, args)


def sentence(error: typer.BadParameter) -> str:
    """What was typed, what was expected, and the nearest name that is known or the help to read."""
    said = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
    said = re.sub(r" \(Possible options: .*\)$", "", said)
    return f"{said[:1].lower()}{said[1:]}; {_next(error, said)}"


def _next(error: typer.BadParameter, said: str) -> str:
    choice = re.search(r"'([^']*)' is not one of (.+)$", said)
    typed, known, dashes = (choice[1], re.findall(r"'([^']*)'", choice[2]), "") if choice else ("", [], "")
    if isinstance(option := getattr(error, "option_name", None), str) and error.ctx is not None:
        # Without the dashes, in which every name is alike.
        typed, known, dashes = (
            option.lstrip("-"),
            [o.lstrip("-") for p in error.ctx.command.params for o in p.opts],
            "--",
        )
    if typed and (hint := closest(typed, known)).startswith("did you mean"):
        return hint.replace("mean '", f"mean '{dashes}")
    command = error.ctx.info_name if error.ctx is not None and error.ctx.parent is not None else ""
    return f"see `python -m audit {command} --help`".replace("  ", " ")
