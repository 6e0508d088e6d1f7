"""What the commands share: exit codes, and how an interruption ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

EPILOG = (
    "Exit codes: 0 finished, whatever the verdict; 1 --fail-on matched, an accuracy fell below its baseline, `verify` found a "
    "bad, missing or damaged unit, `doctor` a library that does not import, or `test-attack` an attack that is too weak; "
    "2 bad input; 130 interrupted."
)


@contextmanager
def resumable(sentence: str) -> Iterator[None]:
    """Ctrl-C inside ends with exit code 130 and the sentence, which tells how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; {sentence}", file=sys.stderr)
        raise typer.Exit(130) from None


def typed_command(*, without: Sequence[str] = ()) -> str:
    """The command line as it was typed, for the record.

    without: long options, each with a value, that the record leaves out.
    """
    words: list[str] = []
    skipped = False
    for word in sys.argv[1:]:
        if skipped:
            skipped = False
        elif word in without:
            skipped = True
        elif word.partition("=")[0] not in without:
            words.append(word)
    return "python -m audit " + shlex.join(words)
