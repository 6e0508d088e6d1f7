"""What a person sees: brackets stay brackets, the time that is left counts this run alone, lines end."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from audit import display, live
from audit.plan import Plan
from audit.runner import run
from audit.types import Step

pytestmark = pytest.mark.usefixtures("undrawn")

STEPS = (Step("[red]pgd[/]", "pgd", "claimed", "all"), Step("two", "pgd", "adaptive"))
IDENTITY = {"n": 8, "seed": 0, "batch_size": 4, "norm": "Linf", "eps": 8 / 255}
RUNTIME = {"unsupported": ["step [bold]fgsm is left out"]}
PLAN = Plan(IDENTITY, STEPS, {"n": 8, "clean_correct": 6, "logit_gap": 2.0}, RUNTIME)


def console(**options) -> Console:
    return Console(file=io.StringIO(), width=120, **options)


def printed(made: Console) -> str:
    return made.file.getvalue()


def arrays(passes: int = 100, n: int = 4) -> dict:
    each = np.full(n, passes // (2 * n))
    return {"ids": np.arange(n), "broken": np.zeros(n, bool), "forwards": each, "backwards": each}


def test_brackets_in_names_paths_and_sentences_are_printed():
    made = console()
    made.print(display.heading(PLAN, Path("/runs/[red]here[/red]")))
    table = live.LiveTable(made, PLAN, [10, 10])
    made.print(table._render())
    for text in ("/runs/[red]here[/red]", "step [bold]fgsm is left out", "[red]pgd[/]"):
        assert text in printed(made)


def test_what_went_wrong_in_a_unit_is_said_below_the_table():
    made, first = console(), [unit for unit in PLAN.units() if unit.step is not None][:2]
    table = live.LiveTable(made, PLAN, [10, 10])
    table.end(first[0], arrays(), {"seconds": 1.0, "error": None})
    made.print(table._render())
    assert "RuntimeError" not in printed(made)
    table.end(first[1], arrays(), {"seconds": 1.0, "error": "RuntimeError: [b]no\n image " + "x" * 200})
    made.print(table._render())
    name = PLAN.steps[first[1].step].name
    (said,) = [line for line in printed(made).splitlines() if "RuntimeError" in line]
    assert said.startswith(f"{name}: RuntimeError: [b]no image xxx")
    assert said.rstrip().endswith("…")


@pytest.mark.slow
def test_brackets_in_the_final_panel_are_printed(tmp_path):
    audit = run("undefended", suite="quick", n=4, out=tmp_path, settings=("pgd-20.steps=1", "unbounded.n_iter=1"))
    plan = replace(audit.results.plan, identity={**audit.results.plan.identity, "defense": "[b]mine"})
    audit = replace(audit, results=replace(audit.results, plan=plan))
    audit.__dict__["verdict"] = replace(audit.verdict, reasons=("head", "because [0,1] and [/red]"))
    made = console()
    made.print(display.panel(audit, "/runs/[red]x/report.html"))
    for text in ("[b]mine: is the claim real?", "because [0,1] and [/red]", "/runs/[red]x/report.html"):
        assert text in printed(made)


def test_the_time_left_counts_only_what_this_run_did(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(live.time, "perf_counter", lambda: now[0])
    units = [unit for unit in PLAN.units() if unit.step is not None]
    table = live.LiveTable(console(), PLAN, [25, 25])
    for unit in units[:2]:  # read back from the ledger: `begin` is not called for these
        table.end(unit, arrays(), {"seconds": 50.0})
    now[0] = 1.0
    assert "estimating" in table._status()
    table.begin(units[2], 4)
    now[0] = 11.0
    table.end(units[2], arrays(), {"seconds": 10.0})
    assert table.passes == 96  # 12 forward and 12 backward passes for each of 4 images, in 11 s
    left = 25 * 8 * 0.5 / (96 / 11)  # one of the second step's two shards remains
    assert f"about {left:.0f} s left" in table._status()
    assert table.rows[0].forwards == 96  # the table shows the whole run


@pytest.mark.parametrize("terminal", [True, False])
def test_what_follows_the_live_table_starts_on_a_line_of_its_own(terminal):
    made = console(force_terminal=terminal)
    with pytest.raises(ValueError, match="planted"), live.LiveTable(made, PLAN, [10, 10]):
        raise ValueError("planted")
    assert printed(made).removesuffix("\x1b[?25h").endswith("\n")


def test_nothing_is_printed_when_quiet():
    made = console(quiet=True)
    with live.LiveTable(made, PLAN, [10, 10]):
        pass
    assert printed(made) == ""


def test_the_most_that_a_plan_can_cost():
    steps = (STEPS[0], replace(STEPS[1], limit=2))
    found = display.most(replace(PLAN, steps=steps), [(20, 10), (3, 0)])
    assert found == {
        "steps": [
            {"step": "[red]pgd[/]", "images": 6, "forwards": 120, "backwards": 60},
            {"step": "two", "images": 2, "forwards": 6, "backwards": 0},
        ],
        "passes": 186,
    }


def test_a_long_cell_is_folded_and_not_cut():
    made = Console(file=io.StringIO(), width=30)
    made.print(display.table("t", ("a", "b"), [("x" * 40, "y" * 40)]))
    assert printed(made).count("x") == printed(made).count("y") == 40


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 seconds"), (119, "119 seconds"), (121, "2 minutes")])
def test_short_times_are_said_in_seconds(seconds, said):
    assert display.duration(seconds) == said
