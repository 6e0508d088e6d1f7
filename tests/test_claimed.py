"""From what a claim names to the steps that run it, and what is said of those that none runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from audit import papers, registry
from audit.claim_lines import borrowed, lines
from audit.claimed import choose, runnable, typed
from audit.claims import (
    Asked,
    boundless_claims,
    chosen_line,
    meant,
    own_claims,
    printed_claims,
    radius,
    stated_claim,
    told_claims,
)
from audit.errors import BadInput, UnknownName, Unsupported
from audit.papers import find
from audit.preparation import prepare
from audit.suites import CLAIMED_BY, CLAIMED_STEPS, SUITES, steps_for
from audit.types import ThreatModel


def names(steps):
    return [step.name for step in steps]


def test_the_claimed_suite_runs_what_the_papers_claims_name():
    assert choose("claimed", "sim_adv", "fashion_mnist", "Linf").steps == CLAIMED_BY["sim_adv"]
    found = choose("claimed", "super_fitting", "fashion_mnist", "Linf")
    assert found.steps[:5] == CLAIMED_STEPS
    assert names(choose("claimed", "tpap", "cifar10", "Linf").steps) == [
        "fgsm", "pgd-20", "fwa-20", "ti-dim-20", "pgd-100", *FOUR, "claimed-st-adv",
    ]  # fmt: skip
    steps = choose("claimed", "co_noise", "fashion_mnist", "Linf").steps
    assert [s for s in names(steps) if s.startswith("pgd")] == ["pgd-10", "pgd-20", "pgd-50"]
    assert {s.params["rel_stepsize"] for s in steps if s.attack == "pgd"} == {0.125}


def test_the_claims_for_the_data_set_at_hand_come_first():
    cifar = choose("claimed", "sim_adv", "cifar10", "Linf").steps
    assert [(s.name, s.params.get("rel_stepsize")) for s in cifar] == [
        ("fgsm", None),
        ("bim-20", 0.25),
        ("pgd-20", 0.25),
    ]
    every = choose("claimed", "sim_adv", "svhn", "Linf").steps  # no claim is for it: all of them
    assert {s.name for s in every} >= {"bim-40", "madry-40", "bim-20"}


def test_what_the_adaptive_suite_runs_as_claimed_is_in_the_data():
    for defense, steps in {**CLAIMED_BY, "super_fitting": CLAIMED_STEPS}.items():
        ran = [(s.attack, s.params) for s in choose("claimed", defense, "fashion_mnist", "Linf").steps]
        assert all((step.attack, step.params) in ran for step in steps), defense


def test_what_cannot_run_is_said():
    said = choose("claimed", "tpap", "fashion_mnist", "Linf").left_out
    assert "the attack of claim tpap-t2-r1-cw2 is left out: it is for L2, this run for Linf" in said
    assert not any("AutoAttack" in sentence for sentence in said)
    said = choose("claimed", "pgd_at", "mnist", "Linf").left_out
    assert "the attack of claim yopo-t1-r1-cw is left out: it does not say which C&W attack" in said
    assert "the attack of claim madry-t1-r7-targeted is left out: it does not say towards which class" in said


def test_lines_that_name_no_step_are_counted_by_kind():
    said = choose("claimed", "pgd_at", "cifar10", "Linf").left_out
    assert [sentence for sentence in said if "more are" in sentence] == [
        "claim madry-t2-r6-fgsm and 4 more are left out: images made on another network; `--claim madry-t2-r6-fgsm` says how "
        "to bring one",
        "the transferred images of claim mma-t1-r1-pgd-4 and 31 more are left out: made on networks that are not at hand; only "
        "white-box images are tried",
    ]
    said = choose("claimed", "undefended", "mnist", "Linf").left_out
    assert "claim tisode-t1-r1-gauss50 and 5 more are left out: random noise in no ball, which is no attack" in said
    assert any(sentence.startswith("claim cw-t4-r1-average-mnist-prob and 15 more are left out") for sentence in said)
    assert not any("more are" in said for said in choose("claimed", "tpap", "cifar10", "Linf").left_out)
    assert choose("adaptive", "pgd_at", "cifar10", "Linf").left_out == ()


FOUR = ["apgd-ce-100", "claimed-apgd-t", "claimed-fab-t", "claimed-square"]


def test_autoattack_is_its_four_parts_each_on_what_those_before_it_left():
    line = find("tpap-t2-r1-aa")
    for steps in (
        choose("claimed", "tpap", "cifar10", "Linf").steps,
        choose("adaptive", "tpap", "cifar10", "Linf", line=line).steps,
        choose("claimed", "tpap", "cifar10", "Linf", line=line).steps,
        choose("claimed", "undefended", "fashion_mnist", "Linf", attack="autoattack").steps,
        typed("autoattack", "undefended"),
    ):
        parts = [s for s in steps if s.name in FOUR]
        assert names(parts) == FOUR
        assert [s.attack for s in parts] == ["apgd-ce", "apgd-t", "fab-t", "square"]
        assert [s.after for s in parts] == [tuple(FOUR[:n]) for n in range(4)]
        assert {(s.suite, s.scope) for s in parts} == {("claimed", "all")}
        assert [s.params for s in parts] == [{"n_iter": 100}, {}, {}, {}]  # the standard ones are the defaults
    assert not any(s.after for s in choose("adaptive", "tpap", "cifar10", "Linf").steps)  # it has dearer parts itself


def test_a_claimed_autoattack_takes_more_restarts_and_fewer_targets_under_L1():
    steps = choose("adaptive", "undefended", "fashion_mnist", "L1", attack="autoattack").steps
    parts = {s.attack: s for s in steps if s.suite == "claimed" and s.why != "Auto-PGD on CE, 100 iterations"}
    assert parts["apgd-ce"].params == {"n_iter": 100, "n_restarts": 5}
    assert parts["apgd-t"].params == {"n_target_classes": 5}
    assert (parts["fab-t"].params, parts["square"].params) == ({}, {})
    assert parts["square"].after == (parts["apgd-ce"].name, "claimed-apgd-t", "claimed-fab-t")


def test_a_part_that_is_claimed_by_itself_too_runs_on_every_image():
    steps = {s.name: s for s in choose("claimed", "co_noise", "fashion_mnist", "Linf").steps}
    assert steps["claimed-apgd-t"].after == ()
    assert steps["claimed-square"].after == tuple(FOUR[:3])
    steps = choose("adaptive", "co_noise", "fashion_mnist", "Linf", attack="autoattack").steps
    assert {s.name: s.after for s in steps}["claimed-fab-t"] == tuple(FOUR[:2])


def test_a_norm_that_no_claimed_attack_runs_under_is_answered_with_what_to_type():
    with pytest.raises(Unsupported) as said:
        choose("claimed", "sim_adv", "fashion_mnist", "L2")
    assert str(said.value) == (
        "the claims on sim_adv name no attack that runs under L2, this suite's are for Linf; "
        "type --norm Linf, or --suite adaptive --norm L2"
    )
    assert names(choose("claimed", "sim_adv", "fashion_mnist", "L2", attack="cw-l2").steps)[-1] == "claimed-cw-l2"


def test_other_suites_and_other_defenses_stay_as_they_are():
    for suite in ("quick", "adaptive", "standard"):
        assert choose(suite, "tpap", "cifar10", "Linf").steps == steps_for(suite, "tpap")
    assert choose("claimed", "nothing printed", "cifar10", "Linf").steps == SUITES["claimed"].steps
    with pytest.raises(UnknownName, match="unknown suite"):
        choose("claimd", "tpap", "cifar10", "Linf")


@pytest.mark.parametrize(
    ("defense", "dataset", "norm", "expected"),
    [
        ("distillation", "fashion_mnist", "Linf", ["fgsm", "bim-20", "cw-linf"]),
        ("distillation", "fashion_mnist", "L2", ["claimed-cw-l2"]),
        (
            "pgd_at",
            "cifar10",
            "Linf",
            [
                "fgsm",
                "pgd-7",
                *(
                    f"pgd{loss}-{n}"
                    for n, loss in (
                        (20, ""),
                        (20, "-margin"),
                        (30, "-margin"),
                        (100, ""),
                        (100, "-margin"),
                        (200, "-margin"),
                    )
                ),
            ],
        ),
        (
            "pgd_at",
            "mnist",
            "Linf",
            ["fgsm", "pgd-40", "pgd-40-2", "pgd-margin-40", "pgd-margin-40-2", "pgd-100", "pgd-100-2"],
        ),
        ("trades", "cifar10", "Linf", ["pgd-100", "apgd-ce-100", "claimed-a3"]),
        ("undefended", "mnist", "Linf", ["fgsm", "bim-40", "pgd-40", "cw-linf"]),
        ("undefended", "mnist", "L2", ["claimed-cw-l2", "claimed-deepfool"]),
    ],
)
def test_claims_of_others_about_a_defense_name_its_attacks_too(defense, dataset, norm, expected):
    assert names(choose("claimed", defense, dataset, norm).steps) == expected


def test_a_claim_can_run_or_it_is_known_why_not():
    refused = {}
    for line in papers.all_claims():
        if line.judged() is not None and line.knowledge in ("white", "grey", ""):
            try:
                runnable(line)
            except BadInput as error:
                refused[line.id] = str(error)
    assert {name.rpartition("-r")[0] for name in refused if "-accuracy" in name} <= {
        "obfuscated-t1"
    }  # each an own attack
    rest = [said for name, said in refused.items() if not name.startswith("obfuscated")]
    assert rest == [refused["madry-t1-r7-targeted"]]
    assert not any(line.attack == "cw" and not line.id.startswith("yopo") for line in papers.all_claims())


def test_where_no_claimed_attack_can_run_the_suite_stays_and_says_why():
    found = choose("claimed", "pgd_at", "cifar10", "L2")
    assert found.steps == SUITES["claimed"].steps
    assert sum("is left out: it is for Linf, this run for L2" in said for said in found.left_out) == 5
    assert found.left_out[-1].startswith(
        "no printed claim on pgd_at names an attack for every image under L2: the suite's"
    )


def test_attacks_stand_in_only_where_none_of_the_claims_can_run_and_that_is_said():
    dear = choose("claimed", "distillation", "mnist", "Linf")
    assert names(dear.steps)[:-1] == names(CLAIMED_STEPS)
    assert "the suite's own claimed attacks stand in" in dear.left_out[-1]
    for defense, dataset in (("tpap", "cifar10"), ("nothing printed", "cifar10"), ("pgd_at", "mnist")):
        assert not any("stand in" in said for said in choose("claimed", defense, dataset, "Linf").left_out)


@pytest.mark.parametrize(("norm", "attack", "images"), [("Linf", "cw-linf", 20), ("L0", "cw-l0", 50)])
def test_a_dear_claimed_attack_runs_on_few_images_and_not_for_the_claimed_figure(norm, attack, images):
    """As a claimed step it would pass for one that has tried every image (`Results.survives_claimed`)."""
    found = choose("claimed", "distillation", "mnist", norm)
    (step,) = (s for s in found.steps if s.attack == attack)
    assert (step.suite, step.scope, step.limit) == ("full", "survivors", images)
    assert step.why.endswith(f"too dear for every image: {images} of them, for the worst case alone")
    usual = registry.attacks.load(attack).defaults  # not what suite full has time for
    assert all(usual[option] == value for option, value in step.params.items())
    assert not any(attack in said for said in found.left_out)


@pytest.mark.parametrize("defense", papers.defenses())
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_claimed_steps_are_few_sorted_and_of_the_norm(defense, norm):
    if (defense, norm) == ("sim_adv", "L2"):
        with pytest.raises(Unsupported, match="name no attack that runs under L2"):
            choose("claimed", defense, "cifar10", norm)
        return
    chosen = choose("claimed", defense, "cifar10", norm)
    steps = chosen.steps
    assert len(set(names(steps))) == len(steps)
    steps = tuple(step for step in steps if step.suite == "claimed")
    assert 0 < len(steps) <= 10
    lengths = [s.params.get("steps", s.params.get("n_iter", 1 if s.attack == "fgsm" else 10**6)) for s in steps]
    assert lengths == sorted(lengths)
    fits = [norm in registry.attacks.load(s.attack).norms for s in steps]
    stand_in = any("the suite's own claimed attacks stand in" in said for said in chosen.left_out)
    stand_in |= not lines(defense, "cifar10")  # clean accuracies alone are printed
    assert any(fits) if stand_in else all(fits)  # of those that stand in, a run leaves out what does not fit


@pytest.mark.parametrize(
    ("text", "attack", "params"),
    [
        ("pgd-100", "pgd", {"steps": 100, "rel_stepsize": 0.1}),
        ("pgd-7", "pgd", {"steps": 7, "rel_stepsize": 0.1}),
        ("apgd-ce-30", "apgd-ce", {"n_iter": 30}),
        ("square-50", "square", {"n_queries": 50}),
        ("cw-linf-2000", "cw-linf", {"queries": 2000}),
        ("random-search-500", "random-search", {"n_draws": 500}),
        ("fab-t", "fab-t", {}),
        ("fgsm", "fgsm", {}),
    ],
)
def test_a_typed_attack_joins_the_claimed_ones(text, attack, params):
    (step,) = typed(text, "undefended")
    assert (step.attack, step.suite, step.scope, step.params) == (attack, "claimed", "all", params)
    steps = choose("adaptive", "undefended", "fashion_mnist", "Linf", attack=text).steps
    assert len(set(names(steps))) == len(steps)
    claimed = [s for s in steps if s.suite == "claimed"]
    assert steps[: len(claimed)] == tuple(claimed)
    assert sum((s.attack, s.params) == (attack, params) for s in claimed) == 1


def test_a_typed_step_of_another_length_has_a_name_of_its_own():
    steps = choose("claimed", "sim_adv", "svhn", "Linf").steps
    assert len(set(names(steps))) == len(steps)
    assert typed("madry-40", "sim_adv") == (CLAIMED_BY["sim_adv"][2],)


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        ("pdg-100", UnknownName, r"names attack 'pdg-100'.*pgd-100"),
        ("fgsm-5", BadInput, "fgsm has no length; type --claim-attack fgsm"),
        ("pgd-0", UnknownName, "did you mean 'pgd'"),
        ("pgdd-100", UnknownName, "did you mean 'pgd'"),
        ("apgd-100", UnknownName, "did you mean 'apgd-ce' or"),
    ],
)
def test_a_typed_attack_that_is_none_is_refused(text, kind, sentence):
    with pytest.raises(kind, match=sentence):
        typed(text, "undefended")


@pytest.mark.parametrize("attack", ["hopskipjump", "boundary", "cw-linf"])
def test_the_length_of_what_counts_queries_is_queries(attack):
    assert typed(f"{attack}-1000", "undefended")[0].params == {"queries": 1000}


def test_tpaps_steps_are_those_of_its_public_code():
    assert find("tpap-t2-r1-pgd20").params["rel_stepsize"] * 8 / 255 == pytest.approx(0.003, rel=0.001)
    assert find("tpap-t2-r1-pgd100").params["rel_stepsize"] * 8 / 255 == pytest.approx(0.0007, rel=0.001)
    assert find("tpap-t2-r1-ddn").params == {"steps": 20}
    assert find("tpap-t2-r1-cw2").params == find("tpap-t7-r3-cw2").params == {"steps": 10, "search_steps": 4}
    assert find("tpap-t2-r1-ti-dim").params == {
        "steps": 20, "rel_stepsize": 0.0956, "diversity_prob": 0.5, "len_kernel": 1,
    }  # fmt: skip
    budget = find("tpap-t2-r2-fwa").params["budget"]
    assert budget == pytest.approx(8 / 255, rel=0.001)
    assert find("tpap-t2-r2-fwa").params == {"steps": 20, "budget": budget, "blur": 0.003, "loss": "ce"}
    assert "public code" in find("tpap-t2-r1-pgd100").note
    assert "the paper says white-box" in find("tpap-t2-r1-aa").note
    assert "inferred" in find("co-t4-r1-aa").note


@pytest.mark.parametrize(
    ("typed_defense", "typed_dataset", "expected"),
    [(None, None, ("sim_adv", "fashion_mnist")), ("sim_adv", None, ("sim_adv", "fashion_mnist")),
     (None, "mnist", ("sim_adv", "mnist")), ("tpap", "mnist", ("tpap", "mnist"))],
)  # fmt: skip
def test_a_line_names_the_defense_and_the_data_set_that_are_not_typed(typed_defense, typed_dataset, expected):
    assert meant("sim-t3-r7-sim", typed_defense, typed_dataset, at_hand=False) == expected


def test_a_line_whose_weights_are_not_shipped_says_what_to_type():
    with pytest.raises(BadInput) as said:
        meant("tpap-t2-r1-pgd20", None, None, at_hand=False)
    assert str(said.value) == (
        "claim tpap-t2-r1-pgd20 is for tpap on cifar10, for which no weights are shipped; type --weights FILE, or "
        "--dataset fashion_mnist --defense tpap --claim-robust 0.7906 --claim-attack pgd-20"
    )
    assert meant("tpap-t2-r1-pgd20", None, None, at_hand=True) == ("tpap", "cifar10")
    assert meant(None, None, None, at_hand=False) == (None, None)


@pytest.mark.parametrize("line", [c for c in papers.all_claims() if "cannot be run" in c.note], ids=lambda c: c.id)
def test_a_line_that_no_attack_fits_is_refused_first_and_says_why(line):
    """Not with the weights that are missing, of which the user could bring some in vain."""
    with pytest.raises(BadInput) as said:
        meant(line.id, None, None, at_hand=False)
    reason = "which C&W attack" if line.attack == "cw" else "towards which class"
    assert reason in str(said.value)
    assert "--weights" not in str(said.value)


def test_the_lines_that_no_attack_fits_are_marked_in_the_data():
    marked = {c.id for c in papers.all_claims() if "cannot be run" in c.note}
    assert marked == {c.id for c in papers.all_claims() if c.attack == "cw" or "targeted" in c.params}
    assert len(marked) == 10


def test_a_run_of_a_line_alone_is_for_its_defense_and_data_set():
    plan = prepare(claim="sim-t3-r7-sim", suite="claimed", n=4, device="cpu").plan
    assert (plan.identity["defense"], plan.identity["dataset"]) == ("sim_adv", "fashion_mnist")


def test_only_a_step_of_the_very_name_is_a_twin():
    """pgd-100 begins like pgd-10."""
    assert "pgd-10" in names(choose("claimed", "pgd_at", "mnist", "Linf", attack="pgd-10").steps)
    assert "pgd-10-3" not in names(choose("claimed", "pgd_at", "mnist", "Linf", attack="pgd-10").steps)


@pytest.mark.parametrize("suite", ["quick", "claimed"])
def test_a_typed_attack_that_cannot_run_under_the_norm_is_refused(suite):
    with pytest.raises(Unsupported) as said:
        choose(suite, "undefended", "fashion_mnist", "Linf", attack="cw-l2")
    assert str(said.value) == (
        "--claim-attack cw-l2 is for L2, this run for Linf; type --norm L2, or another --claim-attack"
    )


def test_a_line_brings_its_own_attack_and_no_other():
    steps = choose("adaptive", "sim_adv", "fashion_mnist", "Linf", line=find("sim-t3-r7-sim")).steps
    assert names(s for s in steps if s.suite == "claimed") == ["bim-40"]
    assert [s for s in steps if s.suite != "claimed"] == [s for s in SUITES["adaptive"].steps if s.suite != "claimed"]
    found = choose("claimed", "tpap", "cifar10", "Linf", line=find("tpap-t2-r1-aa"))
    assert (names(found.steps), found.left_out) == (FOUR, ())
    with pytest.raises(BadInput, match=r"does not say which C&W attack.*type --claim-robust 0.5977"):
        runnable(find("yopo-t2-r5-cw"))


@pytest.mark.parametrize(
    ("line", "defense", "dataset", "sentence"),
    [
        ("tpap-t2-r1-pgd20", "co_noise", "cifar10", r"is for defense tpap, this run for co_noise; type --defense tpap"),
        ("tpap-t2-r1-pgd20", "tpap", "fashion_mnist", r"type --dataset cifar10, or .* --claim-robust 0.7906 --claim-attack pgd-20"),
        ("tpap-t2-r1-clean", "tpap", "cifar10", "is clean accuracy 86.25; expected a robust accuracy in a ball of known radius"),
        ("super-t3-r1-a3", "super_fitting", "fashion_mnist", "--claim-attack a3 --set claimed-a3.loss=ce"),
        ("sim-t3-r11-sim", "sim_adv", "mnist", r"--claim-attack bim-20 --set bim-20.rel_stepsize=0.25"),
        ("co-t5-r20-cw", "co_noise", "mnist", r"--claim-robust 0.6165 --claim-attack pgd-margin$"),
        ("madry-t1-r6-pgd", "pgd_at", "cifar10", r"--claim-attack pgd-100 --set pgd-100.restarts=20"),
        ("madry-t1-r9-cwplus", "pgd_at", "cifar10", r"--set pgd-margin-40.kappa=50"),
        ("madry-t1-r7-targeted", "pgd_at", "cifar10", r"--claim-robust 0.927$"),
        ("tpap-t2-r1-cw2", "tpap", "cifar10", "eps not printed.*--eps 10 --suite claimed --claim-attack cw-l2-10 --set cw-l2-10.search_steps=4 shows"),
        ("madry-t2-r7-pgd", "pgd_at", "cifar10", r"transfer attacker.*--claim-robust 0.642 --claim-attack transfer --eps 8/255 "
         "--set claimed-transfer.surrogate=MODEL --set claimed-transfer.by=pgd"),
        ("cw-t4-r4-average-mnist-mean", "undefended", "mnist", "--claim-attack cw-l2 --set claimed-cw-l2.target=random shows"),
        ("cw-t4-r1-worst-mnist-mean", "undefended", "mnist", "very model; type `python -m audit list claims"),
        ("yopo-t2-r1-pgd20", "pgd_at", "cifar10", "--claim-robust 0.3251 --claim-attack pgd-20 --norm Linf --eps RADIUS"),
        ("tpap-t2-r1-pgd2", "tpap", "cifar10", "did you mean 'tpap-t2-r1-pgd20'"),
    ],
)  # fmt: skip
def test_a_line_that_does_not_fit_the_run_is_refused(line, defense, dataset, sentence):
    with pytest.raises(BadInput, match=sentence):
        chosen_line(line, defense, dataset, None)


def test_a_line_is_not_for_images_of_ones_own():
    with pytest.raises(BadInput, match=r"this run for images of your own; leave out --data and type --dataset cifar10"):
        chosen_line("tpap-t2-r1-pgd20", "tpap", "cifar10", None, own_images=True)


def test_a_line_gives_the_radius_and_refuses_another():
    line = chosen_line("sim-t3-r7-sim", "sim_adv", "fashion_mnist", None)
    assert radius(line, None, "Linf") == radius(line, "0.2", "Linf") == 0.2
    assert (radius(None, None, "Linf"), radius(None, "8/255", "L2")) == (None, "8/255")
    with pytest.raises(BadInput, match=r"is for eps 0.2, this run for 8/255; type --eps 0.2"):
        radius(line, "8/255", "Linf")
    with pytest.raises(BadInput, match="type --norm Linf"):
        radius(line, None, "L2")
    with pytest.raises(BadInput, match="two claims, expected one"):
        chosen_line("sim-t3-r7-sim", "sim_adv", "fashion_mnist", 0.5)


def test_what_is_held_against_a_model():
    sim, threat = registry.defenses.load("sim_adv"), ThreatModel("Linf", 0.2)
    lenet, half = (SimpleNamespace(architecture={"name": "lenet", "width": width}) for width in (1.0, 0.5))

    def stated(checkpoint, asked=Asked(), own_images=False):  # noqa: B008
        return stated_claim(asked, sim, "fashion_mnist", checkpoint, threat, own_images=own_images)

    assert {c.attack for c in printed_claims(sim, "fashion_mnist", lenet, threat)} == {"fgsm", "bim-40", "pgd-40"}
    assert (stated(lenet).attack, stated(lenet).robust_acc) == (
        "bim-40",
        0.6107,
    )  # the paper's lowest: Table 4, the learning rate of the zoo's checkpoint
    assert stated(half) is stated(lenet, own_images=True) is None
    line = Asked(line=find("sim-t3-r6-sim"))
    assert (stated(lenet, line).attack, stated(lenet, line).basis) == ("fgsm", "paper")
    with pytest.raises(
        BadInput, match=r"is for network lenet of width 1.0, this run for lenet of width 0.5; type --weights"
    ):
        stated(half, line)
    typed_one = stated(half, Asked(robust=0.9, attack="pgd-100"))
    assert (typed_one.robust_acc, typed_one.basis, typed_one.attack) == (0.9, "typed", "pgd-100")


def test_the_lowest_number_is_of_an_attack_that_its_paper_held_in_the_ball():
    """TPAP prints 31.4 % under STA, which its public code bounds by nothing."""
    tpap, threat = registry.defenses.load("tpap"), ThreatModel("Linf", 8 / 255)
    resnet = SimpleNamespace(architecture={"name": "resnet18", "width": 1.0})
    found = stated_claim(Asked(), tpap, "cifar10", resnet, threat, own_images=False)
    assert (found.attack, found.robust_acc) == ("fgsm", 0.6141)
    asked = Asked(line=find("tpap-t2-r1-sta"))
    found = stated_claim(asked, tpap, "cifar10", resnet, threat, own_images=False)
    assert (found.attack, found.robust_acc) == ("st-adv", 0.314)


def test_what_is_claimed_alone_and_as_a_part_of_autoattack_does_not_say_that_it_runs_on_what_is_left():
    for defense in ("co_noise", "tpap"):
        for step in choose("claimed", defense, "cifar10", "Linf").steps:
            assert ("on what is left" in step.why) == bool(step.after), (defense, step.name)
    alone = {step.name: step for step in choose("claimed", "co_noise", "cifar10", "Linf").steps}["claimed-apgd-t"]
    assert (alone.after, alone.why) == ((), "the targeted attack of AutoAttack")


def test_a_line_that_names_no_network_can_be_audited_on_any():
    trained, line = registry.defenses.load("pgd_at"), find("madry-t1-r4-pgd")
    assert line.architecture == ""
    for network, width in (("small_cnn", 0.5), ("lenet", 1.0)):
        checkpoint = SimpleNamespace(architecture={"name": network, "width": width})
        stated = stated_claim(
            Asked(line=line), trained, "mnist", checkpoint, ThreatModel("Linf", 0.3), own_images=False
        )
        assert (stated.basis, stated.robust_acc, stated.attack) == ("paper", line.value, "pgd-100")


def test_a_report_keeps_what_every_paper_prints_of_a_defense():
    """The lines that suite "claimed" takes its attacks from, which for these are all of other papers' tables."""
    for name, count in {"distillation": 4, "undefended": 66, "pgd_at": 71, "trades": 11, "mart": 3}.items():
        told = told_claims(registry.defenses.load(name), "mnist")
        assert (len(told), {claim["own"] for claim in told}) == (count, {False})
        ours = [claim["dataset"] == "mnist" for claim in told]
        assert ours == sorted(ours, reverse=True)
    told = told_claims(registry.defenses.load("tpap"), "cifar10")
    assert [claim["own"] for claim in told] == [True] * 14 + [False] * 20


