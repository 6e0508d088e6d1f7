"""Which `--set` make an attack weaker: cheaper, lower, or a change of which nobody can tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from audit.suites import UNBOUNDED
from audit.types import Step
from audit.weakened import weakened

PGD = Step(
    "pgd-20",
    "pgd",
    "claimed",
    "all",
    params={"steps": 20, "rel_stepsize": 0.1, "loss": "ce", "random": True, "target": "none"},
)
SQUARE = Step("square", "square", "adaptive", params={"n_queries": 5000, "resample": 0})


def cost(step: Step, params: dict) -> tuple[int, int]:
    if step.attack == "square":
        return params["n_queries"], 0
    steps = int(params.get("steps", params.get("n_iter")))
    return steps + (params.get("target", "none") != "none"), steps


def test_the_suite_itself_is_not_weakened():
    assert weakened((PGD, SQUARE, UNBOUNDED), (PGD, SQUARE, UNBOUNDED), cost) == []


@pytest.mark.parametrize(
    ("step", "option", "value", "expected"),
    [
        (SQUARE, "n_queries", 10, ["square.n_queries: 5000 -> 10"]),
        (SQUARE, "n_queries", 4999, ["square.n_queries: 5000 -> 4999"]),
        (SQUARE, "n_queries", 5000, []),
        (SQUARE, "n_queries", 5001, []),
        (PGD, "steps", 1, ["pgd-20.steps: 20 -> 1"]),  # the claimed attacks count too
        (PGD, "steps", 200, []),
        (PGD, "rel_stepsize", 0.01, ["pgd-20.rel_stepsize: 0.1 -> 0.01"]),
        (PGD, "rel_stepsize", 50.0, ["pgd-20.rel_stepsize: 0.1 -> 50.0"]),  # the cost does not tell
        (PGD, "loss", "none", ["pgd-20.loss: ce -> none"]),
        (PGD, "target", "second", ["pgd-20.target: none -> second"]),  # though it costs more
        (PGD, "random", False, ["pgd-20.random: True -> False"]),
        (UNBOUNDED, "n_iter", 1, ["unbounded.n_iter: 100 -> 1"]),  # nor may a control be made easy
    ],
)
def test_one_option(step, option, value, expected):
    assert weakened((step,), (replace(step, params={**step.params, option: value}),), cost) == expected


def test_an_option_that_makes_the_attack_cheaper_by_growing():
    def stride(step: Step, params: dict) -> tuple[int, int]:
        return 1000 // params["stride"], 0

    own = Step("a", "x", "s", params={"stride": 2})
    assert weakened((own,), (replace(own, params={"stride": 4}),), stride) == ["a.stride: 2 -> 4"]


def test_more_of_one_option_does_not_pay_for_less_of_another():
    asked = replace(PGD, params={**PGD.params, "steps": 2000, "rel_stepsize": 0.001})
    assert weakened((PGD,), (asked,), cost) == ["pgd-20.rel_stepsize: 0.1 -> 0.001"]


def test_steps_that_the_norm_drops_are_not_listed():
    assert weakened((PGD, SQUARE), (PGD,), cost) == []
