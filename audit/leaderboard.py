"""RobustBench's published figures as data, and where an audited defense would stand among them. Torch-free.

What stands in `audit/data/robustbench_leaderboard.csv` is RobustBench's own (Croce et al. 2021, arXiv 2010.09670), as of
`SNAPSHOT`. It admits defenses that are deterministic, do not optimise at test time and have gradients that are not zero.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

from audit.errors import UnknownName
from audit.registry import closest
from audit.types import parse_eps, show_eps

SOURCE = "RobustBench, https://robustbench.github.io"
SNAPSHOT = "2025-03"
SAME_EPS = 5e-4  # six models were evaluated at 0.031 and stand among those at 8/255
IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}  # the first of the test set
AUTOATTACK = {"apgd-ce", "apgd-t", "fab-t", "square"}
WHOLE_AUTOATTACK = ("standard", "plus")  # suites
NEIGHBOURS = 3
RANDOM, OPTIMISES = "it is random", "it optimises at test time"
EXCLUDED = {"stochastic": RANDOM, "test_time_optimisation": OPTIMISES}
FINDINGS = {  # of these a finding stays one when an attack got around it
    "dynamic": OPTIMISES, "randomized": RANDOM, "vanishing_gradient": "it has zero gradients",
    "shattered_gradient": "it has no gradient",
}  # fmt: skip
UNRESOLVED = {"zero_gradient_in_attack": "it has zero gradients"}  # of one loss alone it is no matter


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the leaderboard. Accuracies are fractions in [0,1]; external: the lowest that others have found."""

    dataset: str
    norm: str
    name: str
    architecture: str
    eps: float
    clean: float
    autoattack: float
    external: float | None
    reported: float | None
    unreliable: bool
    extra_data: bool
    venue: str
    title: str
    link: str

    @property
    def robust(self) -> float:
        """What RobustBench ranks by: the lower of AutoAttack's figure and an external one."""
        return self.autoattack if self.external is None else min(self.autoattack, self.external)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "robust": self.robust}


@cache
def entries() -> tuple[Entry, ...]:
    """Every model of the snapshot, best first within each data set and norm."""
    text = resources.files("audit.data").joinpath("robustbench_leaderboard.csv").read_text(encoding="utf-8")
    found = [_entry(row) for row in csv.DictReader(text.splitlines())]
    return tuple(sorted(found, key=lambda e: (e.dataset, e.norm, -e.robust, e.name)))


def _entry(row: Mapping[str, str]) -> Entry:
    norm = row["threat_model"]
    return Entry(
        row["dataset"], norm, row["model_id"], row["architecture"], parse_eps(row["eps"], norm),  # type: ignore[arg-type]
        _fraction(row["clean_acc"]) or 0.0, _fraction(row["autoattack_acc"]) or 0.0, _fraction(row["external"]),
        _fraction(row["reported"]), row["unreliable"] == "True", row["additional_data"] == "True", row["venue"],
        row["name"], row["link"],
    )  # fmt: skip


def _fraction(percent: str) -> float | None:
    return round(float(percent) / 100, 6) if percent else None


def select(dataset: str, norm: str, eps: float | None = None) -> tuple[Entry, ...]:
    """The models for a data set and norm, best first; eps: those evaluated at this radius only."""
    same = (e for e in entries() if (e.dataset, e.norm) == (dataset, norm))
    return tuple(e for e in same if eps is None or abs(e.eps - eps) < SAME_EPS)


def find(dataset: str, norm: str, name: str) -> Entry | None:
    """The entry of a model; None where the leaderboard has none of that name."""
    return next((e for e in select(dataset, norm) if e.name == name), None)


def boards() -> dict[str, list[str]]:
    """The norms of each data set's leaderboards."""
    found: dict[str, list[str]] = {}
    for entry in entries():
        if entry.norm not in found.setdefault(entry.dataset, []):
            found[entry.dataset].append(entry.norm)
    return found


def board(dataset: str, norm: str, eps: float | None = None) -> tuple[Entry, ...]:
    """As `select`, for a board that must be there. Raises UnknownName."""
    known = boards()
    if dataset not in known:
        raise UnknownName(f"RobustBench has no leaderboard for data set {dataset!r}: {closest(dataset, sorted(known))}")
    if norm not in known[dataset]:
        raise UnknownName(f"RobustBench's leaderboards for {dataset} are for {', '.join(known[dataset])}, not {norm}")
    found = select(dataset, norm, eps)
    if not found:
        raise UnknownName(
            f"RobustBench has no model for {dataset} at {norm} {show_eps(eps or 0)}, expected {_radii(select(dataset, norm))}"
        )
    return found


def _radii(rows: Sequence[Entry]) -> str:
    return " or ".join(dict.fromkeys(show_eps(e.eps) for e in rows))


