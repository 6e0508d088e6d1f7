"""What a suite becomes for a defense with a test-time part or randomness."""

from dataclasses import replace

import pytest

from audit import registry
from audit.claimed import choose
from audit.rules import Nature, fit, omitted
from audit.suites import SUITES, steps_for

ADAPTIVE = SUITES["adaptive"].steps
PLAIN, PURIFIER = Nature(), Nature(staged=True, blind=True)
NOISE = Nature(staged=True, stochastic=True)


def adapters(step):
    return [adapter.name for adapter in step.adapters]


@pytest.mark.parametrize("suite", SUITES)
def test_a_plain_network_gets_the_suite_as_it_is(suite):
    assert fit(SUITES[suite].steps, PLAIN) == SUITES[suite].steps


def test_the_claimed_attacks_of_a_staged_defense_are_made_on_its_bare_network():
    for nature in (PURIFIER, NOISE):
        claimed = [s for s in fit(ADAPTIVE, nature) if s.suite == "claimed"]
        assert [s.name for s in claimed] == [s.name for s in ADAPTIVE if s.suite == "claimed"]
        assert all(s.transfers and s.scope == "all" for s in claimed)


@pytest.mark.parametrize("suite", ["quick", "adaptive", "full"])
def test_the_margin_attack_is_as_long_by_transfer_as_end_to_end(suite):
    fitted = {s.name: s for s in fit(SUITES[suite].steps, PURIFIER)}
    assert fitted["transfer-apgd-margin"].params == fitted["apgd-margin"].params


def test_each_short_claimed_attack_comes_again_end_to_end():
    fitted = {s.name: s for s in fit(ADAPTIVE, PURIFIER)}
    for name in ("fgsm", "bim-20", "pgd-20", "apgd-ce-100"):
        again = fitted[f"e2e-{name}"]
        assert (again.attack, again.params, again.scope) == (fitted[name].attack, fitted[name].params, "all")
        assert adapters(again) == ["bpda"]
    assert "e2e-pgd-100" not in fitted


def test_a_purifier_is_attacked_through_bpda_unrolling_transfer_and_scores():
    fitted = {s.name: s for s in fit(ADAPTIVE, PURIFIER)}
    assert adapters(fitted["rescaled-ce"]) == ["bpda", "rescale"]
    assert adapters(fitted["unroll-margin"]) == ["unroll"]
    assert fitted["transfer-apgd-margin"].transfers
    assert (
        fitted["transfer-apgd-margin"].scope == "all"
    )  # so the family of the strongest attack has its three rows, too
    assert adapters(fitted["square"]) == []
    assert adapters(fitted["unbounded"]) == ["bpda"]


def test_noise_is_averaged_outermost_and_the_dearest_steps_go():
    fitted = {s.name: s for s in fit(ADAPTIVE, NOISE)}
    assert adapters(fitted["rescaled-ce"]) == ["rescale", "eot"]
    assert adapters(fitted["e2e-fgsm"]) == ["eot"]
    assert dict(fitted["apgd-margin"].adapters[0].params)["k"] == 10
    assert not {"float64-ce", "apgd-t", "fab-t", "unroll-margin"} & set(fitted)
    assert fitted["square"].params == {"n_queries": 1000, "rescale": 1}  # patches shrink over the queries there are


def test_a_claimed_targeted_attack_on_noise_comes_again_on_a_few_survivors():
    steps = fit(steps_for("adaptive", "co_noise"), NOISE)
    names = [s.name for s in steps]
    again = steps[names.index("e2e-claimed-apgd-t")]
    assert (again.attack, again.scope, again.limit, adapters(again)) == ("apgd-t", "survivors", 5, ["eot"])
    assert names.index("apgd-margin") < names.index("e2e-claimed-apgd-t") < names.index("square")
    late = [s.late for s in steps]
    assert late == sorted(late)  # what is late stays last
    assert "e2e-claimed-apgd-t" not in {
        s.name for s in fit(steps_for("adaptive", "tpap"), PURIFIER)
    }  # the suite's own runs
    assert "e2e-claimed-apgd-t" not in {s.name for s in fit(steps_for("claimed", "co_noise"), NOISE)}