def test_lines_without_a_radius_are_counted_by_table():
    counted = {d: boundless_claims(registry.defenses.load(d)) for d in ("distillation", "tpap", "sim_adv")}
    assert [(line["table"], line["count"]) for line in counted["distillation"]] == [("Table VI", 36)]
    assert [(line["table"], line["count"]) for line in counted["tpap"]] == [("Table 2", 4), ("Table 7", 3)]
    assert counted["sim_adv"] == []


@pytest.mark.parametrize(
    ("defense", "dataset", "eps", "sentence"),
    [
        ("undefended", "fashion_mnist", 8 / 255, "those of claims for fashion_mnist at Linf 0.2; none is for fashion_mnist at Linf 8/255"),
        ("undefended", "fashion_mnist", 0.2, None),
        ("pgd_at", "fashion_mnist", 0.1, "and "),
        ("a defense without claims", "mnist", 0.3, None),
    ],
)  # fmt: skip
def test_attacks_of_claims_about_something_else_are_said_to_be(defense, dataset, eps, sentence):
    said = borrowed(defense, dataset, ThreatModel("Linf", eps))
    assert len(said) == (sentence is not None)
    assert sentence is None or sentence in said[0]


def test_each_defense_has_the_claims_of_its_paper():
    counts = {
        name: len(own_claims(registry.defenses.load(name))) for name in ("tpap", "co_noise", "sim_adv", "undefended")
    }
    assert counts == {"tpap": 14, "co_noise": 7, "sim_adv": 15, "undefended": 0}
    assert set(papers.defenses()) > {"tpap", "co_noise", "sim_adv", "super_fitting"}
