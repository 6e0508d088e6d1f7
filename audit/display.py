"""What a person sees: the live table of a run, the final panel, the training bar, and plain tables."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from audit.ledger import Arrays
from audit.plan import Plan, Unit
from audit.routes import overall
from audit.summary import Audit
from audit.types import Step, bounded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from audit.runner import Prepared

COLOURS = {"upheld": "green", "refuted": "red", "inconclusive": "yellow"}


@dataclass
class _Row:
    images: int = 0
    broken: int = 0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    units: int = 0
    running: bool = False
    error: str = ""


class LiveTable:
    """A watcher that draws every step with its progress, and the time that is left.

    costs: forward plus backward passes of one surviving image, per step, for the estimate of what remains.
    """

    def __init__(self, console: Console, plan: Plan, costs: Sequence[int]) -> None:
        self.plan, self.costs = plan, costs
        self.rows = [_Row() for _ in plan.steps]
        self.alive = self.correct = plan.n
        self.passes, self.started, self.in_unit, self.begun = 0, time.perf_counter(), 0, False
        self._console = console
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._render)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if not self._console.is_terminal:
            self._console.line()  # rich ends the last line on terminals only

    def begin(self, unit: Unit, images: int) -> None:
        self.in_unit, self.begun = 0, True
        if unit.step is not None:
            self.rows[unit.step].running = True

    def beat(self, forwards: int) -> None:
        self.in_unit = forwards

    def end(self, unit: Unit, arrays: Arrays, meta: dict[str, Any]) -> None:
        begun, self.in_unit, self.begun = self.begun, 0, False
        if unit.step is None:
            wrong = int((~arrays["correct"]).sum())
            self.alive, self.correct = self.alive - wrong, self.correct - wrong
            return
        row = self.rows[unit.step]
        row.running, row.units = False, row.units + 1
        row.images += len(arrays["ids"])
        row.broken += int(arrays["broken"].sum())
        row.forwards += int(arrays["forwards"].sum())
        row.backwards += int(arrays["backwards"].sum())
        row.seconds += float(meta["seconds"])
        row.error = row.error or " ".join(str(meta.get("error") or "").split())
        if begun:  # what an earlier run did took none of this run's time
            self.passes += int(arrays["forwards"].sum() + arrays["backwards"].sum())

    def _render(self) -> Group:
        table = Table("step", "suite", "images", "broken", "forward", "backward", "time", box=None, header_style="bold")
        for step, row in zip(self.plan.steps, self.rows, strict=True):
            style = "bold" if row.running else ("" if row.units else "dim")
            counts = (row.images, row.broken, row.forwards, row.backwards)
            figures = (*(f"{count:,}" for count in counts), f"{row.seconds:.0f} s")
            cells = (step.name, step.suite, *(figures if row.units else ("", "", "", "", "")))
            table.add_row(*map(Text, cells), style=style)  # Text: brackets are not markup
        crashes = (
            Text(f"{step.name}: {row.error}", style="yellow", no_wrap=True, overflow="ellipsis")
            for step, row in zip(self.plan.steps, self.rows, strict=True)
            if row.error
        )
        return Group(table, *crashes, Text(self._status()))

    def _status(self) -> str:
        spent = time.perf_counter() - self.started
        done = sum(row.units for row in self.rows)
        total = sum(1 for unit in self.plan.units() if unit.step is not None)
        if done == total:
            return f"all {total} units done, {spent:.0f} s; judging the stored images again"
        rate = (self.passes + self.in_unit) / max(spent, 1e-9)
        left = f"about {self._remaining() / rate:.0f} s left" if rate > 0 and self.passes else "estimating"
        return f"{done} of {total} units, {spent:.0f} s, {left}; {self.in_unit:,} passes in this unit"

    def _remaining(self) -> float:
        """Passes still to do, were every image now standing to survive to the end."""
        survivors = max(
            self.correct
            - sum(r.broken for r, s in zip(self.rows, self.plan.steps, strict=True) if s.scope == "survivors"),
            0,
        )
        total = 0.0
        for step, row, cost in zip(self.plan.steps, self.rows, self.costs, strict=True):
            images = {
                "all": self.correct,
                "survivors": survivors,
                "control": min(step.limit or self.correct, self.correct),
            }[step.scope]
            share = 1 - row.units / self.plan.shards
            total += cost * images * share
        return total


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
    outcome = audit.verdict.outcome
    grid.add_row("verdict", Text(outcome, style=f"bold {COLOURS[outcome]}"))
    for reason in audit.verdict.reasons[1:3] or audit.verdict.reasons:
        grid.add_row("because", Text(reason))
    grid.add_row("report", Text(report, overflow="fold"))
    question = "is the claim real?" if audit.claim else "no claim to judge"
    return Panel(
        grid,
        title=Text(f"{audit.results.plan.identity['defense']}: {question}"),
        border_style=COLOURS[outcome],
    )


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table of strings."""
    result = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in columns:
        result.add_column(column, overflow="fold")  # a command cut short cannot be typed
    for row in rows:
        result.add_row(*(Text(str(cell)) for cell in row))  # Text: brackets are not markup
    return result
