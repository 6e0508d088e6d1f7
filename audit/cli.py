"""The command line: flags in, one sentence for every mistake, exit codes that scripts can rely on.

Exit codes: 0 the audit finished, whatever the verdict; 1 --fail-on matched, an accuracy fell below its baseline, `verify`
found a bad, missing or damaged unit, `doctor` a library that does not import, or `test-attack` an attack that is too weak;
2 bad input; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from audit import __version__
from audit.commands.baseline import baseline
from audit.commands.check import check
from audit.commands.ci import ci
from audit.commands.common import EPILOG, resumable
from audit.commands.compare import compare
from audit.commands.diagnose import diagnose
from audit.commands.export import export
from audit.commands.finished import report, verify
from audit.commands.inspect import doctor, list_
from audit.commands.leaderboard import leaderboard
from audit.commands.new_defense import new_defense
from audit.commands.run import run
from audit.commands.test_attack import attack_test
from audit.commands.train import train
from audit.errors import AuditError
from audit.misuse import Commands, Misuse, sentence

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "diagnose": diagnose,
    "train": train,
    "list": list_,
    "report": report,
    "compare": compare,
    "verify": verify,
    "leaderboard": leaderboard,
    "export": export,
    "new-defense": new_defense,
    "baseline": baseline,
    "check": check,
    "ci": ci,
    "test-attack": attack_test,
    "doctor": doctor,
}


class _Group(Commands):
    """Says that it was interrupted, where typer only ends with 130."""

    def invoke(self, ctx: Any) -> Any:
        with resumable("run the same command again"):
            return super().invoke(ctx)


app = typer.Typer(
    help="Tells whether a claimed adversarial defense is real.", no_args_is_help=True, epilog=EPILOG, cls=_Group,
    pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None,
)  # fmt: skip
for _name, _command in COMMANDS.items():
    app.command(_name, epilog=EPILOG)(_command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"robustness-audit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: every AuditError, and all that typer refuses, becomes one sentence on stderr and its exit code."""
    try:
        sys.exit(app(arguments, standalone_mode=False) or 0)
    except AuditError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Misuse as error:
        if not (sys.argv[1:] if arguments is None else arguments):
            error.show()  # nothing was typed: the help is the answer
        else:
            print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
