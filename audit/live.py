"""The live table of a run: every step with its progress, what each round found, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from audit.display import costs
from audit.ledger import Arrays
from audit.plan import Plan, Unit


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

    def extend(self, plan: Plan) -> None:
        """Say what the new round found and what it does next, and make room for its steps."""
        found = plan.rounds[-1]
        for finding in found.found:
            self._console.print(Text(f"round {found.number} found: {finding}"), soft_wrap=True)
        for step in found.steps:
            self._console.print(Text(f"round {found.number} runs: {step.name}, {step.why}"), soft_wrap=True)
        self.plan, self.costs = plan, [forward + backward for forward, backward in costs(plan.steps)]
        place = plan.steps.index(found.steps[0])
        self.rows[place:place] = [_Row() for _ in found.steps]

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
                "all": min(step.limit or self.correct, self.correct),
                "survivors": survivors,
                "trial": min(step.limit or self.correct, self.correct),
                "control": min(step.limit or self.correct, self.correct),
            }[step.scope]
            share = 1 - row.units / self.plan.shards
            total += cost * images * share
        return total
