"""The surrogate of `transfer` may be any model that --defense and --model take, named in the same words."""

from __future__ import annotations

import json
import warnings
from functools import partial

import pytest
import torch

from audit import registry
from audit.errors import AuditError, BadInput, MissingDependency, UnknownName
from audit.filled import filled
from audit.ledger import Ledger
from audit.preparation import prepare
from audit.runner import run
from audit.surrogates import surrogate
from audit.types import Step, ThreatModel
from tests.own_models import save_images
from tests.planted import Brightness, Counting, TinyCNN, images

pytestmark = pytest.mark.usefixtures("undrawn")

HERE = "tests.own_models"
SHAPE = (1, 8, 8)
transfer = registry.attacks.load("transfer")
STEP = Step("transfer", "transfer", "full", params={"surrogate": "undefended"}, why="images of an undefended network")


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A spec of every kind that needs no library, each with the file that it needs, and the model behind it."""
    place, model, (x, _) = tmp_path_factory.mktemp("surrogates"), TinyCNN(), images(TinyCNN())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        torch.jit.save(torch.jit.trace(model, x), place / "m.ts")
        batch = {0: torch.export.Dim("n", min=1)}
        torch.export.save(torch.export.export(model, (x,), dynamic_shapes=(batch,)), place / "m.pt2")
    torch.save(TinyCNN(seed=2).state_dict(), place / "two.pt")
    return {
        "factory": (f"{HERE}:build", "", model),
        "factory with weights": (f"{HERE}:build", str(place / "two.pt"), TinyCNN(seed=2)),
        "defense of a module": (f"{HERE}:DEFENSE", "", model),
        "torchscript": (f"torchscript:{place / 'm.ts'}", "", model),
        "export": (f"export:{place / 'm.pt2'}", "", model),
    }


@pytest.mark.parametrize("kind", ["factory", "factory with weights", "defense of a module", "torchscript", "export"])
def test_the_images_are_those_that_the_attack_makes_on_that_model(named, kind):
    name, weights, twin = named[kind]
    x, y = images(TinyCNN(), 6)
    threat, asked = ThreatModel("Linf", 0.05), Counting(Brightness())
    found = transfer(asked, x, y, threat, seed=3, surrogate=name, weights=weights, by="pgd", dataset="")
    expected = registry.attacks.load("pgd")(twin, x, y, threat, seed=3)
    assert torch.allclose(found, expected, atol=1e-6)
    assert asked.rows == 0
    assert not torch.equal(found, x)


def test_two_surrogates_make_two_sets_of_images(named):
    """The weights that were named are those that were used."""
    x, y = images(TinyCNN(), 6)
    made = partial(transfer, Brightness(), x, y, ThreatModel("Linf", 0.05), seed=3, by="pgd", dataset="")
    first, second = (
        made(surrogate=name, weights=file) for name, file, _ in (named["factory"], named["factory with weights"])
    )
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.slow
def test_a_run_takes_such_a_surrogate_and_records_its_name(named, tmp_path):
    name, weights, _ = named["factory with weights"]
    data = save_images(tmp_path / "mine.npz")
    settings = [f"claimed-transfer.surrogate={name}", f"claimed-transfer.weights={weights}"]
    run(
        f"{HERE}:build", data=data, suite="claimed", eps=0.2, n=6, claim_attack="transfer", claim_robust=0.9,
        settings=settings, out=tmp_path / "run",
    )  # fmt: skip
    steps = {s["name"]: s for s in json.loads((tmp_path / "run" / "plan.json").read_text())["steps"]}
    assert steps["claimed-transfer"]["params"]["surrogate"] == name
    (unit,) = (tmp_path / "run" / "units").glob("*claimed-transfer*")
    arrays, about = Ledger(tmp_path / "run").read(unit.stem)
    assert (about["error"], len(arrays["ids"]), int(arrays["forwards"].sum())) == (None, 6, 0)


def fill(*settings, shape=SHAPE, dataset=None, norm="Linf"):
    threat = ThreatModel(norm, 5.0 if norm == "L0" else 0.1)
    return filled((STEP,), [f"transfer.{s}" for s in settings], threat, shape, dataset)[1]


def test_it_is_tried_out_before_the_run_and_stays_as_it_was_typed(named):
    (step,) = fill(f"surrogate={named['torchscript'][0]}")
    assert (step.params["surrogate"], step.params["by"]) == (named["torchscript"][0], "apgd-margin")
    assert fill(f"surrogate={named['factory'][0]}", norm="L0")[0].params["by"] == "fmn"


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        (["surrogate=tests.own_models:biuld"], UnknownName, "has no 'biuld': did you mean 'build'"),
        (["surrogate=timmm:resnet18"], UnknownName, r"no module 'timmm' .*expected timm:..., torchvision:"),
        (["surrogate=torchscript:/nowhere/m.ts"], BadInput, r"cannot be built \(the checkpoint /nowhere/m.ts .*--set transfer.weights=FILE"),
        (["surrogate=torchvision:resnet18"], BadInput, r"cannot be built \(.*--set transfer.weights=FILE"),
        (["surrogate=tests.own_models:NUMBER"], BadInput, "NUMBER is int, expected a function"),
        (["surrogate=tests.own_models:broken"], BadInput, "raised ValueError: no weights here"),
        (["surrogate=tests.own_models:scores"], BadInput, "answers with scores alone, attack 'apgd-margin' needs a gradient"),
        (["surrogate=tests.own_models:build", "weights=/nowhere.pt"], BadInput, r"cannot be built \(the checkpoint /nowhere.pt"),
        (["surrogate=tests.own_models:build", "by=pdg"], UnknownName, "did you mean 'pgd'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_one_sentence(settings, error, sentence):
    with pytest.raises(error, match=sentence) as said:
        fill(*settings)
    assert "\n" not in str(said.value)


def test_a_surrogate_without_a_gradient_does_for_an_attack_that_needs_none():
    assert fill("surrogate=tests.own_models:scores", "by=square")[0].params["by"] == "square"


def test_a_surrogate_for_other_images_is_named():
    with pytest.raises(
        BadInput, match=r"surrogate 'tests.own_models:build' does not fit: the model cannot take images of 3 x 8"
    ):
        fill("surrogate=tests.own_models:build", shape=(3, 8, 8))
    with pytest.raises(
        BadInput, match=r"surrogate 'tests.own_models:shipped' takes images of 1 x 28 x 28, got 1 x 8 x 8"
    ):
        fill("surrogate=tests.own_models:shipped", dataset="fashion_mnist")


def test_the_library_that_a_spec_needs_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingDependency, match="timm:resnet18 needs timm"):
        fill("surrogate=timm:resnet18")


def test_its_weights_are_frozen_and_it_stands_in_evaluation_mode():
    found = surrogate(f"{HERE}:build", shape=SHAPE, dataset="")
    assert not found.training
    assert not any(weight.requires_grad for weight in found.parameters())


def test_a_bad_surrogate_ends_the_run_before_its_first_attack(tmp_path):
    data = save_images(tmp_path / "mine.npz")
    with pytest.raises(AuditError, match="timmm"):
        prepare(
            f"{HERE}:build", data=data, suite="full", eps=0.2, n=2, settings=["transfer.surrogate=timmm:resnet18"]
        )  # fmt: skip