@pytest.mark.parametrize("nature", [PLAIN, PURIFIER, NOISE, Nature(stochastic=True), Nature(staged=True)])
@pytest.mark.parametrize("suite", SUITES)
def test_every_step_of_a_suite_is_run_or_said_to_be_left_out(suite, nature):
    steps = SUITES[suite].steps
    ran, said = {s.name for s in fit(steps, nature)}, omitted(steps, nature)
    for step in steps:
        named = any(sentence.startswith(f"step {step.name} is left out: too dear") for sentence in said)
        assert named != (step.name in ran), step.name


def test_a_purifier_gets_the_whole_of_autoattack_and_noise_what_it_can_bear():
    steps = SUITES["standard"].steps
    whole = [s for s in fit(steps, PURIFIER) if s.suite == "standard" and not s.transfers]
    assert [s.name for s in whole] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert "n_queries" not in whole[-1].params
    assert omitted(steps, NOISE) == [
        f"step {name} is left out: too dear through averaged draws" for name in ("apgd-t", "fab-t")
    ]
    assert "step fab-t is left out: too dear through a purifier" in omitted(ADAPTIVE, PURIFIER)


def test_who_types_autoattack_gets_its_parts_end_to_end_before_anything_else():
    """So what its last part leaves is AutoAttack's figure; behind them comes what a test-time part asks for."""
    for suite in ("standard", "plus", "rand"):
        for nature in (PURIFIER, NOISE, replace(NOISE, blind=True)):
            steps = SUITES[suite].steps
            fitted, left_out = fit(steps, nature), len(omitted(steps, replace(nature, unrolls=True)))
            own = [s for s in fitted if s.suite == suite and not s.transfers]
            assert len(own) == len(steps) - left_out
            assert list(fitted[: len(own)]) == own
            added = [s.name for s in fitted[len(own) :]]
            assert added[: len(own)] == [f"transfer-{s.name}" for s in sorted(own, key=lambda s: s.attack == "square")]
            blind = {"unroll-margin"} | ({"square-1000"} if suite == "rand" else set())
            assert {s.name for s in fitted if s.suite != suite and not s.transfers} == (
                blind if nature.blind else set()
            )


@pytest.mark.parametrize("suite", sorted(set(SUITES) - {"claimed"}))
def test_a_purifier_meets_bpda_unrolling_transfer_and_square_in_every_suite(suite):
    fitted = fit(SUITES[suite].steps, PURIFIER)
    ways = {name for s in fitted for name in adapters(s)}
    assert {"bpda", "unroll", "base"} <= ways
    (square,) = (s for s in fitted if s.attack == "square" and not s.transfers)
    assert adapters(square) == []


STAGED = [PURIFIER, NOISE, Nature(staged=True), replace(NOISE, blind=True)]


@pytest.mark.parametrize("nature", STAGED)
@pytest.mark.parametrize("defense", ["tpap", "co_noise", "undefended"])
@pytest.mark.parametrize("suite", sorted(set(SUITES) - {"claimed"}))
def test_each_family_that_goes_end_to_end_goes_by_transfer_too(suite, defense, nature):
    fitted = fit(steps_for(suite, defense), nature)
    counted = [s for s in fitted if s.scope != "control"]
    whole = {s.attack for s in counted if not s.transfers} - {"transfer"}
    grey = [s for s in counted if s.transfers]
    assert whole == {s.attack for s in grey}
    assert all(s.scope == "all" for s in grey)  # else it has no row
    assert not any({"bpda", "eot", "unroll"} & set(adapters(s)) for s in grey)
    late = [s.late for s in fitted]
    assert late == sorted(late) or suite not in ("quick", "adaptive", "diagnose")
    for step in grey:
        places = [s.name for s in fitted]
        assert all(places.index(name) < places.index(step.name) for name in step.after)


def test_a_claimed_square_is_the_square_of_a_purifier_in_suite_quick():
    for attack, names in (
        ("square-5000", ["e2e-square-5000"]),
        ("autoattack", ["square-1000"]),
        ("pgd-7", ["square-1000"]),
    ):
        fitted = fit(choose("quick", "tpap", "cifar10", "Linf", attack=attack).steps, PURIFIER)
        assert [s.name for s in fitted if s.attack == "square" and not s.transfers] == names


