"""`audit list` and `audit doctor`: what there is, and whether it works here."""

from __future__ import annotations

import typer

from audit import options as o


def list_(kind: o.Listed, defense: o.Whose = None) -> None:
    """List what can be named on the command line, and what the papers claim."""
    from audit import catalogue

    catalogue.console().print(catalogue.listing(kind.value, defense))


def doctor() -> None:
    """List every library, attack and adapter: does it import, which version, what to install."""
    from audit import catalogue
    from audit.doctor import examine

    findings = examine()
    catalogue.console().print(catalogue.health(findings))
    if not all(f.imports for f in findings if f.core):
        raise typer.Exit(1)
