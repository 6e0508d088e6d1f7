"""What `audit list` and `audit doctor` print."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from audit import registry
from audit.claims import own_claims
from audit.display import table
from audit.doctor import Finding
from audit.errors import MissingDependency
from audit.suites import SUITES


def listing(kind: str) -> Table:
    """The table of one kind: defenses, suites, attacks or datasets."""
    return {"defenses": _defenses, "suites": _suites, "attacks": _attacks, "datasets": _datasets}[kind]()


def _defenses() -> Table:
    rows = []
    for name in registry.defenses:
        known = registry.defenses.load(name)
        shipped = ", ".join([*getattr(known, "zoo", ()), *getattr(known, "external", ())])
        rows.append((name, known.summary, shipped, ", ".join(getattr(known, "recipes", ())), len(own_claims(known))))
    return table("defenses", ("name", "what it is", "weights for", "recipes", "claims"), rows)


def _suites() -> Table:
    rows = ((s.name, s.summary, ", ".join(step.name for step in s.steps)) for s in SUITES.values())
    return table("suites", ("name", "what it does", "steps"), rows)


def _attacks() -> Table:
    rows = []
    for name in registry.attacks:
        try:
            known = registry.attacks.load(name)
        except MissingDependency as error:
            rows.append((name, "not installed", "", "", "", "", str(error)))
            continue
        forward, backward = known.cost({})
        options = ", ".join(f"{k}={v}" for k, v in known.defaults.items())
        rows.append(
            (
                name,
                known.library,
                ", ".join(known.norms),
                known.kind,
                known.needs,
                f"{forward:,} + {backward:,}",
                options,
            )
        )
    columns = ("name", "library", "norms", "kind", "needs", "passes (fwd + bwd)", "options")
    return table("attacks", columns, rows)


def _datasets() -> Table:
    rows = []
    for name in registry.datasets:
        known = registry.datasets.load(name)
        rows.append((name, len(known.classes), "embedded (1,000)" if known.embedded else "--data-dir or --download"))
    return table("datasets", ("name", "classes", "images"), rows)


def health(findings: Iterable[Finding]) -> Group:
    """What `audit doctor` prints: a table, then a line for each library that does not import."""
    found = list(findings)
    rows = ((f.library, f.version, "yes" if f.imports else "NO", f.purpose) for f in found)
    advice = (Text(f"{f.library}: {f.advice}") for f in found if f.advice)
    return Group(table("libraries", ("library", "version", "imports", "for"), rows), *advice)