def test_without_an_unrolled_version_autoattack_gets_no_margin_attack_by_transfer():
    """There would be nothing end to end beside it."""
    for suite, there in (("standard", False), ("adaptive", True)):
        fitted = fit(SUITES[suite].steps, replace(PURIFIER, unrolls=False))
        assert ("transfer-apgd-margin" in {s.name for s in fitted}) is there


def test_images_of_a_surrogate_that_a_claim_names_are_made_once():
    fitted = fit(choose("adaptive", "tpap", "cifar10", "Linf", attack="transfer").steps, PURIFIER)
    assert [(s.name, s.transfers) for s in fitted if s.attack == "transfer"] == [("claimed-transfer", True)]


def test_images_by_transfer_are_all_but_for_what_is_dear():
    fitted = {s.name: s for s in fit(steps_for("adaptive", "co_noise"), NOISE)}
    beside = fitted["transfer-rescaled-ce"]
    assert (adapters(beside), beside.attack, beside.after) == (["base", "rescale"], "apgd-ce", ())
    square, points = fitted["transfer-square"], fitted["transfer-random-search"]
    assert (square.params, square.late) == (fitted["square"].params, True)
    assert (points.limit, fitted["random-search"].limit) == (None, 100)
    assert square.after == points.after == ()
    whole = {s.name: s for s in fit(SUITES["full"].steps, PURIFIER)}
    assert whole["transfer-mi-fgsm"].after == whole["transfer-fwa"].after == ()
    assert (whole["transfer-spsa"].limit, whole["spsa"].limit) == (50, 50)
    every = [s.name for s in whole.values() if s.transfers and s.limit is None]
    assert whole["transfer-spsa"].after == tuple(every[: every.index("transfer-square") + 1])
    assert list(whole).index("transfer-random-search") > list(whole).index("square")  # scores behind gradients
    pgd = next(s for s in fit(SUITES["full"].steps, NOISE) if s.name == "transfer-eot-pgd")
    assert (adapters(pgd), pgd.params["eot_iter"]) == (["base"], 1)  # no draws to average
    parts = {s.name: s.after for s in fit(SUITES["standard"].steps, PURIFIER) if s.transfers}
    assert parts["transfer-fab-t"] == ("transfer-apgd-ce", "transfer-apgd-t")
    assert parts["transfer-square"] == ("transfer-apgd-ce", "transfer-apgd-t", "transfer-fab-t")


def test_a_claimed_attack_that_is_too_dear_end_to_end_comes_on_a_few_survivors():
    for suite, defense, nature, name in (
        ("quick", "tpap", PURIFIER, "e2e-claimed-apgd-t"), ("diagnose", "co_noise", NOISE, "e2e-claimed-apgd-t"),
    ):  # fmt: skip
        fitted = {s.name: s for s in fit((*steps_for("claimed", defense), *SUITES[suite].steps[3:]), nature)}
        assert (fitted[name].scope, fitted[name].limit, fitted[name].transfers) == ("survivors", 5, False)


def test_the_later_parts_of_a_claimed_autoattack_are_repeated_end_to_end_on_a_few_where_no_suite_has_them():
    steps = choose("adaptive", "tpap", "cifar10", "Linf", attack="autoattack").steps
    for nature in (PURIFIER, NOISE):
        fitted = {s.name: s for s in fit(steps, nature)}
        assert fitted["claimed-square"].after == ("apgd-ce-100", "claimed-apgd-t", "claimed-fab-t")
        assert fitted["claimed-square"].transfers
        assert nature == NOISE or fitted["e2e-apgd-ce-100"].after == ()
        again = {"e2e-claimed-fab-t"} | ({"e2e-claimed-apgd-t"} if nature == NOISE else set())
        assert {name for name in fitted if name.startswith("e2e-claimed")} == again
        assert all((fitted[name].limit, fitted[name].after) == (5, ()) for name in again)


def test_a_shortened_square_says_how_long_it_is_and_a_claimed_one_stays():
    suite = {s.name: s for s in fit(ADAPTIVE, NOISE)}
    assert suite["square"].why == "no gradient at all, 1,000 queries"
    for nature in (PURIFIER, NOISE):
        fitted = {
            s.name: s for s in fit(choose("adaptive", "tpap", "cifar10", "Linf", attack="square-5000").steps, nature)
        }
        assert fitted["e2e-square-5000"].params == fitted["square-5000"].params == {"n_queries": 5000}


