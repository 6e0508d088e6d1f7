"""A run against a baseline: what moved, by how much, how sure, and whether that fails. Torch-free.

**When a figure fails.** Two things must hold together:

1. the measured drop is larger than `max_drop` (0.01 is one point of accuracy), and
2. chance does not explain it: the one-sided p-value of "nothing changed" is at most the figure's share of `alpha`.

So `max_drop` is what one is willing to lose in the measured number, and the test only keeps chance from failing a model that
did not change. A drop of 0.5 points never fails with `max_drop` 0.01, however certain; a drop of 4 points on 25 images (one
image) does not fail either, for one image proves nothing.

**The test.** On the same images (same digest of images and labels) the exact sign-flip test of `audit.stats.drop_p_value`,
which for a deterministic defense is McNemar's. Its null is that for each image the two runs could be exchanged, which
is so when they differ in the seed, the batch or the last bits of the machine alone, for random defenses as well. On
other images of the same data set there are no pairs; then the lower end of the interval of the difference
(`audit.stats.difference_interval`) must lie above zero.

**How often an unchanged model fails.** At most in a share `alpha` (0.05) of pairs of a baseline and a run with another
seed: the worst case is tested at alpha/2, the clean accuracy and each attack that was run on all images share the
other half equally (Bonferroni), and the union over all cannot exceed alpha. With the same seed on the same machine it never
fails, because the run repeats bit for bit. Attacks on survivors show a worst case so far, which is part of the last one:
they are reported and not judged.

**What it takes to fail.** With alpha 0.05 and no image won back, six lost images (p = 1/64 < 0.025): 3 points at n = 200, 0.6
at n = 1,000. With images won back more are needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from audit.baselines import WORST, Baseline, Figure
from audit.errors import BadInput, NotComparable
from audit.plan import differences
from audit.stats import difference_interval, drop_p_value, paired_interval
from audit.types import Estimate, parse_eps, show_eps

MAX_DROP, ALPHA = 0.01, 0.05
Status = Literal["regressed", "unclear", "held", "improved"]


@dataclass(frozen=True)
class Row:
    """One figure before and after.

    drop: before less after, in [-1,1], with its 95 % interval; p: the one-sided p-value of "nothing changed" against a
    move the way it went, None where the images differ; level: the p-value that fails; judged: whether this figure can
    fail at all; lost, won: images that are right less often, or more often, than before (0 where the images differ).
    status: "regressed" (larger than allowed and not chance), "unclear" (larger than allowed, and chance explains it),
    "improved" (a rise of which the same holds), or "held".
    """

    name: str
    kind: str
    judged: bool
    before: Estimate
    after: Estimate
    drop: float
    interval: tuple[float, float]
    p: float | None
    level: float
    lost: int
    won: int
    status: Status

    @property
    def fails(self) -> bool:
        return self.judged and self.status == "regressed"

    @property
    def sentence(self) -> str:
        """What moved, by how much, and how sure."""
        if not (self.drop or self.lost or self.won):
            return f"{self.name}: {self.after.accuracy:.1%} as before"
        low, high = (_points(end) for end in reversed(self.interval))
        sure = "not the same images" if self.p is None else f"{self.lost} images lost, {self.won} won, p = {self.p:.2g}"
        return (
            f"{self.name}: {self.before.accuracy:.1%} -> {self.after.accuracy:.1%}, {_points(self.drop)} points "
            f"[{low}, {high}], {sure}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "fails": self.fails, "sentence": self.sentence}


@dataclass(frozen=True)
class Comparison:
    """A run held against a baseline. notes: what else differs, and what the test cannot see."""

    rows: tuple[Row, ...]
    paired: bool
    max_drop: float
    alpha: float
    notes: tuple[str, ...]

    @property
    def regressed(self) -> tuple[Row, ...]:
        """The figures that fail."""
        return tuple(row for row in self.rows if row.fails)

    def to_dict(self) -> dict[str, Any]:
        return {
            "paired": self.paired, "max_drop": self.max_drop, "alpha": self.alpha, "regressed": bool(self.regressed),
            "rows": [row.to_dict() for row in self.rows], "notes": list(self.notes),
        }  # fmt: skip


def _points(drop: float) -> str:
    """A drop as the change in points: 0.035 is `-3.5`."""
    return f"{round(-100 * drop, 1) + 0.0:+.1f}"  # + 0.0: no minus zero


def compare(before: Baseline, after: Baseline, *, max_drop: float = MAX_DROP, alpha: float = ALPHA) -> Comparison:
    """Hold what a run found against a baseline. See the module for when a figure fails.

    max_drop: the drop that is allowed, a fraction in [0,1); alpha: how often an unchanged model may fail, in (0,0.5].
    Raises NotComparable naming each field in which what was measured differs, BadInput for impossible numbers.
    """
    if not 0 <= max_drop < 1:
        raise BadInput(f"--max-drop is {max_drop}, expected a fraction in [0,1); type 0.01 for one point")
    if not 0 < alpha <= 0.5:
        raise BadInput(f"--alpha is {alpha}, expected a share in (0,0.5]; type --alpha 0.05")
    refuse_what_differs(before.comparable, after.comparable)
    paired = before.digest == after.digest
    judged = sum(figure.kind in ("clean", "alone") for figure in before.figures)
    found = {figure.name: figure for figure in after.figures}
    rows = tuple(
        _row(old, found[old.name], paired, max_drop, alpha / 2 / (1 if old.name == WORST else judged))
        for old in before.figures
        if old.name in found
    )
    return Comparison(rows, paired, max_drop, alpha, _notes(before, after, paired, max_drop, alpha))


def refuse_what_differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise NotComparable unless both measured the same: data set, n, norm, eps, suite with its options, draws.

    before, after: see `audit.baselines.comparable`.
    """
    changed = differences(_shown(before), _shown(after))
    if changed:
        raise NotComparable(
            f"the run cannot be compared with the baseline: {'; '.join(changed)} (baseline -> run); audit with the baseline's "
            "settings, or freeze this run with python -m audit baseline RUN -o FILE"
        )


