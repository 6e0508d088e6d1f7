"""What a person sees before and after a run: the plan and its cost, the final panel, and plain tables."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from audit.diagnoses.kind import masking
from audit.plan import Plan
from audit.routes import overall
from audit.summary import Audit
from audit.types import Step, bounded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from audit.preparation import Prepared

COLOURS = {"upheld": "green", "refuted": "red", "inconclusive": "yellow"}


def costs(steps: Iterable[Step]) -> list[tuple[int, int]]:
    """Forward and backward passes of each step for one image that survives it."""
    from audit import registry

    return [_times(_draws(step), registry.attacks.load(step.attack).cost(step.params)) for step in steps]


def _draws(step: Step) -> int:
    """Passes of one look through the step's adapters: more than 1 where they average over draws."""
    return math.prod(int(adapter.params.get("k", 1)) for adapter in step.adapters)


def _times(draws: int, cost: tuple[int, int]) -> tuple[int, int]:
    return draws * cost[0], draws * cost[1]


def heading(plan: Plan, run_dir: Path) -> Text:
    """What is about to run, where its files go, and which steps of the suite are left out."""
    first = f"{plan.n} images, {plan.threat}, {len(plan.steps)} steps -> {run_dir}"
    return Text("\n".join([first, *plan.runtime["unsupported"]]))


def most(plan: Plan, costs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The most that a plan can cost: passes if every image that is standing survives each step to the end."""
    correct = int(plan.profile["clean_correct"] / plan.profile["n"] * plan.n)
    steps: list[dict[str, Any]] = []
    for step, (forward, backward) in zip(plan.steps, costs, strict=True):
        images = min(step.limit or correct, correct)
        steps.append(
            {"step": step.name, "images": images, "forwards": forward * images, "backwards": backward * images}
        )
    return {"steps": steps, "passes": sum(s["forwards"] + s["backwards"] for s in steps)}


def timed(prepared: Prepared, costs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The most that a plan can cost, with the seconds that it takes at the rate that is measured here and now."""
    cost, rate = most(prepared.plan, costs), passes_per_second(prepared.target.model, prepared.target.x)
    return {**cost, "rate": rate, "seconds": cost["passes"] / rate}


def duration(seconds: float) -> str:
    """Seconds below two minutes, else minutes."""
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def dry_run(prepared: Prepared, costs: Sequence[tuple[int, int]]) -> Group:
    """The plan with the most that it can cost."""
    plan = prepared.plan
    cost = timed(prepared, costs)
    rows = [
        (step.name, step.attack, step.scope, c["images"], f"{c['forwards']:,}", f"{c['backwards']:,}", step.why)
        for step, c in zip(plan.steps, cost["steps"], strict=True)
    ]
    return Group(
        table("plan", ("step", "attack", "images", "at most", "forward", "backward", "why"), rows),
        Text(f"fingerprint {plan.fingerprint[:16]}, {plan.n} images, {plan.threat}, logit gap {plan.profile['logit_gap']:.3g}"),
        Text(f"at most {cost['passes']:,} passes, {duration(cost['seconds'])} at the {cost['rate']:,.0f} passes per second measured just now; "
             "images that break early cost less"),
        *map(Text, plan.runtime["unsupported"]),
    )  # fmt: skip


def passes_per_second(model: nn.Module, x: Tensor) -> float:
    """How fast the model answers, with a gradient where it has one, from one warm batch."""
    images = x[:100].clone().requires_grad_()
    for _ in range(2):
        started = time.perf_counter()
        total = model(images).sum()
        if total.requires_grad:  # else there is nothing to go back through
            total.backward()
    return (2 if total.requires_grad else 1) * len(images) / (time.perf_counter() - started)


def panel(audit: Audit, report: str) -> Panel:
    """The answer in ten seconds: clean, claimed, adaptive, verdict, reason, where the report is."""
    grid = Table.grid(padding=(0, 2))
    threat = audit.results.plan.threat
    grid.add_row("clean", str(audit.clean))
    claimed = bounded("at least", str(audit.claimed), audit.claimed_unknown)
    grid.add_row("claimed", claimed if audit.claimed else "not measured")
    refused = "refused: no attack saw the whole defense"
    adaptive = bounded("at most", str(audit.adaptive), audit.unknown) if audit.headline else refused
    grid.add_row("adaptive", Text(adaptive, style="bold"))
    for route, figure in overall(audit.results).items():
        if figure is not None:
            grid.add_row(route.replace("_", " "), str(figure))
    grid.add_row(
        "",
        Text(
            f"n = {audit.results.plan.n}, {threat}, seed {audit.results.plan.seed}, 95 % Clopper-Pearson",
            style="dim",
        ),
    )
    if audit.claim and audit.claim.basis != "measured":
        grid.add_row("claim", Text(f"{audit.claim.robust_acc:.1%} under {audit.claim.attack}"))
    outcome = audit.verdict.outcome
    grid.add_row("verdict", Text(outcome, style=f"bold {COLOURS[outcome]}"))
    kind = masking(audit.results)
    grid.add_row("masking", Text(kind))
    for reason in [r for r in audit.verdict.reasons[1:] if kind not in r][:2] or audit.verdict.reasons:
        grid.add_row("because", Text(reason))
    grid.add_row("report", Text(report, overflow="fold"))
    question = "is the claim real?" if audit.claim else "no claim to judge"
    return Panel(
        grid,
        title=Text(f"{audit.results.plan.identity['defense']}: {question}"),
        border_style=COLOURS[outcome],
    )


STATUS = {"clear": "green", "flagged": "red", "resolved": "yellow", "not_measured": "dim"}


def diagnoses(audit: Audit) -> Group:
    """Every diagnosis with its value, threshold and finding, what fired first."""
    order = ("flagged", "resolved", "clear", "not_measured")
    grid = table(
        f"{audit.results.plan.identity['defense']}: reasons that its numbers may lie",
        ("diagnosis", "status", "value", "bar", "blocks", "finding"), (),
    )  # fmt: skip
    for d in sorted(audit.diagnoses, key=lambda d: (order.index(d.status), not d.blocking)):
        value = "" if d.value is None else f"{d.value:.3g}"
        cells = (
            d.name,
            d.status.replace("_", " "),
            value,
            f"{d.threshold:.3g}",
            "yes" if d.blocking else "",
            d.sentence,
        )
        grid.add_row(*(Text(cell, style=STATUS[d.status] if i == 1 else "") for i, cell in enumerate(cells)))
    flagged = [d for d in audit.diagnoses if d.status == "flagged" and d.blocking]
    words = ", ".join(d.name for d in flagged) or "none that blocks"
    return Group(grid, Text(f"n = {audit.results.plan.n}, {audit.results.plan.threat}; flagged: {words}"),
                 Text(f"kind of gradient masking: {masking(audit.results)}"))  # fmt: skip


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table of strings."""
    result = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in columns:
        result.add_column(column, overflow="fold")  # a command cut short cannot be typed
    for row in rows:
        result.add_row(*(Text(str(cell)) for cell in row))  # Text: brackets are not markup
    return result