def test_an_attack_that_averages_by_itself_is_not_averaged_again():
    for nature in (NOISE, Nature(stochastic=True), replace(NOISE, blind=True)):
        steps = choose("adaptive", "co_noise", "cifar10", "Linf", attack="eot-pgd").steps
        again = next(s for s in fit(steps, nature) if s.name == "e2e-claimed-eot-pgd")
        assert "eot" not in adapters(again)


@pytest.mark.parametrize("nature", [NOISE, Nature(stochastic=True), Nature(staged=True, stochastic=True, blind=True)])
def test_suite_full_tries_eot_pgd_on_what_is_random_and_on_nothing_else(nature):
    fitted = fit(SUITES["full"].steps, nature)
    (found,) = (s for s in fitted if s.attack == "eot-pgd" and not s.transfers)
    assert "eot" not in adapters(found)
    assert (("bpda" in adapters(found)), found.scope) == (nature.blind, "survivors")
    assert fitted.index(found) < [s.name for s in fitted].index("a3")
    for other, suite in ((PLAIN, "full"), (PURIFIER, "full"), (nature, "adaptive"), (nature, "standard")):
        assert "eot-pgd" not in {s.attack for s in fit(SUITES[suite].steps, other)}


def test_randomness_without_a_bare_network_is_averaged_everywhere():
    fitted = fit(ADAPTIVE, Nature(stochastic=True))
    claimed = [s for s in fitted if s.suite == "claimed"]
    assert claimed == [s for s in ADAPTIVE if s.suite == "claimed"]  # as they were claimed, and once more:
    assert {"e2e-fgsm", "e2e-bim-20", "e2e-pgd-20"} <= {s.name for s in fitted}
    assert all(adapters(s)[-1] == "eot" for s in fitted if s.suite != "claimed")
    assert not any(s.transfers for s in fitted)


@pytest.mark.parametrize("nature", [PLAIN, PURIFIER, NOISE, Nature(stochastic=True)])
def test_rand_averages_once_over_its_own_20_draws(nature):
    fitted = [s for s in fit(SUITES["rand"].steps, nature) if s.suite == "rand" and not s.transfers]
    assert [s.name for s in fitted] == ["apgd-ce", "apgd-dlr"]
    for step in fitted:
        assert [a.params["k"] for a in step.adapters if a.name == "eot"] == [20]
        assert step.adapters[-1].name == "eot"  # it needs the labels


def test_claims_alone_stay_claims_alone():
    fitted = fit(SUITES["claimed"].steps, PURIFIER)
    assert len(fitted) == len(SUITES["claimed"].steps)
    assert all(s.transfers for s in fitted)


def test_step_names_are_unique_and_every_adapter_and_attack_is_known():
    for defense in ("super_fitting", "tpap", "co_noise", "sim_adv"):
        for suite in SUITES:
            for nature in (PLAIN, PURIFIER, NOISE, Nature(stochastic=True)):
                steps = fit(steps_for(suite, defense), nature)
                assert len({s.name for s in steps}) == len(steps)
                assert {a for s in steps for a in adapters(s)} <= set(registry.adapters.names())
                assert {s.attack for s in steps} <= set(registry.attacks.names())


def test_nature_is_read_from_traits_and_from_drift():
    assert Nature.of(["stochastic"], staged=True, drift=0.0) == NOISE
    assert Nature.of([], staged=False, drift=0.01).stochastic
    assert not Nature.of([], staged=False, drift=1e-5).stochastic
    assert Nature.of(["nondifferentiable"], staged=True, drift=0.0) == PURIFIER
    assert Nature.of(["test_time_optimisation"], staged=False, drift=0.0) == PLAIN  # nothing to look past


def test_each_paper_brings_its_own_claimed_attacks():
    assert [s.name for s in steps_for("claimed", "sim_adv")] == ["fgsm", "bim-40", "madry-40"]
    assert [s.name for s in steps_for("claimed", "tpap")][:2] == ["fgsm", "pgd-20"]
    assert steps_for("claimed", "undefended") == SUITES["claimed"].steps
    assert steps_for("standard", "tpap") == SUITES["standard"].steps