def _shown(comparable: Mapping[str, Any]) -> dict[str, Any]:
    """The radius as it is typed, where that loses nothing."""
    eps, norm = comparable["eps"], comparable["norm"]
    typed = show_eps(eps)
    return {**comparable, "eps": typed if parse_eps(typed, norm) == eps else eps}


def _row(old: Figure, new: Figure, paired: bool, max_drop: float, level: float) -> Row:
    """One figure. paired: the images are the same; level: the p-value at which the figure fails."""
    before, after = old.estimate, new.estimate
    lost_hits = int(old.hits.sum() - new.hits.sum())
    size = len(old.hits) * old.draws  # in whole hits, so that a drop of just max_drop is never rounded above it
    larger = abs(lost_hits) > max_drop * size * (1 + 1e-9)
    p = None
    if paired:
        p = drop_p_value(old.hits, new.hits) if lost_hits >= 0 else drop_p_value(new.hits, old.hits)
        interval, certain = paired_interval(old.hits / old.draws, new.hits / new.draws), p <= level
    else:
        interval, bound = difference_interval(before, after), difference_interval(before, after, 1 - 2 * level)
        certain = bound[0] > 0 if lost_hits >= 0 else bound[1] < 0
    status: Status = "held"
    if larger:
        status = ("regressed" if lost_hits > 0 else "improved") if certain else ("unclear" if lost_hits > 0 else "held")
    lost, won = (int(np.sum(side)) if paired else 0 for side in (new.hits < old.hits, new.hits > old.hits))
    drop = lost_hits / size
    return Row(old.name, old.kind, old.kind != "cumulative", before, after, drop, interval, p, level, lost, won, status)


def _notes(before: Baseline, after: Baseline, paired: bool, max_drop: float, alpha: float) -> tuple[str, ...]:
    notes = (
        [] if paired else ["the images are not the baseline's, so intervals are compared: only large drops can fail"]
    )
    if after.unknown:
        notes.append(
            f"{after.unknown} images that nobody could judge count as broken; type --retry-errors to run them again"
        )
    names = [{figure.name for figure in side.figures} for side in (before, after)]
    if names[0] != names[1]:
        notes.append(
            f"attacks that ran in one of the two only count in the worst case: {', '.join(sorted(names[0] ^ names[1]))}"
        )
    n, draws = len(after.figures[0].hits), after.comparable["draws"]
    fewest = math.ceil(math.log2(2 / alpha))
    if paired and draws == 1 and fewest > max_drop * n:
        notes.append(
            f"at n = {n} a drop of the worst case fails from {fewest} images on ({fewest / n:.1%}); audit more to see less"
        )
    if before.fingerprint == after.fingerprint:
        return ("the plan is the baseline's: same weights, seed and versions", *notes)
    changed = differences(_recorded(before), _recorded(after))
    return (*notes, *([f"what else differs: {'; '.join(changed)}"] if changed else []))


def _recorded(side: Baseline) -> dict[str, Any]:
    """What may explain a difference, and does not forbid a comparison."""
    told = {name: value for name, value in side.record.items() if name not in ("command", "data_source")}
    return {**told, "weights_sha256": str(told["weights_sha256"])[:12]}
