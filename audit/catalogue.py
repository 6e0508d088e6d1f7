"""What `audit list` and `audit doctor` print."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from audit import papers, registry
from audit.claims import own_claims
from audit.diagnoses import INDEX
from audit.display import table
from audit.doctor import Finding
from audit.errors import BadInput, MissingDependency, UnknownName
from audit.registry import closest
from audit.suites import SUITES

UNBROKEN = 200  # columns
NO_ATTACKS = (
    "\nAutoAttack standard, plus and rand are suites: --suite standard, or as a claim --claim-attack autoattack",
    "cross-entropy on rescaled logits is apgd-ce through the adapter `rescale`: step rescaled-ce of the suites that have it",
)


def listing(kind: str, defense: str | None = None) -> Table | Group:
    """The table of one kind: defenses, suites, attacks, datasets, references, diagnoses, or claims.

    defense: print the lines of the papers that speak of it, instead of their tables. Raises UnknownName when none does,
    BadInput for a defense beside another kind than claims.
    """
    if defense is None:
        listed: dict[str, Callable[[], Table | Group]] = {
            "defenses": _defenses,
            "suites": _suites,
            "attacks": _attacks,
            "datasets": _datasets,
            "references": _references,
            "diagnoses": _diagnoses,
            "claims": _tables,
        }
        return listed[kind]()
    if kind != "claims":
        raise BadInput(f"--defense {defense} beside {kind}, expected claims; type `python -m audit list claims`")
    return _claims(defense)


def _defenses() -> Table:
    rows = []
    for name in registry.defenses:
        known = registry.defenses.load(name)
        shipped = ", ".join([*getattr(known, "zoo", ()), *getattr(known, "external", ())])
        rows.append((name, known.summary, shipped, ", ".join(getattr(known, "recipes", ())), len(own_claims(known))))
    return table("defenses", ("name", "what it is", "weights for", "recipes", "claims"), rows)


def _diagnoses() -> Table:
    return table("diagnoses", ("name", "what it finds"), INDEX.items())


def _suites() -> Table:
    rows = ((s.name, s.summary, ", ".join(step.name for step in s.steps)) for s in SUITES.values())
    return table("suites", ("name", "what it does", "steps"), rows)


def _attacks() -> Group:
    rows, options = [], []
    for name in registry.attacks:
        try:
            known = registry.attacks.load(name)
        except MissingDependency as error:
            rows.append((name, "not installed", "", "", "", ""))
            options.append(Text(f"{name}: {error}"))
            continue
        passes = " + ".join(f"{count:,}" for count in known.cost({}))
        rows.append((name, known.library, ", ".join(known.norms), known.kind, known.needs, passes))
        listed = ", ".join(f"{k}={v}" for k, v in known.defaults.items())
        options.append(Text(f"{name} ({known.reference})" + (f": {listed}" if listed else "")))
    columns = ("name", "library", "norms", "kind", "needs", "passes an image (fwd + bwd)")
    return Group(
        table("attacks", columns, rows),
        Text("\nreferences, and options for --set STEP.OPTION=VALUE:"),
        *options,
        *map(Text, NO_ATTACKS),
    )


def _datasets() -> Table:
    rows = []
    for name in registry.datasets:
        known = registry.datasets.load(name)
        places = "embedded (1,000)" if getattr(known, "embedded", None) else "--data-dir or --download"
        rows.append((name, len(known.classes), places))
    return table("datasets", ("name", "classes", "images"), rows)


def _references() -> Table:
    known = ((name, registry.references.load(name)) for name in registry.references)
    rows = [(name, found.defense, found.summary) for name, found in known]
    return table("references: these, and any defense", ("name", "defense", "what it is"), rows)


def _tables() -> Table:
    cells = Counter(claim.origin.key for claim in papers.all_claims())
    rows = ((t.key, t.paper, t.table, cells[t.key], t.about) for t in papers.all_tables())
    title = "claims: the papers' tables; --defense NAME prints the lines of one defense"
    return table(title, ("id begins", "paper", "table", "cells", "what it shows"), rows)


def _claims(defense: str) -> Group:
    lines = papers.claims_of(defense)
    if not lines:
        raise UnknownName(f"no table speaks of defense {defense!r}: {closest(defense, list(papers.defenses()))}")
    columns = ("id", "method", "on", "attack or quantity", "eps", "clean", "value")
    found = table(f"claims about {defense}", columns, map(_line, lines))
    found.columns[0].no_wrap = True
    origins = dict.fromkeys(line.origin for line in lines)
    tables = (Text(f"{t.key}: {t.paper}, {t.table}: {t.about}{t.steps and f'; {t.steps}'}") for t in origins)
    return Group(found, *tables, *map(Text, _notes(lines)))


def _notes(lines: Iterable[papers.PaperClaim]) -> list[str]:
    noted: dict[str, list[str]] = {}
    for line in lines:
        if line.note:
            noted.setdefault(line.note, []).append(line.id)
    return [f"{', '.join(ids)}: {note}" for note, ids in noted.items()]


def _line(claim: papers.PaperClaim) -> tuple[str, ...]:
    fraction = claim.quantity in papers.FRACTIONS and claim.value is not None
    clean = "" if claim.clean is None or claim.quantity == "clean_accuracy" else f"{claim.clean:.2%}"
    options = ", ".join(f"{k} {v}" for k, v in claim.params.items())
    attack = f"{claim.attack} ({options})" if options else claim.attack
    knowledge = {"": "", "white": "", "grey": "grey box"}.get(claim.knowledge, claim.knowledge)
    quantity = "" if claim.quantity == "robust_accuracy" else claim.quantity.replace("_", " ")
    return (
        claim.id, claim.method, f"{claim.dataset} {claim.architecture}".strip(),
        ", ".join(filter(None, (attack, knowledge, quantity))), f"{claim.norm} {claim.eps_text}".strip(), clean,
        f"{claim.value:.2%}" if fraction else claim.printed,
    )  # fmt: skip


def health(findings: Iterable[Finding]) -> Group:
    """What `audit doctor` prints: a table, a line for each library that does not import, and whether audits can run."""
    found = list(findings)
    rows = ((f.library, f.version, "yes" if f.imports else "NO" if f.core else "no", f.purpose) for f in found)
    advice = (Text(f"{f.library}: {f.advice}") for f in found if f.advice)
    broken = [f.library for f in found if f.core and not f.imports]
    end = (
        f"Core, and does not import: {', '.join(broken)}."
        if broken
        else "All of the core imports; the rest is optional."
    )
    return Group(table("libraries", ("library", "version", "imports", "for"), rows), *advice, Text(end))


def console() -> Console:
    """Where tables go: the terminal in its width, or a pipe or file without lines broken for a terminal that is not there."""
    return Console() if Console().is_terminal or "COLUMNS" in os.environ else Console(width=UNBROKEN)
