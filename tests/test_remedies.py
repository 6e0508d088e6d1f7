"""Which findings ask for which steps, when it ends, and that a resumed run keeps its rounds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from audit import execution, registry, runner
from audit.budget import Budget
from audit.controls import main_attack
from audit.diagnoses import diagnose
from audit.diagnoses.settled import gain, settled
from audit.errors import PlanMismatch
from audit.evidence import Evidence
from audit.plan import read_plan
from audit.remedies import CHECKED, TRIALS, next_round
from audit.rounds import read_rounds, write_rounds
from audit.suites import SUITES
from audit.summary import load_run
from audit.types import Round, Step
from tests.built import NONE, built, claimed, control, mask, ran

CUT = {"gradient_cut": True, "bare_network_at": "body", "last_network": "body", "gradient_cut_at": []}
SURVIVED = (claimed(), ran("apgd-margin", attack="apgd-margin"), ran("square", attack="square"), control())


def asked(*steps, profile=None, rounds=(), **identity):
    """The next round of an adaptive run with these steps, the last of which belong to `rounds`."""
    results = built(*steps, profile=profile, **{"suite": "adaptive", **identity})
    return next_round(replace(results, plan=replace(results.plan, rounds=tuple(rounds))))


def trial(name, broken, **changes):
    found = ran(f"try-{name}", broken, scope="trial", attacked=mask((0, TRIALS)), attack="apgd-margin", **changes)
    return replace(found, step=replace(found.step, limit=TRIALS))


def names(found):
    return [step.name for step in found.steps]


def test_a_sound_run_only_asks_whether_more_steps_break_more():
    found = asked(*SURVIVED)
    assert names(found) == ["doubled-2-check"]
    assert found.steps[0].limit == CHECKED
    assert found.steps[0].params["n_iter"] == 200
    assert found.steps[0].params["n_restarts"] == 2
    assert found.remedies == ()
    assert "more steps" in found.found[0]


@pytest.mark.parametrize("changes", [{"suite": "quick"}, {"suite": "standard"}])
def test_other_suites_have_no_rounds(changes):
    assert asked(*SURVIVED, **changes) is None


def test_a_run_with_units_to_come_decides_nothing():
    results = built(*SURVIVED, suite="adaptive", missing=1)
    assert next_round(results) is None


def test_nothing_is_asked_once_nothing_stands():
    assert asked(claimed(), ran("apgd-margin", mask((0, 900)), attack="apgd-margin"), control()) is None


def test_a_cut_gradient_is_tried_around_on_few_images_in_several_ways():
    found = asked(*SURVIVED, profile=CUT)
    tried = [s for s in found.steps if s.scope == "trial"]
    assert [s.name for s in tried] == [
        "try-inner", "try-front-identity", "try-front-binomial_blur", "try-front-learned", "try-smooth"
    ]  # fmt: skip
    assert {s.limit for s in tried} == {TRIALS}
    assert tried[0].adapters[0].params == {"network": "body"}
    assert "shattered_gradient" in found.remedies


def test_submodules_that_cut_get_a_substitute_and_identity_only_where_shapes_fit():
    cuts = {"gradient_cut": True, "gradient_cut_at": ["code"], "gradient_cut_shapes": {"code": {"same": False}}}
    assert "try-bpda-identity" not in names(asked(*SURVIVED, profile=cuts))
    assert "try-bpda-learned" in names(asked(*SURVIVED, profile=cuts))
    same = {**cuts, "gradient_cut_shapes": {"code": {"same": True}}}
    assert {"try-bpda-identity", "try-bpda-learned"} <= set(names(asked(*SURVIVED, profile=same)))


def test_the_two_ways_that_broke_most_are_used_on_everything():
    first = Round(1, ("cut",), ("shattered_gradient",), ())
    tried = (
        trial("inner", mask((0, 5))),
        trial("front-identity", mask((0, 20)), adapters=("front",)),
        trial("smooth", NONE),
    )
    steps = names(asked(*SURVIVED, *tried, profile=CUT, rounds=[first]))
    assert steps[:2] == ["best-front-identity", "best-inner"]
    assert "best-smooth" not in steps


def test_images_of_the_network_inside_are_always_tried_on_a_defense_that_optimises():
    tried = (
        trial("front-identity", mask((0, 20)), adapters=("front",)), trial("smooth", mask((0, 9))), trial("inner", NONE),
    )  # fmt: skip
    first = Round(1, ("x",), ("dynamic",), ())
    dynamic = {**CUT, "dynamic": True}
    assert names(asked(*SURVIVED, *tried, profile=dynamic, rounds=[first]))[:3] == [
        "best-front-identity", "best-smooth", "best-inner"
    ]  # fmt: skip
    assert "best-inner" not in names(asked(*SURVIVED, *tried, profile=CUT, rounds=[first]))
    once = names(asked(*SURVIVED, trial("inner", mask((0, 9))), profile=dynamic, rounds=[first]))
    assert once.count("best-inner") == 1


@pytest.mark.parametrize(
    ("profile", "step"),
    [({"ce_cosine_float64": 0.1}, "more-pgd-margin"), ({"linearity_gap": {"0.1": 0.9}}, "restarts-margin")],
)
def test_what_a_gradient_is_worth_as_a_number_asks_for_other_attacks(profile, step):
    assert step not in names(asked(*SURVIVED))
    assert step in names(asked(*SURVIVED, profile=profile))


def test_random_points_that_get_further_ask_for_restarts():
    points = ran("random-search", mask((0, 7)), attack="random-search")
    assert "restarts-margin" in names(asked(*SURVIVED, points))


def test_the_convergence_check_looks_through_the_best_way():
    tried = (trial("front-identity", mask((0, 20)), adapters=("front",)),)
    found = asked(*SURVIVED, *tried, profile=CUT, rounds=[Round(1, ("cut",), ("shattered_gradient",), ())])
    check = next(s for s in found.steps if s.name.startswith("doubled"))
    assert [a.name for a in check.adapters] == ["front"]


def test_a_defense_that_declares_its_parts_needs_no_trials():
    assert not any(s.scope == "trial" for s in asked(*SURVIVED, profile=CUT, staged=True).steps)


def test_an_attack_that_a_round_brings_to_a_staged_defense_comes_by_transfer_too():
    grey = ran("transfer-apgd-margin", attack="apgd-margin", scope="all", adapters=("base",))
    dynamic = {"dynamic": True, "examined": 64}
    found = asked(grey, *SURVIVED, profile=dynamic, staged=True)
    fresh = [s.name for s in found.steps if s.attack not in ("apgd-margin", "pgd", "square")]
    assert "rays-check" in fresh
    beside = next(s for s in found.steps if s.name == "transfer-rays-check")
    assert (beside.attack, beside.scope, beside.limit) == ("rays", "all", 50)
    assert [a.name for a in beside.adapters] == ["base"]
    assert beside.after == ("transfer-apgd-margin",)
    assert not any(s.transfers for s in found.steps if s.attack == "apgd-margin")  # there is one in the suite
    assert not any(s.transfers for s in asked(grey, *SURVIVED, profile=dynamic).steps)


def test_a_step_by_transfer_answers_nothing_and_spoils_nothing():
    """Its gradients are those of the bare network: a remedy whose own had none has not been tried."""
    grey = ran("transfer-apgd-margin", attack="apgd-margin", scope="all", adapters=("base",))
    points = ran("random-search", mask((0, 7)), attack="random-search")

    def answers(own, beside):
        first = Round(1, ("x",), ("random_search_beats_gradient",), (own.step, beside.step))
        results = built(grey, *SURVIVED, points, own, beside, suite="adaptive", staged=True)
        return settled(replace(results, plan=replace(results.plan, rounds=(first,))))

    def step(name, **changes):
        adapters = ("base",) if name.startswith("transfer-") else ()
        return ran(name, attack="a3", scope="all", adapters=adapters, **changes)

    assert answers(step("a3"), step("transfer-a3")) == {"random_search_beats_gradient"}
    assert answers(step("a3", zero=1.0), step("transfer-a3")) == frozenset()
    crashed = step("transfer-a3", errors=mask((0, 900)))
    assert answers(step("a3"), crashed) == {"random_search_beats_gradient"}


def doubled(name, broken, limit=None, start=0):
    found = ran(
        name,
        mask((start, start + broken)),
        attack="apgd-margin",
        attacked=mask((start, start + (limit or 900 - start))),
    )
    return replace(found, step=replace(found.step, limit=limit))


def test_steps_are_doubled_until_that_breaks_less_than_half_a_point():
    def after(*steps):
        return asked(*SURVIVED, *steps, rounds=[Round(1, ("x",), (), ())])

    check = doubled("doubled-2-check", 2, CHECKED)  # 2 of 100 is 18 of 900
    assert after(doubled("doubled-2-check", 0, CHECKED)) is None
    assert names(after(check)) == ["doubled-2"]
    assert names(after(check, doubled("doubled-2", 9, start=2))) == ["doubled-4"]
    assert names(after(check, doubled("doubled-2", 9, start=2), doubled("doubled-4", 9, start=11))) == ["doubled-8"]
    assert after(check, doubled("doubled-2", 4, start=2)) is None  # 0.4 points


def test_what_a_limited_step_found_is_scaled_and_used_on_all():
    dynamic = {"dynamic": True, "examined": 64}
    some = replace(ran("rays-check", mask((0, 4)), attack="rays", attacked=mask((0, 50))))
    some = replace(some, step=replace(some.step, limit=50))
    first = Round(1, ("x",), ("dynamic",), (some.step,))
    assert "rays" in names(asked(*SURVIVED, some, profile=dynamic, rounds=[first], staged=True))
    results = built(*SURVIVED, some, profile=dynamic, suite="adaptive", staged=True)
    moved = replace(results, plan=replace(results.plan, rounds=(first,)))
    assert settled(moved) == frozenset()  # 4 of 50 is 72 of 900


def test_trials_alone_answer_nothing():
    tried = trial("front-learned", NONE, adapters=("front",))
    first = Round(1, ("cut",), ("shattered_gradient",), (tried.step,))
    results = built(*SURVIVED, tried, profile=CUT, suite="adaptive")
    results = replace(results, plan=replace(results.plan, rounds=(first,)))
    assert settled(results) == frozenset()
    assert {d.name: d.status for d in diagnose(results)}["shattered_gradient"] == "flagged"


def test_doubling_that_still_gains_blocks():
    results = built(*SURVIVED, doubled("doubled-2-check", 2, CHECKED), suite="adaptive")
    found = {d.name: d for d in diagnose(results)}["more_steps_help"]
    assert (found.status, found.blocking, found.value) == ("flagged", True, pytest.approx(0.018))
    tried = int(results.steps[-1].attacked.sum())
    assert (
        f"on {tried} survivors, break {int(results.steps[-1].broken.sum())} of them: 1.8% of all images"
        in found.sentence
    )
    assert {d.name: d for d in diagnose(built(*SURVIVED))}["more_steps_help"].status == "not_measured"


def test_the_view_stays_plain_where_a_way_round_broke_less_than_was_broken_before():
    weak = trial("smooth", mask((0, 1)), adapters=("smooth",))
    strong = ran("apgd-margin", mask((0, 30)), attack="apgd-margin")
    found = asked(claimed(), strong, ran("square", attack="square"), control(), weak, profile=CUT,
                  rounds=[Round(1, ("cut",), ("shattered_gradient",), ())])  # fmt: skip
    check = next(s for s in found.steps if s.name.startswith("doubled"))
    assert check.adapters == ()


@pytest.mark.parametrize(
    ("before", "tried", "rests_on"),
    [
        (30, {"smooth": 25}, "apgd-margin"),
        (0, {"smooth": 25}, "best-smooth"),
        (0, {"inner": 27, "front": 25, "smooth": 20}, "best-front"),
        (0, {"inner": 27}, "apgd-margin"),
    ],
)
def test_the_verdict_rests_on_the_way_that_broke_most_of_those_that_see_the_whole(before, tried, rests_on):
    steps = [claimed(), ran("apgd-margin", mask((0, before)), attack="apgd-margin")]
    steps += [trial(name, mask((0, broken)), adapters=(name,)) for name, broken in tried.items()]
    steps += [ran(f"best-{name}", attack="apgd-margin", adapters=(name,)) for name in tried]
    results = built(*steps, profile=CUT)
    found = main_attack(results.plan.steps, Evidence(results, {}).whole)
    assert found is not None
    assert found.name == rests_on


def test_square_ahead_of_the_gradient_asks_for_restarts_and_other_directions():
    steps = (
        claimed(),
        ran("apgd-margin", attack="apgd-margin"),
        ran("square", mask((0, 40)), attack="square"),
        control(),
    )
    found = asked(*steps)
    assert {"restarts-margin", "a3"} <= set(names(found))
    assert "black_box_beats_white_box" in found.remedies


def test_a_random_defense_gets_as_many_draws_as_its_gradient_needs():
    noisy = {"max_draw_difference": 0.5, "draws_for_snr": 25}
    found = asked(*SURVIVED, profile=noisy, draws=40)
    assert "eot25-margin" in names(found)
    eot = next(s for s in found.steps if s.name == "eot25-margin").adapters[-1]
    assert (eot.name, eot.params["k"]) == ("eot", 25)
    assert "eot10-margin" not in names(asked(*SURVIVED, profile={**noisy, "draws_for_snr": 10}, draws=40))


def test_a_random_defense_is_attacked_with_momentum_on_all_images_and_by_the_mean_probability():
    noisy = {"max_draw_difference": 0.5, "draws_for_snr": 4}
    found = {s.name: s for s in asked(*SURVIVED, profile=noisy, draws=40).steps}
    assert (found["momentum"].attack, found["momentum"].scope) == ("mi-fgsm", "all")
    assert found["momentum"].adapters[-1].params["estimator"] == "logits"
    assert found["momentum-probs"].adapters[-1].params["estimator"] == "probs"
    assert not {"momentum", "momentum-probs"} & set(names(asked(*SURVIVED)))


def test_attacks_that_do_not_know_the_norm_are_not_asked_for():
    steps = (
        claimed(),
        ran("apgd-margin", attack="apgd-margin"),
        ran("square", mask((0, 40)), attack="square"),
        control(),
    )
    assert "a3" not in names(asked(*steps, norm="L1", eps=2.0)) or "L1" in registry.attacks.load("a3").norms


def test_no_more_rounds_than_the_suite_allows():
    done = [Round(i, ("x",), (), ()) for i in range(1, 1 + SUITES["adaptive"].rounds)]
    assert asked(*SURVIVED, profile=CUT, rounds=done) is None


# --- before the dear steps


def late(result):
    return replace(result, step=replace(result.step, late=True))


UNTOUCHED = {"attacked": NONE, "done": False}
WAITING = (*SURVIVED[:2], control(), late(ran("square", attack="square", **UNTOUCHED)))


def test_what_was_found_before_the_first_attack_is_acted_on_before_the_late_steps():
    results = built(*WAITING, suite="adaptive", profile=CUT, missing=1)
    assert next_round(results) is None
    found = next_round(results, early=True)
    assert found.early
    assert "try-inner" in names(found)
    assert not any(name.startswith("doubled") for name in names(found))
    assert [s.name for s in results.plan.extended(found).steps][-1] == "square"
    assert next_round(built(*WAITING, suite="adaptive", missing=1), early=True) is None  # nothing was found


def test_there_is_no_early_round_once_a_late_step_has_begun():
    begun = (*WAITING[:-1], late(ran("square", attack="square")))
    assert next_round(built(*begun, suite="adaptive", profile=CUT), early=True) is None
    unfinished = (replace(WAITING[0], done=False), *WAITING[1:])
    assert next_round(built(*unfinished, suite="adaptive", profile=CUT, missing=2), early=True) is None


# --- when is a finding answered?


def answered(move, **changes):
    """A run whose only round ran two steps, of which the second broke `move` images."""
    steps = (
        ran("best-inner", attack="apgd-margin", **changes),
        ran("doubled-2", mask((800, 800 + move)), attack="apgd-margin"),
    )
    results = built(*SURVIVED, *steps, profile=CUT, suite="adaptive")
    found = Round(1, ("cut",), ("shattered_gradient",), tuple(s.step for s in steps))
    return replace(results, plan=replace(results.plan, rounds=(found,)))


def test_a_finding_is_resolved_when_its_steps_ran_and_the_worst_case_stood_still():
    assert settled(answered(4)) == {"shattered_gradient"}
    status = {d.name: d.status for d in diagnose(answered(4))}
    assert status["shattered_gradient"] == "resolved"


def test_it_is_not_while_the_worst_case_still_moves_or_a_step_crashed():
    assert settled(answered(5)) == frozenset()
    assert settled(answered(0, errors=mask((0, 1)))) == frozenset()
    assert settled(replace(answered(0), missing=1)) == frozenset()
    assert {d.name: d.status for d in diagnose(answered(5))}["shattered_gradient"] == "flagged"


@pytest.mark.parametrize(("more", "status"), [(0, "resolved"), (1, "flagged")])
def test_what_restarts_broke_is_the_end_once_twice_the_steps_break_no_more(more, status):
    check = replace(ran("doubled-2-check", mask((130, 130 + more)), attack="apgd-margin", attacked=mask((130, 230))))
    check = replace(check, step=replace(check.step, limit=CHECKED))
    steps = (ran("restarts-margin", mask((100, 130)), attack="apgd-margin"), check)
    results = built(*SURVIVED, ran("random-search", mask((0, 100)), attack="random-search"), *steps, suite="adaptive")
    found = Round(1, ("outdone",), ("random_search_beats_gradient",), tuple(s.step for s in steps))
    results = replace(results, plan=replace(results.plan, rounds=(found,)))
    assert {d.name: d.status for d in diagnose(results)}["random_search_beats_gradient"] == status


@pytest.mark.parametrize(("last", "status"), [(899, "flagged"), (900, "resolved")])
def test_an_attack_that_was_outdone_is_answered_once_nothing_stands(last, status):
    outdone = ran("random-search", mask((0, 100)), attack="random-search"), ran("pgd", mask((100, last)))
    found = {d.name: d for d in diagnose(built(ran("apgd-margin"), *outdone))}["random_search_beats_gradient"]
    assert (found.status, "nothing stands" in found.sentence) == (status, status == "resolved")


# --- on disk


def test_rounds_are_read_back_as_written_and_a_change_is_seen(tmp_path):
    rounds = (Round(1, ("a",), ("b",), (Step("s", "pgd", "adaptive"),), early=True), Round(2, ("c",), (), ()))
    write_rounds(tmp_path, "f", rounds)
    assert read_rounds(tmp_path, "f") == rounds
    with pytest.raises(PlanMismatch, match="belongs to another plan"):
        read_rounds(tmp_path, "g")
    file = tmp_path / "rounds.json"
    file.write_text(file.read_text().replace('"pgd"', '"bim"'))
    with pytest.raises(PlanMismatch, match="was altered"):
        read_rounds(tmp_path, "f")
    file.write_text("{")
    with pytest.raises(PlanMismatch, match="cannot be read"):
        read_rounds(tmp_path, "f")


OPTIONS = {
    "suite": "adaptive", "n": 6, "eps": 2 / 255,
    "settings": [f"{s}.n_iter=2" for s in ("rescaled-ce", "float64-ce", "apgd-margin", "apgd-dlr", "apgd-t", "apgd-ce-100")]
    + ["pgd-100.steps=2", "fab-t.n_iter=2", "square.n_queries=5"],
}  # fmt: skip


@pytest.fixture
def _cheap(monkeypatch):
    """Rounds of few iterations; controls have their own test."""
    asked = execution.next_round

    def shorter(results, **options):
        found = asked(results, **options)
        fewer = {"n_iter": 2, "n_restarts": 1}
        return found and replace(found, steps=tuple(replace(s, params={**s.params, **fewer}) for s in found.steps))

    monkeypatch.setattr(execution, "next_round", shorter)
    monkeypatch.setattr(execution, "run_controls", lambda plan, device: [])
    monkeypatch.setattr(execution, "binarised", lambda plan, prepared, view: [])


@pytest.mark.usefixtures("_cheap")
@pytest.mark.slow
def test_a_resumed_run_keeps_its_rounds_and_ends_the_same(tmp_path):
    whole = runner.run("undefended", out=tmp_path / "whole", **OPTIONS)
    assert [s.name for s in whole.results.plan.steps][-1] == "doubled-2-check"
    assert whole.results.missing == 0
    stopped = runner.run("undefended", out=tmp_path / "part", budget=Budget(passes=200), **OPTIONS)
    assert stopped.results.missing > 0
    assert stopped.results.plan.rounds == ()
    assert stopped.verdict.outcome != "upheld"
    again = runner.run("undefended", out=tmp_path / "part", **OPTIONS)
    assert again.results.plan.rounds == whole.results.plan.rounds
    assert read_plan(tmp_path / "part").steps == again.results.plan.steps
    np.testing.assert_array_equal(again.results.p_worst, whole.results.p_worst)
    decided = (tmp_path / "part" / "rounds.json").read_text()
    for unit in (tmp_path / "part" / "units").glob("*doubled*"):
        unit.unlink()
    lost = tmp_path / "lost"
    shutil.copytree(tmp_path / "whole", lost)
    (lost / "rounds.json").unlink()
    with pytest.raises(PlanMismatch, match=r"ran 1 rounds, its rounds.json has 0"):
        load_run(lost)
    runner.run("undefended", out=tmp_path / "part", **OPTIONS)
    assert (tmp_path / "part" / "rounds.json").read_text() == decided
    said = json.loads((tmp_path / "part" / "plan.json").read_text())
    assert "doubled-2-check" not in [s["name"] for s in said["steps"]]  # the plan is what was asked for


class Rounded(torch.nn.Module):
    """A quantiser in the forward pass of a module that says nothing of it."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(torch.round(x * 15) / 15)


