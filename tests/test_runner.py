"""What is decided before the first attack, and what is said of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from audit.datasets import FASHION_MNIST
from audit.errors import BadInput, BadModel
from audit.ledger import Ledger
from audit.preparation import prepare
from audit.runner import run
from defenses.base import ZOO, NetworkDefense
from defenses.networks import build
from defenses.undefended import UNDEFENDED

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK = {"suite": "quick", "n": 6, "batch_size": 4}


@pytest.mark.slow
def test_steps_without_the_norm_are_left_out_with_a_sentence():
    plan = prepare("undefended", norm="L2", eps=0.5, **QUICK).plan
    assert [step.name for step in plan.steps] == ["rescaled-ce", "apgd-margin", "unbounded"]
    assert plan.runtime["unsupported"] == [
        f"step {name} is left out: attack {attack} supports Linf, not L2"
        for name, attack in (("fgsm", "fgsm"), ("bim-20", "bim"), ("pgd-20", "pgd"))
    ]
    assert prepare("undefended", **QUICK).plan.runtime["unsupported"] == []


def test_a_typed_clean_accuracy_wins_over_the_checkpoints():
    recorded = prepare("undefended", **QUICK).plan.identity["expected_clean_acc"]
    assert recorded == pytest.approx(0.903, abs=1e-3)
    plan = prepare("undefended", claim_clean=0.75, claim_robust=0.5, **QUICK).plan
    assert plan.identity["expected_clean_acc"] == plan.identity["claim"]["clean_acc"] == 0.75
    assert prepare("undefended", claim_clean=0.0, **QUICK).plan.identity["expected_clean_acc"] == 0.0
    for wrong in (91.1, -0.1, float("nan")):
        with pytest.raises(BadInput, match=r"--claim-clean is .*, expected a fraction in \[0,1\]; type 0.91"):
            prepare("undefended", claim_clean=wrong, **QUICK)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (RuntimeError("mat1 and mat2\nshapes"), BadModel, "cannot take images of 1 x 28 x 28 from embedded.*shapes"),
        (ValueError("bad\nvalue"), BadModel, r"cannot take images of .* \(ValueError: bad value\)"),
        (KeyError(), BadModel, r"cannot take images of .* \(KeyError\)"),
        (torch.OutOfMemoryError("CUDA out of memory"), BadInput, "do not fit into memory.*type a smaller --batch-size"),
    ],
)
def test_a_model_that_fails_on_its_first_pass_is_bad_input(monkeypatch, error, kind, sentence):
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise error

    monkeypatch.setattr(NetworkDefense, "load", lambda self, checkpoint: Broken().eval())
    with pytest.raises(kind, match=sentence) as caught:
        prepare("undefended", **QUICK)
    assert "\n" not in str(caught.value)


def test_a_model_that_answers_with_a_tuple_is_refused(monkeypatch):
    class Pair(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10], x

    monkeypatch.setattr(NetworkDefense, "load", lambda self, checkpoint: Pair().eval())
    with pytest.raises(BadModel, match="tuple"):
        prepare("undefended", **QUICK)


def test_paths_may_be_text(tmp_path):
    images = FASHION_MNIST.load("test").first(6)
    np.savez(tmp_path / "own.npz", x=images.x, y=images.y)
    weights = str(ZOO / next(iter(UNDEFENDED.zoo.values())))
    plan = prepare("undefended", data=str(tmp_path / "own.npz"), weights=weights, **QUICK).plan
    assert plan.runtime["sources"]["data"] == str(tmp_path / "own.npz")
    with pytest.raises(BadInput, match="were not found in"):
        prepare("undefended", data_dir=str(tmp_path / "none"), **QUICK)


@pytest.mark.parametrize(("name", "value"), [("n", "5"), ("n", 2.5), ("batch_size", "8"), ("seed", "0")])
def test_a_number_that_is_none_is_refused(name, value):
    with pytest.raises(BadInput, match=rf"--[a-z-]+ is {value!r}, expected a whole number"):
        prepare("undefended", **{**QUICK, name: value})


def test_numpy_numbers_are_numbers():
    assert prepare("undefended", **{**QUICK, "n": np.int64(5)}).plan.identity["n"] == 5


def test_images_that_are_not_square_are_refused(tmp_path):
    np.savez(tmp_path / "wide.npz", x=np.zeros((4, 28, 40), np.float32), y=np.zeros(4, np.int64))
    with pytest.raises(BadModel, match=r"expects images of 1 x 28 x 28 .*has 1 x 28 x 40"):
        prepare("undefended", data=tmp_path / "wide.npz", suite="quick")


def test_a_bare_state_dict_is_audited_as_the_network_that_was_named(tmp_path):
    torch.manual_seed(0)
    architecture = {"name": "middle_cnn", "width": 0.125, "channels": 1, "size": 28, "classes": 10}
    torch.save(build(architecture).state_dict(), tmp_path / "net.pt")
    plan = prepare("undefended", weights=tmp_path / "net.pt", width=0.125, **QUICK).plan
    assert plan.identity["architecture"] == architecture


@pytest.mark.slow
def test_what_crashed_runs_again_only_when_asked(tmp_path):
    given = {**QUICK, "out": tmp_path, "settings": ("pgd-20.steps=2",)}
    first = run("undefended", **given)
    ledger, unit = Ledger(tmp_path, first.results.plan.fingerprint), "02-bim-20-0000"
    arrays, meta = ledger.read(unit)
    nothing = np.zeros(len(arrays["ids"]), bool)
    crashed = {
        "error": ~nothing,
        "broken": nothing,
        "returned_broken": nothing,
        "kept": nothing,
        "x_adv": arrays["x_adv"][:0],
    }
    ledger.write(unit, {**arrays, **crashed}, {**meta, "error": "OutOfMemoryError: planted"})

    def times():
        return {path.name: path.stat().st_mtime_ns for path in ledger.directory.iterdir()}

    before = times()
    assert run("undefended", **given).results.steps[1].errors.any()
    assert times() == before
    again = run("undefended", retry_errors=True, **given)
    assert not again.results.steps[1].errors.any()
    assert ledger.read(unit)[0]["broken"].tolist() == arrays["broken"].tolist()
    assert [name for name, time in times().items() if time != before[name]] == [f"{unit}.npz"]
    assert json.loads((tmp_path / "checks.json").read_text())["rejected"] == 0
