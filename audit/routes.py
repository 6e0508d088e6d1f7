"""The three rows of an attack on a defense with a test-time part: bare network, by transfer, end to end. Torch-free.

Papers of such defenses report the transfer row: images made against the bare network, then purified or noised. It
says how well those very images survive, not what an attacker who sees the whole defense can do. Who sees the whole sees
the bare network, too, so the end-to-end row has both images to choose from, and is never above the transfer row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audit.results import Results
from audit.stats import estimate, total
from audit.step_results import Floats, StepResult
from audit.types import BESIDE, Estimate

TRANSFERRED = ("returned", "first", "lowest")


@dataclass(frozen=True)
class Routes:
    """One attack's figures; None where it was not run that way.

    attack: the claimed step, or the end-to-end step that the one by transfer goes beside. bare: the bare network on the
    images returned. transfer: the whole defense on the same images; first: on the first image that fooled the bare
    network (what a cascade of attacks keeps); lowest: on the one of lowest margin there, queried or returned. alone: the whole defense under the attack that saw it; `step` is that attack's step, `cumulative`
    says that it attacked only what earlier steps had left. end_to_end: the same with the three images by transfer beside
    its own, the worst of them as `Results.worst_of` has it. cascade: the figures on the bare network and by transfer are
    likewise those of an attack on what the transfers before it had left of the bare network, and of these together.
    """

    attack: str
    bare: Estimate | None
    transfer: Estimate | None
    first: Estimate | None
    lowest: Estimate | None
    alone: Estimate | None
    end_to_end: Estimate | None
    step: str | None
    cumulative: bool
    cascade: bool


def routes(results: Results) -> tuple[Routes, ...]:
    """One entry per attack that was made against the bare network, in the order of the plan."""
    return tuple(_family(results, r) for r in results.counted if r.step.transfers and r.step.scope == "all")


def overall(results: Results) -> Mapping[str, Estimate | None]:
    """The worst case over each route: `bare`, `transfer`, `end_to_end`; Nones for a plain network.

    `transfer`: as `Results.worst_of` has it. `end_to_end`: over everything that ran, since who sees the whole defense has
    every image; None before an attack on the whole is done.
    """
    grey = [r.p_own for r in results.counted if r.step.transfers and r.done]
    whole = any(r.done and not r.step.transfers for r in results.counted)
    transfer = results.worst_of([results.p_clean, *grey]) if grey else None
    return {
        "bare": _figure(results, results.p_base),
        "transfer": _figure(results, transfer),
        "end_to_end": _figure(results, results.p_worst if whole and results.plan.identity.get("staged") else None),
    }


def end_to_end_ran(results: Results) -> bool:
    """Has an attack on the whole defense run to its end without a crash? Always so for a plain network.

    Images of a surrogate do not count: they were made for another network.
    """
    if not results.plan.identity.get("staged"):
        return True
    whole = (r for r in results.counted if not r.step.transfers and r.step.attack != "transfer")
    return any(r.done and not r.errors.any() for r in whole)


def _family(results: Results, grey: StepResult) -> Routes:
    whole = _sibling(results, grey)
    every = whole is not None and whole.step.scope == "all"
    seen = None if whole is None else (whole.views.get("returned", whole.p_own) if every else whole.p_after)
    views = {name: _figure(results, grey.views.get(name)) for name in ("base", *TRANSFERRED)}
    others = [grey.views[name] for name in TRANSFERRED if name in grey.views]
    both = None if seen is None else results.worst_of([seen, *others])
    return Routes(
        grey.step.name.removeprefix(BESIDE), views["base"], views["returned"], views["first"], views["lowest"],
        _figure(results, seen), _figure(results, both), None if whole is None else whole.step.name, whole is not None and not every,
        bool(grey.step.after),
    )  # fmt: skip


def _sibling(results: Results, grey: StepResult) -> StepResult | None:
    """The end-to-end step of the same attack: its namesake or what it goes beside, else the last one of that attack."""
    whole = [r for r in results.counted if not r.step.transfers and r.done and not r.errors.any()]
    same = [r for r in whole if r.step.attack == grey.step.attack]
    names = (f"e2e-{grey.step.name}", grey.step.name.removeprefix(BESIDE))
    named = [r for r in same if r.step.name in names]
    return next(iter(named or same[-1:]), None)


def _figure(results: Results, p: Floats | None) -> Estimate | None:
    return None if p is None else estimate(total(p), int((results.prediction >= 0).sum()))
