"""The steps of a run: options that an attack refuses are refused before it, and what cannot run is left out and said."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from audit import registry
from audit.claimed import typed
from audit.errors import BadInput, MissingDependency, UnknownName, Unsupported
from audit.filled import filled, gives_way
from audit.ledger import Ledger
from audit.preparation import prepare
from audit.rules import Nature, fit
from audit.suites import SUITES
from audit.types import Step, ThreatModel
from tests.planted import TinyCNN, images, unwrapped_nan

FULL = SUITES["full"].steps
LINF, L0 = ThreatModel("Linf", 0.1), ThreatModel("L0", 20.0)


def fill(*settings, steps=FULL, threat=LINF, shape=(1, 28, 28), dataset="fashion_mnist"):
    own, kept, left_out = filled(steps, settings, threat, shape, dataset)
    return {step.name: step.params for step in own}, {step.name: step.params for step in kept}, left_out


@pytest.fixture
def a_run(tmp_path):
    Ledger(tmp_path / "earlier", "plan").write("01-pgd-0000", {"x_adv": np.zeros((1, 1, 28, 28))}, {})
    return str(tmp_path / "earlier")


@pytest.mark.parametrize(
    ("setting", "error", "sentence"),
    [
        ("a3.loss=nonsense", BadInput, "attack 'a3' has no loss 'nonsense': known are ce, margin"),
        ("an-pgd.loss=margn", BadInput, "attack 'an-pgd' has no loss 'margn': did you mean 'margin'"),
        ("fwa.loss=", BadInput, "attack 'fwa' has no loss ''"),
        ("random-search.where=nonsense", BadInput, "attack 'random-search' has no where 'nonsense'"),
        ("transfer.surrogate=undefnded", UnknownName, "did you mean 'undefended'"),
        ("transfer.surrogate=", BadInput, "needs either surrogate=MODEL or run=PATH, got neither"),
        ("transfer.by=nonsense", UnknownName, "unknown attack 'nonsense'"),
        ("transfer.by=transfer", BadInput, "cannot make its images by itself"),
        ("transfer.run=/nope", BadInput, "transfer.run is '/nope', which holds no run; type"),
    ],
)
def test_text_that_an_attack_would_refuse_is_refused_before_the_run(setting, error, sentence):
    with pytest.raises(error, match=sentence):
        fill(setting)


def test_a_setting_of_a_step_holds_for_the_one_by_transfer_beside_it():
    steps = fit(FULL, Nature(staged=True, blind=True))
    own, kept, _ = fill("square.n_queries=77", "a3.restarts=2", "transfer-a3.restarts=3", steps=steps)
    assert {kept[name]["n_queries"] for name in ("square", "transfer-square")} == {77}
    assert (kept["a3"]["restarts"], kept["transfer-a3"]["restarts"]) == (2, 3)
    assert own["transfer-square"]["n_queries"] == 1000


def test_transfer_as_a_claims_attack_says_what_it_lacks():
    with pytest.raises(BadInput, match="got neither; type for example"):
        fill(steps=typed("transfer", "undefended"))


def test_an_attack_of_others_needs_no_check(monkeypatch):
    monkeypatch.setattr(registry.attacks, "load", lambda name: unwrapped_nan)
    assert not hasattr(unwrapped_nan, "check")
    assert list(fill(steps=(Step("theirs", "theirs", "full"),))[1]) == ["theirs"]


def test_a_run_takes_the_place_of_the_suites_surrogate(a_run):
    own, kept, _ = fill(f"transfer.run={a_run}")
    assert (own["transfer"]["surrogate"], own["transfer"]["run"]) == ("undefended", "")
    assert (kept["transfer"]["surrogate"], kept["transfer"]["run"]) == ("", a_run)
    with pytest.raises(BadInput, match="got surrogate='pgd_at' and run="):
        fill(f"transfer.run={a_run}", "transfer.surrogate=pgd_at")


def test_images_of_ones_own_have_a_surrogate_only_when_one_is_named(a_run):
    sentence = "step transfer is left out: no weights of undefended are at hand for these images"
    own, kept, left_out = fill(dataset=None)
    assert "transfer" not in {**own, **kept}
    assert sentence in left_out
    assert sentence in fill("transfer.by=pgd", dataset=None)[2]
    assert fill(f"transfer.run={a_run}", dataset=None)[1]["transfer"]["run"] == a_run
    assert fill("transfer.dataset=fashion_mnist", dataset=None)[1]["transfer"]["dataset"] == "fashion_mnist"


def test_the_surrogate_is_attacked_in_the_norm_of_the_run():
    own, kept, _ = fill(threat=L0)
    assert own["transfer"]["by"] == kept["transfer"]["by"] == "fmn"
    assert fill()[1]["transfer"]["by"] == "apgd-margin"
    _, kept, left_out = fill("transfer.by=pgd", threat=L0)
    assert "transfer" not in kept
    assert "step transfer is left out: attack pgd supports Linf, not L0" in left_out


def test_under_l0_the_images_of_the_surrogate_are_made():
    known, data = registry.defenses.load("undefended"), registry.datasets.load("fashion_mnist").load()
    model = known.load(known.checkpoint("fashion_mnist", None))
    x, y = torch.from_numpy(data.x[:4]), torch.from_numpy(data.y[:4])
    found = registry.attacks.load("transfer")(model, x, y, L0, seed=0, **fill(threat=L0)[1]["transfer"])
    assert (model(found).argmax(1) != y).any()


def test_what_does_not_take_such_small_images_is_left_out_and_said(monkeypatch):
    real = registry.attacks.load

    def load(name):
        known = real(name)
        if name != "square":
            return known
        return replace(known, fits=lambda threat, shape: f"too small under {threat.norm}" if min(shape[1:]) < 5 else "")

    monkeypatch.setattr(registry, "attacks", SimpleNamespace(load=load, target=registry.attacks.target))
    _, kept, left_out = fill(shape=(3, 4, 9))
    assert "square" not in kept
    assert "step square is left out: too small under Linf" in left_out
    assert "square" in fill(shape=(3, 5, 9))[1]


def test_what_is_not_installed_is_left_out_and_said(monkeypatch):
    real = registry.attacks.load

    def load(name):
        if real(name).library in ("art", "foolbox"):
            raise MissingDependency(f"attack {name!r} needs a library")
        return real(name)

    away = {step.name for step in FULL if real(step.attack).library in ("art", "foolbox")}
    monkeypatch.setattr(registry, "attacks", SimpleNamespace(load=load, target=registry.attacks.target))
    _, kept, left_out = fill()
    assert away
    assert not away & set(kept)
    assert "step fmn is left out: attack 'fmn' needs a library" in left_out
    assert {"a3", "square", "transfer"} <= set(kept)
    with pytest.raises(Unsupported, match=r"that is installed supports L0; .* doctor` for the others"):
        fill(threat=L0)
    with pytest.raises(MissingDependency, match="attack 'fmn' needs"):
        fill(steps=[step for step in FULL if step.name in ("fmn", "unbounded")])


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (10, []),
        (3, ["step apgd-t climbs the margin: its loss needs 4 classes, the model has 3"]),
        (2, ["step apgd-dlr climbs the margin: its loss needs 3 classes, the model has 2",
             "step apgd-t climbs the margin: its loss needs 4 classes, the model has 2"]),
    ],
)  # fmt: skip
def test_a_loss_that_few_classes_do_not_carry_gives_way_and_it_is_said(classes, said, tmp_path):
    assert gives_way(SUITES["adaptive"].steps, classes) == said
    x, y = images(TinyCNN(classes=classes))
    plan = prepare(model=TinyCNN(classes=classes), data=(x, y), suite="adaptive", eps=0.1).plan
    assert [s for s in plan.runtime["unsupported"] if "margin" in s] == said
    assert (len(plan.runtime["unsupported"]) > 0) == bool(said)
