"""The numbers that the papers print, one line per cell, read from `audit/data/claims/`. Torch-free.

`tables.csv` names every table and its paper; each other file is one printed table. What stands there is what the paper
prints, also where it looks like a slip of the pen: then the line has a note. TPAP's Table 1 is not in the text that was
read, and so not here. An id such as `tpap-t2-r1-pgd20` is table, row as printed, column.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, Literal

from audit.errors import UnknownName
from audit.types import Claim, ThreatModel, parse_eps

FRACTIONS = frozenset({
    "clean_accuracy", "robust_accuracy", "noise_accuracy", "average_accuracy", "average_robust_accuracy", "success_rate",
})  # fmt: skip
OTHER_QUANTITIES = frozenset({
    "epochs", "seconds", "minutes", "teraflops", "million_parameters", "mean_distance", "overfits",
})  # fmt: skip
MADE: Mapping[str, str] = {
    "grey": ", images made without the test-time part",
    "white and transfer": ", the lower of white-box and transferred images, so that white-box images alone bound it from above",
    "transfer": ", images made on another network",
}
ROUTES: Mapping[str, Literal["transfer", "end-to-end"]] = {"grey": "transfer", "white": "end-to-end"}


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A printed table: `key` begins the ids of its lines; `about` says in our words what it shows.

    steps: what a run takes for the size of a step where the paper prints none; empty where every line has it.
    """

    key: str
    file: str
    paper: str
    table: str
    about: str
    steps: str


@dataclass(frozen=True, slots=True)
class PaperClaim:
    """One printed cell.

    defense: the registered name where there is one; method: the row's name in the paper; own: the defense as its paper
    puts it forward, neither a rival nor an ablation; attack: the registered name where there is one; knowledge:
    "white", "grey" (images made without the test-time part), "transfer" (on another network), "white and transfer" (the
    lower of the two), "black" (random noise), or empty where the paper does not say; printed: the cell as it stands;
    clean: the clean accuracy of the same model in the same table; value: the cell as a number, a fraction in [0,1] for a
    quantity of `FRACTIONS`, None where no number stands.
    """

    id: str
    defense: str
    method: str
    own: bool
    dataset: str
    architecture: str
    attack: str
    params: Mapping[str, Any]
    norm: str
    eps_text: str
    knowledge: str
    quantity: str
    printed: str
    n: int | None
    row: str
    column: str
    note: str
    origin: PaperTable
    clean: float | None = field(default=None, compare=False)

    @property
    def value(self) -> float | None:
        return _number(self.printed, fraction=self.quantity in FRACTIONS)

    @property
    def spread(self) -> float | None:
        """The standard deviation that stands after ±, in the unit of `value`."""
        _, sign, after = self.printed.partition("±")
        return _number(after, fraction=self.quantity in FRACTIONS) if sign else None

    @property
    def eps(self) -> float | None:
        return float(parse_eps(self.eps_text)) if self.eps_text else None

    @property
    def label(self) -> str:
        """The attack in one word, with its length: `pgd-20`."""
        length = self.params.get("steps", self.params.get("n_iter"))
        return self.attack if length is None else f"{self.attack}-{length}"

    @property
    def source(self) -> str:
        return f"{self.origin.paper}, {self.origin.table}, row {self.row}, column {self.column}"

    def judged(self) -> Claim | None:
        """The claim in the form that an audit takes; None for what is no robust accuracy in a ball of known radius."""
        value, eps = self.value, self.eps
        if self.quantity != "robust_accuracy" or value is None or eps is None or not self.norm:
            return None
        threat = ThreatModel(self.norm, eps)  # type: ignore[arg-type]
        source = f"{self.id}: {self.source}{MADE.get(self.knowledge, '')}"
        attack = f"transferred {self.label}" if self.knowledge == "transfer" else self.label
        return Claim(
            self.defense, self.dataset, self.architecture, threat, attack, value, source, self.clean,
            params=self.params, route=ROUTES.get(self.knowledge, ""),
        )  # fmt: skip


def _number(text: str, *, fraction: bool) -> float | None:
    """The number at the start of a cell, without its % or star; exact in decimals before it becomes a float."""
    found = re.match(r"\s*(\d[\d,]*(?:\.\d+)?)", text)
    if found is None:
        return None
    number = Decimal(found[1].replace(",", ""))
    return float(number / 100 if fraction else number)


def _rows(file: str) -> list[dict[str, str]]:
    place = resources.files("audit.data").joinpath("claims", file)
    return list(csv.DictReader(place.read_text(encoding="utf-8").splitlines()))


@cache
def all_tables() -> tuple[PaperTable, ...]:
    """Every table, paper by paper."""
    return tuple(PaperTable(**row) for row in _rows("tables.csv"))


@cache
def all_claims() -> tuple[PaperClaim, ...]:
    """Every printed cell, in the order of the papers, their tables, rows and columns."""
    return tuple(claim for table in all_tables() for claim in _table(table))


def _table(table: PaperTable) -> list[PaperClaim]:
    rows = _rows(table.file)
    cleans = {_model(r): _number(r["printed"], fraction=True) for r in rows if r["quantity"] == "clean_accuracy"}
    return [_claim(row, table, cleans.get(_model(row))) for row in rows]


def _model(row: Mapping[str, str]) -> tuple[str, str, str]:
    return row["method"], row["dataset"], row["architecture"]


def _claim(row: Mapping[str, str], table: PaperTable, clean: float | None) -> PaperClaim:
    typed = {
        "own": row["own"] == "yes", "params": json.loads(row["params"] or "{}"), "n": int(row["n"]) if row["n"] else None,
    }  # fmt: skip
    plain = {name: text for name, text in row.items() if name not in (*typed, "eps")}
    return PaperClaim(**plain, **typed, eps_text=row["eps"], origin=table, clean=clean)  # type: ignore[arg-type]


@cache
def defenses() -> tuple[str, ...]:
    """Every defense that a line speaks of, registered or not."""
    return tuple(sorted({claim.defense for claim in all_claims()}))


def claims_of(defense: str, *, own: bool = False) -> tuple[PaperClaim, ...]:
    """Every line that speaks of a defense; own: those of the defense as its paper puts it forward. Empty without any."""
    return tuple(c for c in all_claims() if c.defense == defense and (c.own or not own))


def find(name: str) -> PaperClaim:
    """The line of that id. Raises UnknownName."""
    known = {claim.id: claim for claim in all_claims()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "type `python -m audit list claims` to see them"
        raise UnknownName(f"unknown claim {name!r}: {hint}")
    return known[name]
