"""What a RobustBench submission needs: the model_info JSON of an audited model. Torch-free.

RobustBench keeps one such file per model, `model_info/DATASET/NORM/NAME.json`; accuracies are percent, as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit.errors import BadInput
from audit.leaderboard import boards

AUTOATTACK_SUITES = ("standard", "plus")
RULES = "RobustBench's rules would not admit this defense"


@dataclass(frozen=True, slots=True)
class About:
    """What no run knows of a model: its paper, and what it was trained with."""

    title: str | None = None
    authors: str | None = None
    link: str | None = None
    venue: str | None = None
    additional_data: bool | None = None
    forward_passes: int = 1
    reported: float | None = None


def model_info(data: Mapping[str, Any], about: About) -> dict[str, Any]:
    """The JSON of a report (the dictionary of report.json). What is not known is null.

    autoattack_acc: what AutoAttack left, where the suite was "standard" or "plus" and ran whole; else the worst case stands as
    `external`, which is how RobustBench records what others find. unreliable: its rules would not admit the defense.
    Raises BadInput for a data set or norm without a leaderboard, or a run that is not finished.
    """
    dataset, norm = data["dataset"]["name"], data["threat"]["norm"]
    if norm not in boards().get(dataset, ()):
        there = "; ".join(f"{name} with {' or '.join(norms)}" for name, norms in boards().items())
        raise BadInput(f"RobustBench has no leaderboard for {dataset} with {norm}, expected {there}")
    if data["run"]["missing_units"] or data["adaptive"]["accuracy"] is None:
        raise BadInput("the run has no worst case yet, expected a finished one; run the same command again")
    unfair = data["leaderboard"]["unfair"]
    whole = data["run"]["suite"] in AUTOATTACK_SUITES and not any("AutoAttack" in why for why in unfair)
    whole = whole and not _weakened(data)
    worst = percent(data["adaptive"]["accuracy"])
    claim = data["claim"] or {}
    reported = about.reported if about.reported is not None else _stated(claim)
    return {
        "link": about.link, "name": about.title, "authors": about.authors, "additional_data": about.additional_data,
        "number_forward_passes": about.forward_passes, "dataset": dataset, "venue": about.venue,
        "architecture": data["defense"]["architecture"].get("name"), "eps": data["threat"]["eps_text"],
        "clean_acc": percent(data["clean"]["accuracy"]), "reported": None if reported is None else percent(reported),
        "autoattack_acc": worst if whole else None, "external": None if whole else worst,
        "unreliable": any(why.startswith(RULES) for why in unfair), "footnote": _footnote(data, unfair),
    }  # fmt: skip


def percent(share: float) -> str:
    """As RobustBench writes it: `59.53`."""
    return f"{100 * share:.2f}"


def _stated(claim: Mapping[str, Any]) -> float | None:
    """The number that somebody claims; what the run itself measured is none."""
    return None if claim.get("basis") in (None, "measured") else float(claim["robust_acc"])


def _weakened(data: Mapping[str, Any]) -> bool:
    return any(d["name"] == "weakened_attacks" and d["status"] != "clear" for d in data["diagnoses"])


def _footnote(data: Mapping[str, Any], unfair: list[str]) -> str:
    """How it was measured, and every reason not to compare it."""
    low, high = (percent(bound) for bound in data["adaptive"]["interval"])
    measured = (
        f"measured by robustness-audit {data['tool']['version']}, suite {data['run']['suite']}, n = {data['dataset']['n']}, 95 % "
        f"interval [{low}, {high}]"
    )
    weaker = ["its attacks were made weaker than the suite has them"] if _weakened(data) else []
    return "; ".join([measured, *weaker, *unfair])