@pytest.mark.slow
def test_an_undeclared_quantiser_is_found_and_broken_by_the_rules_alone(tmp_path, monkeypatch):
    from defenses.base import NetworkDefense

    load = NetworkDefense.load
    monkeypatch.setattr(NetworkDefense, "load", lambda self, c: Rounded(load(self, c)).eval())
    monkeypatch.setattr(execution, "run_controls", lambda plan, device: [])  # these would be rounded, too
    audit = runner.run("undefended", out=tmp_path, suite="adaptive", n=24, eps="16/255", claim_robust=0.8)
    assert audit.results.named("bim-20")[0].broken.mean() < 0.2  # what cross-entropy alone finds
    assert float(audit.adaptive.accuracy) <= 0.05
    assert audit.verdict.outcome == "refuted"


def test_an_image_that_was_lost_on_most_draws_before_counts_with_what_it_lost_since():
    found = built(claimed(), ran("doubled-2", mask((0, 20))), traits=["stochastic"])
    assert gain(found.steps[1], found) == pytest.approx(0.02)
    barely = replace(found.steps[1], p_after=found.steps[0].p_after - np.float32(0.001) * mask((0, 20)))
    random = replace(found, steps=(found.steps[0], barely))
    assert gain(barely, random) == pytest.approx(0.02 * 0.001, rel=1e-3)


def test_a_comparison_that_is_resolved_says_that_its_images_were_not_attacked_again():
    ahead = ran("square", mask((30, 60)), attack="square")
    again = ran("restarts-margin", attack="apgd-margin")
    answer = [Round(1, ("ahead",), ("black_box_beats_white_box",), (again.step,))]
    results = built(claimed(), ran("apgd-margin", mask((0, 30))), ahead, control(), again)
    found = {d.name: d for d in diagnose(replace(results, plan=replace(results.plan, rounds=tuple(answer))))}
    square = found["black_box_beats_white_box"]
    assert (square.status, square.sentence.endswith("on what stood after it broke hardly more")) == ("resolved", True)
