"""RobustBench's figures as data, the place of an audited defense among them, and when there is none."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch

import audit
from audit import leaderboard
from audit.cli import main
from audit.errors import UnknownName
from audit.leaderboard import board, entries, find, placement, select
from reports.leaderboard import drawing, markdown, own_rows, standing_line
from tests.planted import TinyCNN


def report(**changes) -> dict:
    """A report.json of a full AutoAttack run on CIFAR-10, as far as the leaderboard reads it."""
    attacks = [
        {"attack": a, "done": True, "errors": 0, "route": "end-to-end", "scope": "survivors", "suite": "standard",
         "cumulative": {"accuracy": 0.6, "interval": [0.59, 0.61]}}
        for a in sorted(leaderboard.AUTOATTACK)
    ]  # fmt: skip
    data = {
        "dataset": {"name": "cifar10", "n": 10_000}, "threat": {"norm": "Linf", "eps": 8 / 255, "eps_text": "8/255"},
        "defense": {"name": "mine", "traits": []}, "run": {"suite": "standard", "missing_units": 0, "sources": {"data": ""}}, "draws": 1,
        "adaptive": {"accuracy": 0.6, "interval": [0.59, 0.61]}, "claimed": {"accuracy": 0.7, "interval": [0.69, 0.71]},
        "claim": {"basis": "typed", "robust_acc": 0.8}, "attacks": attacks, "diagnoses": [],
    }  # fmt: skip
    for path, value in changes.items():
        part, _, key = path.partition("__")
        if key:
            data[part] = {**data[part], key: value}
        else:
            data[part] = value
    return data


def test_five_cells_copied_by_hand_from_the_leaderboard():
    carmon = find("cifar10", "Linf", "Carmon2019Unlabeled")
    assert (carmon.clean, carmon.autoattack, carmon.architecture) == (0.8969, 0.5953, "WideResNet-28-10")
    amini = find("cifar10", "L2", "Amini2024MeanSparse_S-WRN-70-16")
    assert (amini.autoattack, amini.external, amini.robust, amini.eps) == (0.8728, 0.8433, 0.8433, 0.5)
    assert find("imagenet", "Linf", "Standard_R50").robust == 0.0
    assert find("cifar10", "Linf", "Kang2021Stable").unreliable
    assert find("cifar10", "Linf", "nobody") is None


def test_the_snapshot_is_whole_and_sorted():
    assert len(entries()) == len({(e.dataset, e.norm, e.name) for e in entries()}) == 188
    assert leaderboard.boards() == {"cifar10": ["L2", "Linf"], "cifar100": ["Linf"], "imagenet": ["Linf"]}
    for dataset, norms in leaderboard.boards().items():
        for norm in norms:
            found = [e.robust for e in board(dataset, norm)]
            assert found == sorted(found, reverse=True)
            assert all(0 <= e.robust <= e.clean <= 1 for e in board(dataset, norm))


def test_models_evaluated_at_0031_stand_among_those_at_8_255():
    assert len(select("cifar10", "Linf", 8 / 255)) == len(select("cifar10", "Linf")) == 99
    assert {round(e.eps, 4) for e in select("cifar10", "Linf")} == {0.031, 0.0314}
    assert select("cifar10", "Linf", 4 / 255) == ()


def test_the_place_is_counted_by_hand():
    found = placement(report())
    better = [sum(e.robust > bound for e in select("cifar10", "Linf")) for bound in (0.61, 0.59)]
    assert found["rank"] == [better[0] + 1, better[1] + 1]
    assert found["of"] == 99
    assert found["unfair"] == []
    values = [e["robust"] for e in found["around"]]
    assert len(values) == 6
    assert min(values[:3]) > 0.6 >= max(values[3:])
    assert placement(report(adaptive={"accuracy": 1.0, "interval": [1.0, 1.0]}))["rank"] == [1, 1]
    last = placement(report(adaptive={"accuracy": 0.0, "interval": [0.0, 0.0]}))
    assert last["rank"][0] == 1 + sum(e.robust > 0 for e in select("cifar10", "Linf"))


def test_a_model_of_the_board_is_not_ranked_against_itself():
    found = placement(report(defense__name="robustbench:cifar10/Linf/Carmon2019Unlabeled"))
    assert found["itself"]["name"] == "Carmon2019Unlabeled"
    assert found["of"] == 98
    assert "Carmon2019Unlabeled" not in {e["name"] for e in found["around"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset__name": "fashion_mnist"}, "RobustBench has no leaderboard for fashion_mnist"),
        (
            {"threat__eps": 4 / 255, "threat__eps_text": "4/255"},
            "the audit is at Linf 4/255, the leaderboard at 8/255 or 0.031",
        ),
        ({"threat__norm": "L1"}, "the audit is at L1 8/255, the leaderboard at other norms"),
        ({"dataset__n": 846}, "n is 846, the leaderboard takes 10,000 images"),
        ({"run__sources": {"data": "/x.npz"}}, "the images are of a file of your own"),
        ({"run__missing_units": 2}, "the run is not finished"),
        ({"attacks": []}, "of AutoAttack, by which the leaderboard ranks, apgd-ce, apgd-t, fab-t, square did not run"),
        ({"adaptive": {"accuracy": None, "interval": None}}, "there is no headline"),
        ({"draws": 20}, "would not admit this defense: it is random"),
        ({"defense__traits": ["stochastic"]}, "would not admit this defense: it is random"),
        ({"defense__traits": ["test_time_optimisation"]}, "it optimises at test time"),
        ({"diagnoses": [{"name": "vanishing_gradient", "status": "resolved"}]}, "it has zero gradients"),
        ({"diagnoses": [{"name": "shattered_gradient", "status": "flagged"}]}, "it has no gradient"),
        ({"diagnoses": [{"name": "zero_gradient_in_attack", "status": "flagged"}]}, "it has zero gradients"),
        ({"diagnoses": [{"name": "dynamic", "status": "resolved"}]}, "it optimises at test time"),
        ({"diagnoses": [{"name": "randomized", "status": "flagged"}], "draws": 20}, "it is random"),
        (
            {"diagnoses": [{"name": "weakened_attacks", "status": "flagged"}]},
            "attacks were made weaker than their suite has them",
        ),
    ],
)
def test_an_unfair_comparison_is_said_to_be_one(change, said):
    found = [why for why in placement(report(**change))["unfair"] if re.search(said, why)]
    assert len(found) == 1
    assert placement(report())["unfair"] == []


def test_what_gets_around_a_loss_without_gradient_is_fair():
    around = [{"name": name, "status": "resolved"} for name in ("zero_gradient_in_attack", "saturated_softmax")]
    assert placement(report(diagnoses=around))["unfair"] == []


@pytest.mark.slow
def test_a_defense_that_optimises_at_test_time_and_declares_nothing_is_not_admitted(tmp_path):
    from audit.submission import About, model_info
    from tests.patients.moving import Toward

    model = Toward(TinyCNN(channels=3)).eval()
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1).detach()
    found = audit.run(model=model, data=(x, y), dataset="cifar10", eps=8 / 255, suite="quick", out=tmp_path / "run")
    data = found.to_dict()
    assert data["defense"]["traits"] == []
    assert (
        "RobustBench's rules would not admit this defense: it optimises at test time" in data["leaderboard"]["unfair"]
    )
    assert model_info(data, About())["unreliable"]


def test_a_crashed_step_or_one_on_the_bare_network_is_not_autoattack():
    for spoilt in ({"errors": 3}, {"route": "transfer"}, {"done": False}, {"scope": "trial"}):
        data = report()
        data["attacks"] = copy.deepcopy(data["attacks"])
        data["attacks"][0] |= spoilt
        assert any(data["attacks"][0]["attack"] in why for why in placement(data)["unfair"])


def test_the_section_names_the_neighbours_and_the_figure_draws_them():
    data = report(defense__name="robustbench:cifar10/Linf/Carmon2019Unlabeled")
    data["leaderboard"] = placement(data)
    text, svg = "\n".join(markdown(data)), drawing(data)
    for entry in data["leaderboard"]["around"]:
        assert entry["name"] in text
        assert entry["name"] in svg
    assert [name for name, *_ in own_rows(data)] == [
        "claimed", "claimed attacks, here", "worst case, here", "Carmon2019Unlabeled, RobustBench",
    ]  # fmt: skip
    assert "worst case, here" in svg
    assert "would stand between place" in standing_line(data)
    assert "of 99" in standing_line(data)


@pytest.mark.slow
def test_without_a_board_the_report_says_so_and_draws_nothing(tmp_path):
    found = audit.run("undefended", suite="quick", n=4, out=tmp_path / "run")
    data = found.to_dict()
    assert data["leaderboard"]["rank"] is None
    assert drawing(data) == ""
    from reports import write_reports

    page = write_reports(tmp_path / "run").read_text()
    assert "Not comparable: RobustBench has no leaderboard for fashion_mnist." in page
    assert "RobustBench has no leaderboard for fashion_mnist" in (tmp_path / "run" / "report.md").read_text()


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["leaderboard", *arguments])
    return int(ended.value.code or 0)


def test_the_command_prints_and_filters(capsys):
    assert call("--dataset", "cifar10", "--norm", "Linf", "--model", "carmon", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [m["name"] for m in found["models"]] == ["Carmon2019Unlabeled"]
    assert found["models"][0]["rank"] == 1 + sum(e.robust > 0.5953 for e in select("cifar10", "Linf"))
    assert call("--norm", "L2", "--eps", "0.5") == 0
    printed = capsys.readouterr().out
    assert "Augustin2020Adversarial_34_10" in printed
    assert "as of 2025-03" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("mnist", "Linf", None), "no leaderboard for data set 'mnist'"),
        (("cifar100", "L2", None), "leaderboards for cifar100 are for Linf, not L2"),
        (("imagenet", "Linf", 8 / 255), "no model for imagenet at Linf 8/255, expected 4/255"),
    ],
)
def test_a_board_that_is_not_there_is_one_sentence(arguments, sentence):
    with pytest.raises(UnknownName, match=sentence):
        board(*arguments)
