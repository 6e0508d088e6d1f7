"""A claimed attack in parts: each attacks what the parts before it returned unbroken, and the last has the figure of all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from audit import registry
from audit.attacks.common import attack
from audit.cascade import carried, held, left_by
from audit.engine import LocalEngine, Target
from audit.ledger import Ledger
from audit.plan import read_plan
from audit.results import read_results
from audit.routes import routes
from audit.runner import Silent
from audit.types import AdapterSpec, Step
from tests.planted import Brightness, Staged
from tests.test_engine import PLANTED, arrays_of, assert_same, grey, make_plan, run


@pytest.fixture(autouse=True)
def _planted_attacks(monkeypatch):
    for name, attribute in PLANTED.items():
        monkeypatch.setitem(registry.attacks._targets, name, f"tests.planted:{attribute}")
    monkeypatch.setitem(registry.attacks._targets, "timid", "tests.test_cascade:timid")


@attack("timid", library="planted", norms=("Linf",), needs="gradient", reference="none", cost=lambda _: (1, 1))
def timid(model, x, y, threat, *, seed):
    """Brightens by a half of eps: breaks the nearest images only."""
    model(x)
    return (x + threat.eps / 2).clamp(0, 1)


def part(name, attack_name, *after, base=False, scope="all"):
    adapters = (AdapterSpec("base"),) if base else ()
    return Step(name, attack_name, "claimed", scope, adapters, after=after)


def attacked(results):
    return {r.step.name: r.attacked.nonzero()[0].tolist() for r in results.steps}


def test_each_part_attacks_what_those_before_it_left(tmp_path):
    steps = [part("a", "timid"), part("b", "good", "a"), part("c", "good", "a", "b")]
    _, results = run(make_plan(steps), grey(), tmp_path)
    a, b, c = results.steps
    assert a.returned.nonzero()[0].tolist() == [5]
    assert attacked(results) == {"a": [0, 1, 2, 3, 4, 5], "b": [0, 1, 2, 3, 4], "c": [0, 1, 2]}
    assert b.returned.nonzero()[0].tolist() == [3, 4]
    assert results.survives_claimed.nonzero()[0].tolist() == [0, 1, 2]
    for result, left in ((a, [0, 1, 2, 3, 4]), (b, [0, 1, 2]), (c, [0, 1, 2])):
        assert result.views["returned"].nonzero()[0].tolist() == left
        assert result.p_own.nonzero()[0].tolist() == left


def test_an_image_that_was_only_met_on_the_way_is_attacked_again(tmp_path):
    """Scope "survivors" would spare it, and then no claimed attack would have returned it broken."""
    for scope, again in (("all", [0, 1, 2, 3, 4, 5]), ("survivors", [0, 1, 2])):
        second = part("b", "good", *(["a"] if scope == "all" else []), scope=scope)
        plan = make_plan([part("a", "passes-through"), second])
        _, results = run(plan, grey(), tmp_path / scope)
        assert results.steps[0].broken.nonzero()[0].tolist() == [3, 4, 5]
        assert not results.steps[0].returned.any()
        assert attacked(results)["b"] == again
    assert results.survives_claimed[3:6].all()


def test_a_part_goes_on_after_a_crash_and_the_crash_stays_unknown(tmp_path):
    plan = make_plan([part("a", "one-nan"), part("b", "good", "a")])  # no number for the first image of a shard
    _, results = run(plan, grey(), tmp_path)
    assert results.steps[0].crashed.nonzero()[0].tolist() == [0, 3]
    assert attacked(results)["b"] == [0, 1, 2, 3]
    assert results.survives_claimed.nonzero()[0].tolist() == [1, 2]
    assert results.unknown.nonzero()[0].tolist() == [0]


def test_a_part_with_nothing_left_has_the_figure_of_those_before_it(tmp_path):
    _, results = run(make_plan([part("a", "good"), part("b", "good", "a")], eps=0.2), grey(), tmp_path)
    assert attacked(results)["b"] == []
    assert results.steps[1].done
    assert not results.steps[1].views["returned"].any()
    assert [r.step.name for r in results.claimed] == ["a"]
    assert not results.p_claimed.any()


class Darken(nn.Module):
    """A purifier that undoes what brightens: the whole is right on every grey image."""

    def forward(self, x):
        return x - 0.3


def test_on_a_bare_network_the_parts_go_on_where_that_one_stands(tmp_path):
    whole = grey()
    target = Target(Staged(Brightness(), Darken()), whole.x, whole.y, frozenset())
    steps = [part("a", "timid", base=True), part("b", "good", "a", base=True)]
    _, results = run(make_plan(steps), target, tmp_path)
    assert attacked(results) == {"a": [0, 1, 2, 3, 4, 5, 6, 7], "b": [0, 1, 2, 3, 4]}
    a, b = results.steps
    assert not b.broken.any()  # the purifier saves them all
    assert a.fallen.nonzero()[0].tolist() == [5, 6, 7]
    assert b.views["base"].nonzero()[0].tolist() == [0, 1, 2]
    assert b.views["returned"].all()
    assert [round(r.bare.accuracy, 3) for r in routes(results)] == [5 / 8, 3 / 8]
    assert [r.transfer.accuracy for r in routes(results)] == [1.0, 1.0]


def test_a_resumed_run_attacks_the_same_images(tmp_path):
    steps = [part("a", "timid"), part("b", "good", "a"), part("c", "idle", "a", "b")]
    plan = make_plan(steps)
    run(plan, grey(), tmp_path / "whole")
    run(plan, grey(), tmp_path / "cut")
    ledger = Ledger(tmp_path / "cut", plan.fingerprint)
    for unit in list(plan.units())[-5:]:
        ledger.remove(unit.name)
    assert read_results(tmp_path / "cut").missing == 5
    LocalEngine(read_plan(tmp_path / "cut"), grey(), ledger).run(Silent())
    assert_same(arrays_of(plan, tmp_path / "whole"), arrays_of(plan, tmp_path / "cut"))


def test_a_plan_tells_what_comes_after_what_and_says_nothing_where_nothing_does(tmp_path):
    plan = make_plan([part("a", "timid"), part("b", "good", "a")])
    plan.write(tmp_path)
    assert read_plan(tmp_path).steps == plan.steps
    assert [step.to_dict().get("after") for step in plan.steps] == [None, ("a",)]


def test_what_stands_and_what_is_carried_on():
    broken = {"returned_broken": np.array([True, False, False])}
    assert held(broken).tolist() == [False, True, True]
    bare = {**broken, "p_base": np.array([1.0, 0.0, np.nan], np.float32)}
    assert held(bare).tolist() == [True, False, True]
    standing = {"a": np.array([True, True, False]), "b": np.array([True, False, False])}
    assert left_by(("a", "b", "gone"), standing).tolist() == [True, False, False]
    assert left_by(("gone",), standing) is None
    fallen = {"a": np.array([True, False, False]), "b": np.array([True, True, False])}
    figures = {"a": np.float32([0.1, 0.2, 0.3]), "b": np.float32([0.4, 0.5, 0.6])}
    found = carried(("a", "b", "gone"), fallen, figures, np.ones(3, np.float32))
    assert found.tolist() == pytest.approx([0.1, 0.5, 1.0])


def test_for_a_random_defense_the_last_part_has_the_figure_of_the_whole(tmp_path):
    class Flickering(Brightness):
        """Right or wrong by the image, and for images near the boundary by chance."""

        def forward(self, x):
            return super().forward(x + 0.004 * torch.randn(len(x), 1, 1, 1))

    whole = grey()
    plan = make_plan([part("a", "timid"), part("b", "good", "a")])
    plan = type(plan)({**plan.identity, "draws": 20}, plan.steps, plan.profile)
    _, results = run(plan, Target(Flickering(), whole.x, whole.y, frozenset({"stochastic"})), tmp_path)
    a, b = results.steps
    assert results.plan.draws == 20
    rows = a.fallen & ~b.attacked
    assert rows.any()
    assert np.array_equal(b.views["returned"][rows], a.views["returned"][rows])
    assert np.array_equal(results.p_claimed, b.views["returned"])
    assert float(b.views["returned"].mean()) < float(a.views["returned"].mean())
