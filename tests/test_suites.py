"""The suites: each step can run as it is written, and `--set` changes only what is there."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pyautoattack import AutoAttack

from audit import registry
from audit.errors import BadInput, UnknownName
from audit.rng import Stream
from audit.settings import override, resolve_temperature
from audit.suites import SUITES, get_suite, steps_for
from audit.types import AdapterSpec, Step, ThreatModel
from tests.planted import TinyCNN, images

OPTIONS = {"pgd": {"steps": 20, "rel_stepsize": 0.1}, "square": {"n_queries": 5000, "rescale": 0}, "fgsm": {}}
STEPS = (
    Step("fgsm", "fgsm", "claimed", "all"),
    Step("pgd-20", "pgd", "claimed", "all", params={"steps": 20, "rel_stepsize": 0.1}),
    Step("square", "square", "adaptive"),
)
EACH = [pytest.param(step, id=f"{suite.name}-{step.name}") for suite in SUITES.values() for step in suite.steps]


@pytest.mark.parametrize("step", EACH)
def test_a_step_names_an_attack_and_only_options_that_it_has(step):
    attack = registry.attacks.load(step.attack)
    assert set(step.params) <= set(attack.defaults)
    assert all(type(value) is type(attack.defaults[name]) for name, value in step.params.items())


@pytest.mark.parametrize("step", EACH)
def test_a_step_says_why_and_looks_through_adapters_that_exist(step):
    assert step.why
    assert {adapter.name for adapter in step.adapters} <= set(registry.adapters)


@pytest.mark.parametrize("step", [s for s in EACH if s.values[0].suite == "claimed"])
def test_a_claimed_step_is_what_papers_run(step):
    assert step.scope == "all"
    assert step.adapters == ()
    assert step.eps is None
    if "rel_stepsize" in registry.attacks.load(step.attack).defaults:
        assert step.params["rel_stepsize"] == 0.1


def test_the_claimed_suite_holds_the_five_attacks_of_the_paper():
    claimed = SUITES["claimed"].steps
    assert [s.name for s in claimed] == ["fgsm", "bim-20", "pgd-20", "pgd-100", "apgd-ce-100"]
    assert [s.params.get("steps", s.params.get("n_iter")) for s in claimed] == [None, 20, 20, 100, 100]
    assert {s.suite for s in claimed} == {"claimed"}


@pytest.mark.parametrize("suite", list(SUITES.values()), ids=list(SUITES))
def test_step_names_are_unique_and_controls_come_last_but_for_late_steps(suite):
    names = [step.name for step in suite.steps]
    assert len(names) == len(set(names))
    ranks = [step.late * 10 + ["all", "survivors", "control"].index(step.scope) for step in suite.steps]
    assert ranks == sorted(ranks) or (not suite.rounds and [r % 10 for r in ranks] == sorted(r % 10 for r in ranks))


@pytest.mark.parametrize("name", ["quick", "adaptive"])
def test_judging_suites_hold_claimed_steps_an_unsaturated_loss_and_a_control(name):
    steps = SUITES[name].steps
    assert [s.suite for s in steps].count("claimed") >= 3
    assert {"rescaled-ce", "apgd-margin"} <= {s.name for s in steps}
    (control,) = (s for s in steps if s.scope == "control")
    assert (control.scope, control.eps, control.limit) == ("control", 1.0, 100)


def test_standard_is_autoattacks_four_on_survivors():
    assert [s.attack for s in SUITES["standard"].steps] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert {s.scope for s in SUITES["standard"].steps} == {"survivors"}


@pytest.mark.filterwarnings("ignore")  # the library's driver, called as it is
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_standard_has_the_parameters_that_the_librarys_driver_sets_for_the_norm(norm):
    driver = AutoAttack(TinyCNN(), norm=norm, eps=1.0, seed=0)
    steps = steps_for("standard", "undefended", norm)
    assert [s.attack for s in steps] == driver.attacks_to_run
    ours = {s.attack: {**registry.attacks.load(s.attack).defaults, **s.params} for s in steps}
    assert ours["apgd-ce"] == {"n_iter": driver.apgd.n_iter_orig, "n_restarts": driver.apgd.n_restarts}
    targeted = driver.apgd_targeted
    assert ours["apgd-t"] == {"n_iter": targeted.n_iter_orig, "n_target_classes": targeted.n_target_classes}
    assert ours["fab-t"] == {"n_iter": driver.fab.n_iter, "n_target_classes": driver.fab.n_target_classes}
    assert (targeted.n_restarts, driver.fab.n_restarts, driver.square.n_restarts) == (1, 1, 1)
    square = driver.square
    assert (ours["square"]["n_queries"], ours["square"]["rescale"]) == (square.n_queries, int(square.rescale_schedule))
    assert (ours["square"]["target"], square.targeted) == ("none", False)
    assert (ours["apgd-ce"]["n_restarts"], ours["apgd-t"]["n_target_classes"]) == ((5, 5) if norm == "L1" else (1, 9))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.01), ("L2", 0.1), ("L1", 0.5)])
def test_the_untargeted_part_of_standard_is_what_the_librarys_driver_runs(norm, eps):
    model = TinyCNN()
    x, y = images(model, 12)
    driver = AutoAttack(model, norm=norm, eps=eps, seed=0)
    driver.apgd.loss = "ce"
    with Stream(0), torch.enable_grad():
        theirs = driver.apgd.perturb(x.clone(), y.clone())
    first = steps_for("standard", "undefended", norm)[0]
    found = registry.attacks.load(first.attack)(model, x, y, ThreatModel(norm, eps), seed=0, **first.params)
    assert torch.equal(found, theirs)
    assert 0 < int((model(found).argmax(1) != y).sum()) < len(x)


def test_what_carries_autoattacks_name_without_a_norm_of_its_own_is_the_same_under_every_norm():
    for suite in ("plus", "rand", "adaptive"):
        assert steps_for(suite, "undefended", "L1") == steps_for(suite, "undefended")


def test_plus_is_autoattacks_six_in_its_order_with_its_restarts():
    steps = SUITES["plus"].steps
    assert [s.attack for s in steps] == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    restarts = [{**registry.attacks.load(s.attack).defaults, **s.params}.get("n_restarts", 1) for s in steps]
    assert restarts == [5, 5, 5, 1, 1, 1]
    assert {s.scope for s in steps} == {"survivors"}


def test_full_holds_every_attack_but_the_one_for_random_defenses():
    assert set(registry.attacks.names()) - {s.attack for s in SUITES["full"].steps} == {"eot-pgd"}
    assert next(s for s in SUITES["full"].steps if s.name == "fab").scope == "survivors"


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_full_costs_four_million_passes_at_most_where_nothing_breaks(norm):
    """On 167 images, as pgd_at classifies correctly. What needs no gradient comes after Square, on some of them."""
    total = 0
    for step in SUITES["full"].steps:
        attack = registry.attacks.load(step.attack)
        if norm in attack.norms and step.attack != "transfer":
            total += min(167, step.limit or 167) * sum(attack.cost(step.params))
    assert 3e6 < total < 4e6
    after = [step for step in SUITES["full"].steps[:-1] if registry.attacks.load(step.attack).needs != "gradient"]
    assert {s.attack for s in after if s.limit is None} == {"transfer", "random-search", "square"}


def test_rand_averages_the_gradient_of_the_loss_that_each_attack_climbs():
    steps = SUITES["rand"].steps
    averages = {s.attack: dict(s.adapters[-1].params) for s in steps}
    assert averages == {
        f"apgd-{loss}": {"k": 20, "estimator": "losses", "loss": loss} for loss in ("ce", "dlr")
    }  # fmt: skip


def test_get_suite():
    assert get_suite("quick") is SUITES["quick"]
    with pytest.raises(UnknownName, match=r"unknown suite 'adaptve': did you mean 'adaptive'\?"):
        get_suite("adaptve")
    with pytest.raises(
        UnknownName,
        match=r"unknown suite 'zzz': known are adaptive, claimed, diagnose, full, plus, quick, rand, standard\.",
    ):
        get_suite("zzz")


@pytest.mark.parametrize(
    ("settings", "number", "params"),
    [
        (["pgd-20.steps=50"], 1, {"steps": 50, "rel_stepsize": 0.1}),
        (["pgd-20.rel_stepsize=0.25"], 1, {"steps": 20, "rel_stepsize": 0.25}),
        (["pgd-20.steps=50", "pgd-20.rel_stepsize=1"], 1, {"steps": 50, "rel_stepsize": 1.0}),
        (["square.n_queries=10"], 2, {"n_queries": 10, "rescale": 0}),
        (["square.n_queries=10", "square.n_queries=11"], 2, {"n_queries": 11, "rescale": 0}),
        (["square.rescale=1", "square.rescale=0"], 2, {"n_queries": 5000, "rescale": 0}),
    ],
)
def test_override_changes_that_option_alone(settings, number, params):
    changed = override(STEPS, settings, OPTIONS)
    assert changed[number].params == params
    assert [type(v) for v in changed[number].params.values()] == [type(v) for v in params.values()]
    untouched = override(STEPS, [], OPTIONS)
    assert [s for i, s in enumerate(changed) if i != number] == [s for i, s in enumerate(untouched) if i != number]


def test_override_by_nothing_fills_in_the_defaults_and_changes_nothing_else():
    for before, after in zip(STEPS, override(STEPS, [], OPTIONS), strict=True):
        assert after.params == {**OPTIONS[before.attack], **before.params}
        assert replace(after, params=before.params) == before


@pytest.mark.parametrize(("setting", "value"), [("a.loss=ce", "ce"), ("a.loss=", ""), ("a.loss=/x/y=z", "/x/y=z")])
def test_an_option_that_is_text_takes_any_text(setting, value):
    (changed,) = override([Step("a", "a3", "s")], [setting], {"a3": {"loss": "margin", "steps": 3}})
    assert changed.params == {"loss": value, "steps": 3}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("pgd-20.steps", r"--set 'pgd-20.steps' is not step.option=value; type for example"),
        ("pgd-20=3", r"is not step.option=value"),
        ("steps=3", r"is not step.option=value"),
        ("", r"--set '' is not step.option=value"),
        ("=3", r"is not step.option=value"),
        ("pgd20.steps=3", r"names step 'pgd20': did you mean 'pgd-20'\?"),
        ("zzz.steps=3", r"names step 'zzz': known are fgsm, pgd-20, square\."),
        (".steps=3", r"names step ''"),
        ("pgd-20.step=3", r"names option 'step': did you mean 'steps'\?"),
        ("pgd-20.=3", r"names option '': known are rel_stepsize, steps\."),
        ("fgsm.steps=3", r"names option 'steps': that attack has no options\."),
        ("pgd-20.seed=3", r"names option 'seed'"),
        ("pgd-20.steps=many", r"has value 'many', expected int such as 20"),
        ("pgd-20.steps=", r"has value '', expected int such as 20"),
        ("pgd-20.steps=1.5", r"has value '1.5', expected int such as 20"),
        ("pgd-20.rel_stepsize=1/10", r"has value '1/10', expected float such as 0.1"),
        ("pgd-20.steps=0", r"has value 0, expected a positive int such as 20"),
        ("square.rescale=-1", r"has value -1, expected 0 or a positive int$"),
        ("pgd-20.steps=-5", r"has value -5, expected a positive int"),
        ("pgd-20.rel_stepsize=nan", r"has value nan, expected a positive float such as 0.1"),
        ("pgd-20.rel_stepsize=inf", r"has value inf, expected a positive float"),
    ],
)
def test_override_refuses(setting, message):
    with pytest.raises(BadInput, match=message):
        override(STEPS, [setting], OPTIONS)


def test_temperature_auto_becomes_the_gap_and_nothing_else_changes():
    steps = (
        Step("a", "apgd-ce", "s", adapters=(AdapterSpec("float64"), AdapterSpec("rescale", {"temperature": "auto"}))),
        Step("b", "apgd-ce", "s", adapters=(AdapterSpec("rescale", {"temperature": 2.0}),)),
        Step("c", "square", "s", params={"n_queries": 5}),
    )
    first, *others = resolve_temperature(steps, 355.5)
    assert first.adapters == (AdapterSpec("float64"), AdapterSpec("rescale", {"temperature": 355.5}))
    assert tuple(others) == steps[1:]


@pytest.mark.parametrize("suite", list(SUITES.values()), ids=list(SUITES))
def test_no_auto_is_left_after_resolving(suite):
    steps = resolve_temperature(suite.steps, 3.0)
    values = [v for s in steps for a in s.adapters for v in a.params.values()]
    assert "auto" not in values
    assert all(math.isfinite(v) for v in values if not isinstance(v, str))


@pytest.mark.parametrize("name", ["adaptive", "diagnose"])
def test_random_points_are_tried_cheaply_where_gradients_failed(name):
    (step,) = (s for s in SUITES[name].steps if s.attack == "random-search")
    assert step.scope == "survivors"
    assert step.params["n_draws"] * (step.limit or SUITES[name].images) <= 20_000
    first = [s.name for s in SUITES[name].steps].index("random-search")
    assert any(registry.attacks.load(s.attack).needs == "gradient" for s in SUITES[name].steps[:first])
