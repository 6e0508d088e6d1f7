"""The model_info JSON of a run, for RobustBench."""

from __future__ import annotations

import json

import pytest

from audit import run
from audit.cli import main
from audit.errors import BadInput
from audit.leaderboard import placement
from audit.submission import About, lacking, model_info
from tests.test_leaderboard import report

pytestmark = pytest.mark.usefixtures("undrawn")


def finished(**changes) -> dict:
    clean = {"accuracy": 0.8969, "interval": [0.89, 0.9]}
    data = report(**{"clean": clean, "tool": {"version": "9"}, "run__suite": "standard", **changes})
    data["defense"] = {**data["defense"], "architecture": {"name": "WideResNet-28-10"}}
    return {**data, "leaderboard": placement(data)}


def test_a_whole_autoattack_run_gives_the_file_of_robustbench():
    about = About("A title", "A, B", "https://x", "ICML 2026", True, 1)
    found = model_info(finished(), about)
    assert found == {
        "link": "https://x", "name": "A title", "authors": "A, B", "additional_data": True, "number_forward_passes": 1,
        "dataset": "cifar10", "venue": "ICML 2026", "architecture": "WideResNet-28-10", "eps": "8/255",
        "clean_acc": "89.69", "reported": "80.00", "autoattack_acc": "60.00", "external": None, "unreliable": False,
        "footnote": "measured by robustness-audit 9, suite standard, n = 10000, 95 % interval [59.00, 61.00]",
    }  # fmt: skip


def test_what_no_run_knows_is_named():
    about = About("A title", "A, B", "https://x", "ICML 2026", True, 1)
    assert lacking(model_info(finished(), about), finished()) == []
    found = lacking(model_info(finished(), About(title="A title", venue="X", additional_data=False)), finished())
    assert found == ["link, authors are null, which no run knows; type --link, --authors"]
    kept_out = finished(defense__traits=["stochastic"])
    assert model_info(kept_out, about)["autoattack_acc"] == "60.00"  # AutoAttack's figure, if an unreliable one


def test_other_suites_and_weakened_attacks_are_external_evaluations():
    weaker = [{"name": "weakened_attacks", "status": "flagged"}]
    elsewhere = {"threat__eps": 4 / 255, "threat__eps_text": "4/255"}
    own = {"run__sources": {"data": "/x.npz"}}
    for changes in (
        {"run__suite": "adaptive"},
        {"attacks": []},
        {"diagnoses": weaker},
        {"dataset__n": 846},
        elsewhere,
        own,
    ):
        data = finished(**changes)
        found = model_info(data, About())
        assert (found["autoattack_acc"], found["external"]) == (None, "60.00"), changes
        assert "autoattack_acc is null and the worst case stands as external, because" in lacking(found, data)[-1]
    assert "made weaker" in model_info(finished(diagnoses=weaker), About())["footnote"]


def test_what_others_took_behind_autoattack_is_external_and_before_it_nothing_is_autoattacks():
    whole = finished()
    more = {**whole["attacks"][-1], "attack": "apgd-margin", "route": "transfer"}
    beaten = {"accuracy": 0.2, "interval": [0.19, 0.21]}
    behind = finished(attacks=[*whole["attacks"], more], adaptive=beaten)
    found = model_info(behind, About())
    assert (found["autoattack_acc"], found["external"]) == ("60.00", "20.00")
    before = finished(attacks=[{**more, "suite": "claimed"}, *whole["attacks"]])
    found = model_info(before, About())
    assert (found["autoattack_acc"], found["external"]) == (None, "60.00")
    assert lacking(found, before)[-1].endswith("another attack took images before the last part of AutoAttack")


def test_what_the_rules_keep_out_is_marked_unreliable():
    found = model_info(finished(defense__traits=["test_time_optimisation"], dataset__n=846), About())
    assert found["unreliable"]
    assert "it optimises at test time" in found["footnote"]
    assert "n is 846" in found["footnote"]


def test_only_a_claim_or_what_is_typed_is_reported():
    assert model_info(finished(claim={"basis": "measured", "robust_acc": 0.7}), About())["reported"] is None
    assert model_info(finished(claim=None), About())["reported"] is None
    assert model_info(finished(), About(reported=0.595))["reported"] == "59.50"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"dataset__name": "fashion_mnist"},
            "no leaderboard for fashion_mnist with Linf, expected cifar10 with L2 or Linf",
        ),
        ({"threat__norm": "L1"}, "no leaderboard for cifar10 with L1"),
        ({"run__missing_units": 1}, "no worst case yet, expected a finished one; run the same command again"),
        ({"adaptive": {"accuracy": None, "interval": None}}, "no worst case yet"),
    ],
)
def test_what_cannot_be_submitted_is_one_sentence(changes, sentence):
    with pytest.raises(BadInput, match=sentence):
        model_info(finished(**changes), About())


def test_the_command_prints_or_writes(tmp_path, capsys, monkeypatch):
    import torch

    from tests.planted import TinyCNN

    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = TinyCNN(channels=3)
    y = (model(x).argmax(1) + 1) % 4  # all misclassified, so that no attack has anything to do
    run(model=model, data=(x, y), dataset="cifar10", eps=8 / 255, suite="standard", out=tmp_path / "run")
    for more in ((), ("--out", str(tmp_path / "NAME.json"))):
        with pytest.raises(SystemExit) as ended:
            main(["export", "--format", "robustbench", str(tmp_path / "run"), "--venue", "X", *more])
        assert ended.value.code == 0
    printed, said = capsys.readouterr()
    assert "link, name, authors, additional_data, reported are null, which no run knows; type --link, --title" in said
    assert "stands as external, because " in said
    assert "; n is 4, the leaderboard takes 10,000 images" in said
    written = json.loads((tmp_path / "NAME.json").read_text())
    assert json.loads(printed[: printed.rindex("}") + 1]) == written
    assert (written["clean_acc"], written["venue"], written["architecture"]) == ("0.00", "X", "TinyCNN")