def placement(data: Mapping[str, Any]) -> dict[str, Any]:
    """Where a report (the dictionary of report.json) would stand: its rank among the models at the same eps.

    Keys: source; snapshot; of (how many models); rank ([best, worst] over the interval of the worst case, None without a
    headline or a board); around (the models next to it, best first); itself (the entry of the audited model, if it is one);
    unfair (a sentence for each reason that the comparison does not hold).
    """
    dataset, threat, figure = data["dataset"]["name"], data["threat"], data["adaptive"]
    rows = select(dataset, threat["norm"], threat["eps"])
    own = data["defense"]["name"].rpartition("/")[2] if data["defense"]["name"].startswith("robustbench:") else ""
    itself = find(dataset, threat["norm"], own)
    ranked = [e for e in rows if e != itself]
    rank = None
    if ranked and figure["accuracy"] is not None:
        rank = [1 + sum(e.robust > bound for e in ranked) for bound in reversed(figure["interval"])]
    return {
        "source": SOURCE, "snapshot": SNAPSHOT, "of": len(ranked), "rank": rank,
        "around": [e.to_dict() for e in _around(ranked, figure["accuracy"])],
        "itself": None if itself is None else itself.to_dict(), "unfair": unfair(data, rows),
    }  # fmt: skip


def left_by_autoattack(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What AutoAttack leaves end to end in suite standard or plus: `cumulative` of the last of its parts in a report.

    A test-time part meets other attacks behind them, which have no say in it. None in other suites, where a part did not
    run whole, and where another attack took images before the last part.
    """
    suite = data["run"]["suite"]
    counted = [a for a in data["attacks"] if a["scope"] in ("all", "survivors")]
    own = [a for a in counted if a["suite"] == suite and a["route"] == "end-to-end"]
    whole = {a["attack"] for a in own} >= AUTOATTACK and all(a["done"] and not a["errors"] for a in own)
    first = own == counted[: len(own)]
    found: Mapping[str, Any] | None = own[-1]["cumulative"] if whole and first and suite in WHOLE_AUTOATTACK else None
    return found


def _around(rows: Sequence[Entry], accuracy: float | None) -> Sequence[Entry]:
    """The nearest models above and below; the best ones where there is no figure."""
    above = 0 if accuracy is None else sum(e.robust > accuracy for e in rows)
    return rows[max(above - NEIGHBOURS, 0) : above + NEIGHBOURS]


def unfair(data: Mapping[str, Any], rows: Sequence[Entry]) -> list[str]:
    """Why a report cannot be compared with RobustBench's figures, one sentence each; empty where it can."""
    return [*_other_problem(data, rows), *_other_measure(data), *_not_admitted(data)]


def _other_problem(data: Mapping[str, Any], rows: Sequence[Entry]) -> list[str]:
    dataset, threat, n = data["dataset"]["name"], data["threat"], data["dataset"]["n"]
    if dataset not in boards():
        return [f"RobustBench has no leaderboard for {dataset}"]
    found = []
    if not rows:
        there = _radii(select(dataset, threat["norm"])) or "other norms"
        found.append(f"the audit is at {threat['norm']} {threat['eps_text']}, the leaderboard at {there}")
    if (data["run"].get("sources") or {}).get("data"):
        found.append("the images are of a file of your own, the leaderboard takes the first of the test set")
    if n < IMAGES[dataset]:
        found.append(f"n is {n:,}, the leaderboard takes {IMAGES[dataset]:,} images: read the interval, not the figure")
    return found


def _other_measure(data: Mapping[str, Any]) -> list[str]:
    whole = (a for a in data["attacks"] if a["scope"] in ("all", "survivors") and a["done"] and not a["errors"])
    ran = {a["attack"] for a in whole if a["route"] == "end-to-end"}
    found = []
    if data["adaptive"]["accuracy"] is None:
        found.append("there is no headline: no attack saw the whole defense")
    if data["run"]["missing_units"]:
        found.append("the run is not finished")
    if not ran >= AUTOATTACK:
        lacking = ", ".join(sorted(AUTOATTACK - ran))
        found.append(f"of AutoAttack, by which the leaderboard ranks, {lacking} did not run whole")
    if any(d["name"] == "weakened_attacks" and d["status"] != "clear" for d in data["diagnoses"]):
        found.append("attacks were made weaker than their suite has them (--set)")
    return found


def _not_admitted(data: Mapping[str, Any]) -> list[str]:
    """What RobustBench's rules keep out: such a defense is listed, if at all, by an external evaluation.

    What the diagnoses found counts as what is declared does.
    """
    traits = set(data["defense"]["traits"]) | ({"stochastic"} if data["draws"] > 1 else set())
    seen = {d["name"]: d["status"] for d in data["diagnoses"]}
    reasons = [said for trait, said in EXCLUDED.items() if trait in traits]
    reasons += [said for name, said in FINDINGS.items() if seen.get(name) in ("flagged", "resolved")]
    reasons += [said for name, said in UNRESOLVED.items() if seen.get(name) == "flagged"]
    return [f"RobustBench's rules would not admit this defense: {reason}" for reason in dict.fromkeys(reasons)]
