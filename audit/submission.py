"""What a RobustBench submission needs: the model_info JSON of an audited model. Torch-free.

RobustBench keeps one such file per model, `model_info/DATASET/NORM/NAME.json`; accuracies are percent, as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit.errors import BadInput
from audit.leaderboard import WHOLE_AUTOATTACK, boards, left_by_autoattack

RULES = "RobustBench's rules would not admit this defense"
FLAGS = {  # what `audit export` takes for a field that no run knows
    "link": "--link", "name": "--title", "authors": "--authors", "additional_data": "--additional-data", "venue": "--venue",
    "reported": "--reported",
}  # fmt: skip


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

    autoattack_acc: what AutoAttack left, where the suite was "standard" or "plus", ran whole and saw the leaderboard's images
    at its eps. external: the worst case, where that is another figure, which is how RobustBench records what others find.
    unreliable: its rules would not admit the defense.
    Raises BadInput for a data set or norm without a leaderboard, or a run that is not finished.
    """
    dataset, norm = data["dataset"]["name"], data["threat"]["norm"]
    if norm not in boards().get(dataset, ()):
        there = "; ".join(f"{name} with {' or '.join(norms)}" for name, norms in boards().items())
        raise BadInput(f"RobustBench has no leaderboard for {dataset} with {norm}, expected {there}")
    if data["run"]["missing_units"] or data["adaptive"]["accuracy"] is None:
        raise BadInput("the run has no worst case yet, expected a finished one; run the same command again")
    unfair = data["leaderboard"]["unfair"]
    left = None if _not_measured_so(data) else left_by_autoattack(data)
    autoattack = None if left is None else percent(left["accuracy"])
    worst = percent(data["adaptive"]["accuracy"])
    claim = data["claim"] or {}
    reported = about.reported if about.reported is not None else _stated(claim)
    return {
        "link": about.link, "name": about.title, "authors": about.authors, "additional_data": about.additional_data,
        "number_forward_passes": about.forward_passes, "dataset": dataset, "venue": about.venue,
        "architecture": data["defense"]["architecture"].get("name"), "eps": data["threat"]["eps_text"],
        "clean_acc": percent(data["clean"]["accuracy"]), "reported": None if reported is None else percent(reported),
        "autoattack_acc": autoattack, "external": None if autoattack == worst else worst,
        "unreliable": any(why.startswith(RULES) for why in unfair), "footnote": _footnote(data, unfair),
    }  # fmt: skip


def lacking(found: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """What somebody has to add to a `model_info` before it is submitted, one sentence each; empty where it is whole."""
    names = [name for name in FLAGS if found[name] is None]
    flags = ", ".join(FLAGS[name] for name in names)
    said = (
        [f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} null, which no run knows; type {flags}"]
        if names
        else []
    )
    if found["autoattack_acc"] is None:
        reasons = "; ".join(_not_measured_so(data))
        said.append(f"autoattack_acc is null and the worst case stands as external, because {reasons}")
    return said


def _not_measured_so(data: Mapping[str, Any]) -> list[str]:
    """Why no figure is AutoAttack's as RobustBench measures it, by suite, images, n, eps or strength."""
    suite = data["run"]["suite"]
    unfair = [why for why in data["leaderboard"]["unfair"] if not why.startswith(RULES)]
    if suite not in WHOLE_AUTOATTACK:
        return [f"the suite is {suite}, AutoAttack's are {' and '.join(WHOLE_AUTOATTACK)}", *unfair]
    if not unfair and left_by_autoattack(data) is None:
        return ["another attack took images before the last part of AutoAttack"]
    return unfair


def percent(share: float) -> str:
    """As RobustBench writes it: `59.53`."""
    return f"{100 * share:.2f}"


def _stated(claim: Mapping[str, Any]) -> float | None:
    """The number that somebody claims; what the run itself measured is none."""
    return None if claim.get("basis") in (None, "measured") else float(claim["robust_acc"])


def _footnote(data: Mapping[str, Any], unfair: list[str]) -> str:
    """How it was measured, and every reason not to compare it."""
    low, high = (percent(bound) for bound in data["adaptive"]["interval"])
    measured = (
        f"measured by robustness-audit {data['tool']['version']}, suite {data['run']['suite']}, n = {data['dataset']['n']}, 95 % "
        f"interval [{low}, {high}]"
    )
    return "; ".join([measured, *unfair])
