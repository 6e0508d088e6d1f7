"""The paper's numbers beside those measured, and a plain sentence for what nothing here speaks of."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import pytest

from audit import run
from reports.markdown import render_markdown
from reports.papers import beside, elsewhere


def claim(attack: str, dataset: str = "fashion_mnist", network: str = "lenet", eps: float = 0.2, **more) -> dict:
    threat = {"norm": "Linf", "eps": eps}
    return {
        "source": "Table 3", "attack": attack, "dataset": dataset, "architecture": network, "threat": threat,
        "clean_acc": 0.9, "robust_acc": 0.66, **more,
    }  # fmt: skip


def ran(attack: str, accuracy: float | None, scope: str = "all", route: str = "end-to-end", **params) -> dict:
    interval = None if accuracy is None else [accuracy - 0.1, accuracy + 0.1]
    cumulative = {"accuracy": accuracy, "interval": interval}
    return {
        "name": attack, "cumulative": cumulative, "accuracy_is": "cumulative" if scope == "survivors" else "alone", "after": [],
        "attack": attack, "params": params, "scope": scope, "accuracy": accuracy, "interval": interval, "errors": 0, "done": True, "attacked": 80, "route": route, "suite": "claimed",
    }  # fmt: skip


def report(*claims: dict, width: float = 1.0, suite: str = "claimed", data: str = "") -> dict:
    return {
        "paper_claims": list(claims), "dataset": {"name": "fashion_mnist"}, "threat": {"norm": "Linf", "eps": 0.2},
        "defense": {"architecture": {"name": "lenet", "width": width}}, "run": {"suite": suite, "sources": {"data": data}},
        "attacks": [ran("bim", 0.5, steps=40), ran("bim", 0.55, steps=20), ran("apgd-t", 0.3, n_iter=100), ran("fab-t", 0.2, "survivors")],
        "adaptive": {"accuracy": 0.25, "interval": [0.2, 0.3]},
    }  # fmt: skip


def test_a_claim_stands_beside_what_its_attack_left():
    (row,) = beside(report(claim("bim-40")))
    assert (row["robust"], row["measured"], row["differs"]) == ("66.0%", "50.0% [40.0%, 60.0%]", "")
    assert beside(report(claim("apgd-t")))[0]["measured"] == "30.0% [20.0%, 40.0%]"


@pytest.mark.parametrize("attack", ["bim-30", "pgd-40", "fab-t", "autoattack"])
def test_an_attack_that_did_not_run_is_said(attack):
    assert beside(report(claim(attack)))[0]["measured"] == "its attack was not run"


def autoattack(*names: str, **changes) -> dict:
    found = report(claim("autoattack", route=changes.pop("wanted", "")), suite="standard")
    return {**found, "attacks": [{**ran(name, 0.25, "survivors"), "suite": "standard", **changes} for name in names]}


FOUR = ("apgd-ce", "apgd-t", "fab-t", "square")


def test_autoattack_is_measured_by_its_four_steps_and_by_no_fewer():
    assert beside(autoattack(*FOUR))[0]["measured"] == "25.0% [15.0%, 35.0%]"
    for fewer in (autoattack(*FOUR[:2]), autoattack(*FOUR, errors=1), autoattack(*FOUR, done=False)):
        assert beside(fewer)[0]["measured"] == "its attack was not run"
    assert beside(autoattack(*FOUR, wanted="transfer"))[0]["measured"] == "its attack was not run"


def test_what_other_attacks_leave_behind_autoattack_is_not_its_figure():
    """In suite standard a purifier meets the same parts by transfer, and more; in plus the first three are not AutoAttack's."""
    data = autoattack(*FOUR)
    beaten = {**data, "adaptive": {"accuracy": 0.05, "interval": [0.0, 0.1]}}
    assert beside(beaten)[0]["measured"] == "25.0% [15.0%, 35.0%]"
    typed = {**data, "attacks": [ran("pgd", 0.5), *data["attacks"]]}  # took images before them
    assert beside(typed)[0]["measured"] == "its attack was not run"
    names = [f"transfer-{name}" for name in FOUR]
    behind = [
        {**ran(a, 0.8, route="transfer"), "suite": "standard", "name": n} for a, n in zip(FOUR, names, strict=True)
    ]
    both = {**data, "attacks": [*data["attacks"], *behind[:3], {**behind[3], "after": names[:3]}]}
    for route, left in (("", "25.0%"), ("end-to-end", "25.0%"), ("transfer", "80.0%")):
        assert beside({**both, "paper_claims": [claim("autoattack", route=route)]})[0]["measured"].startswith(left)
    grey = [{**ran(name, 0.6, route="transfer"), "suite": "plus", "name": f"transfer-{name}"} for name in FOUR]
    six = {**grey[3], "after": ["transfer-apgd-ce", "transfer-apgd-dlr", "transfer-fab"]}
    others = [{**grey[0], "attack": a, "name": f"transfer-{a}"} for a in ("apgd-dlr", "fab")]
    plus = {**data, "paper_claims": [claim("autoattack", route="transfer")], "attacks": [grey[0], *others, six]}
    assert beside(plus)[0]["measured"] == "its attack was not run"
    cascaded = {
        **ran("apgd-t", 0.1, n_iter=100),
        "after": ["apgd-ce"],
    }  # on what another attack left: not of all images
    assert beside({**report(claim("apgd-t")), "attacks": [cascaded]})[0]["measured"] == "its attack was not run"


