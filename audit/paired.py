"""A defense beside a reference on the very same images: who stands where the other falls. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.errors import PlanMismatch
from audit.results import Results, read_results
from audit.stats import mcnemar, paired_score_interval, total
from audit.verdict import proven

FOLDER = "references"


@dataclass(frozen=True, slots=True)
class Paired:
    """Robust accuracy of a defense less that of a reference, over the same n images, with its 95 % interval.

    only_defense, only_reference: images that one of them gets right under every attack and the other does not;
    p_value: McNemar's exact test on these. differs: why the two cannot be compared; empty where they can.
    """

    name: str
    difference: float | None = None
    interval: tuple[float, float] | None = None
    only_defense: int | None = None
    only_reference: int | None = None
    p_value: float | None = None
    differs: str = ""


def compare(name: str, own: Results, other: Results) -> Paired:
    """Compare the worst cases of two finished runs; `differs` says what stands in the way."""
    obstacle = _obstacle(own, other)
    if obstacle:
        return Paired(name, differs=obstacle)
    mine, theirs = _worst(own), _worst(other)
    stands, holds = mine >= 0.5, theirs >= 0.5
    return Paired(
        name, (total(mine) - total(theirs)) / len(mine), paired_score_interval(mine, theirs),
        int((stands & ~holds).sum()), int((holds & ~stands).sum()), mcnemar(stands, holds),
    )  # fmt: skip


def _worst(results: Results) -> NDArray[np.float32]:
    """P(correct) of the worst image of each: float32 (n,). What is unknown counts as standing, on both sides."""
    return proven(results, results.p_worst)


def _obstacle(own: Results, other: Results) -> str:
    for word, key in (("images", "dataset_digest"), ("norm", "norm"), ("eps", "eps"), ("suite", "suite")):
        if own.plan.identity[key] != other.plan.identity[key]:
            return f"another {word}"
    return "a run that is not finished" if own.missing or other.missing else ""


def references_of(run_dir: Path) -> Iterator[tuple[str, Results]]:
    """The runs of the references inside a run directory, by name; a folder that holds none is passed over."""
    folders = sorted(path for path in (run_dir / FOLDER).glob("*") if path.is_dir())
    for path in folders:
        try:
            yield path.name, read_results(path)
        except PlanMismatch:
            continue