def test_a_claimed_autoattack_is_measured_by_its_last_part_along_its_route():
    names = [f"claimed-{name}" for name in FOUR]
    steps = [
        {**ran(attack, 0.6 - n / 10, route="transfer"), "name": names[n], "after": names[:n]}
        for n, attack in enumerate(FOUR)
    ]
    data = {**report(claim("autoattack", route="transfer")), "attacks": steps}
    assert beside(data)[0]["measured"] == "30.0% [20.0%, 40.0%]"
    for damaged in (
        {**data, "attacks": steps[:3]},
        {**data, "attacks": [*steps[:2], {**steps[2], "errors": 1}, steps[3]]},
        {**data, "attacks": [*steps[:3], {**steps[3], "after": []}]},
        {**data, "paper_claims": [claim("autoattack", route="end-to-end")]},
    ):
        assert beside(damaged)[0]["measured"] == "its attack was not run"


def test_an_attack_along_another_route_or_with_another_step_is_another_attack():
    data = report()
    data["attacks"] = [
        ran("ti-dim", 0.1), ran("ti-dim", 0.7, route="transfer"), ran("bim", 0.5, steps=20, rel_stepsize=0.1),
        ran("bim", 0.6, steps=20, rel_stepsize=0.25),
    ]  # fmt: skip

    def measured(attack, **more):
        return beside({**data, "paper_claims": [claim(attack, **more)]})[0]["measured"][:5]

    assert measured("ti-dim", route="transfer") == "70.0%"
    assert measured("ti-dim", route="end-to-end") == "10.0%"
    assert measured("bim-20", params={"steps": 20, "rel_stepsize": 0.25}) == "60.0%"
    assert measured("bim-20", params={"steps": 20, "rel_stepsize": 0.1}) == "50.0%"
    assert measured("bim-20", params={"steps": 20, "rel_stepsize": 1.0}) == "its a"


def test_another_network_is_named_beside_the_number():
    (row,) = beside(report(claim("bim-40"), width=0.5))
    assert row["differs"] == "width"


def test_claims_about_something_else_are_counted_in_plain_words():
    data = report(
        *(claim("bim-40", "cifar10", "resnet", 8 / 255) for _ in range(2)), claim("fgsm", eps=0.1), claim("fgsm")
    )
    assert len(beside(data)) == 1
    assert elsewhere(data) == [
        "1 printed claim is for fashion_mnist with lenet at Linf 0.1; nothing here speaks of it.",
        "2 printed claims are for cifar10 with resnet at Linf 8/255; nothing here speaks of them.",
    ]
    assert elsewhere(report(claim("fgsm"))) == []


def test_numbers_without_a_radius_are_counted_in_one_sentence():
    data = report(claim("fgsm"))
    table = {"paper": "Carlini and Wagner", "table": "Table VI", "count": 36}
    data["run"]["boundless_claims"] = [table, {**table, "table": "Table IV", "count": 2}]
    assert elsewhere(data) == [
        "38 printed numbers go with no radius, so they are held against nothing here: Carlini and Wagner, Table VI, "
        "Carlini and Wagner, Table IV."
    ]
    data["run"]["boundless_claims"] = [{**table, "count": 1}]
    assert elsewhere(data)[0].startswith("1 printed number goes with no radius, so it is held")


def test_a_line_of_another_paper_says_whose_it_is_and_one_without_a_network_says_so():
    own, other = beside(report(claim("bim-40", own=True), claim("bim-40", network="", own=False)))
    assert (own["whose"], own["network"]) == ("bim-40", "yes")
    assert (other["whose"], other["network"]) == ("bim-40 (Table 3)", "the paper names none")
    assert beside(report(claim("bim-40"), width=0.5))[0]["network"] == "no: another width"


def test_many_claims_about_something_else_stay_a_few_lines_with_those_of_this_data_set_first():
    others = [claim("fgsm", "cifar10", f"net-{i}") for i in range(5)]
    said = elsewhere(report(*others, claim("fgsm", "svhn"), claim("fgsm", eps=0.1)))
    assert len(said) == 5
    assert said[0].startswith("1 printed claim is for fashion_mnist with lenet at Linf 0.1")
    assert said[-1] == (
        "3 printed claims are for cifar10, svhn with other networks or at other radii; nothing here speaks of them."
    )


@pytest.mark.slow
def test_a_run_of_the_attacks_that_other_papers_name_shows_their_claims(tmp_path):
    data = run("distillation", suite="claimed", n=8, out=tmp_path / "r", settings=["cw-linf.queries=40"]).to_dict()
    schema = json.loads(resources.files("reports").joinpath("schema/report-1.json").read_text())
    jsonschema.validate(json.loads(json.dumps(data)), schema)
    assert len(data["paper_claims"]) == 4
    assert not any(c["own"] for c in data["paper_claims"])
    page = render_markdown(data)
    assert "cifar10 with resnet18 at Linf 8/255; nothing here speaks of them" in page
    assert "36 printed numbers go with no radius" in page
    assert "Table VI" in page


def test_no_claim_speaks_of_images_of_ones_own():
    data = report(claim("bim-40"), data="own.npz")
    assert beside(data) == []
    assert len(elsewhere(data)) == 1
