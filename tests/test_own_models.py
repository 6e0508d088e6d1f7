"""Models that somebody brings: Python paths, objects, traits, preprocessing, black boxes; what a run records of them."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import audit
from adapters.black_box import BlackBox
from audit import registry
from audit.budget import Budget
from audit.cli import main
from audit.errors import BadInput, BadModel, BadWeights, UnknownName, Unsupported
from audit.models import preprocessing
from audit.models.own import answers, classifier
from audit.models.preprocessing import Preprocessing
from audit.models.spec import Declared, resolve
from audit.preparation import prepare
from audit.verify import reverify, sound
from tests.own_models import DEFENSE, build, save_images, scores
from tests.planted import Noisy, TinyCNN, images

pytestmark = pytest.mark.usefixtures("undrawn")

HERE = "tests.own_models"


@pytest.fixture
def data(tmp_path) -> Path:
    return save_images(tmp_path / "my_images.npz")


@pytest.mark.slow
def test_the_command_of_the_readme_audits_a_model_of_ones_own(tmp_path, monkeypatch, data, capsys):
    command = f"run --defense {HERE}:build --data {data} --eps 16/255 --suite quick --out {tmp_path / 'run'} --quiet"
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(command))
    assert ended.value.code == 0
    done = audit.load_run(tmp_path / "run")
    identity = done.results.plan.identity
    assert (identity["defense"], identity["dataset"]) == (f"{HERE}:build", "own_images")
    assert done.clean.accuracy == 1.0
    assert done.adaptive.accuracy < 0.5
    assert sound(reverify(tmp_path / "run"))


def test_without_a_name_the_directory_is_named_after_the_path(data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = audit.run(f"{HERE}:build", data=data, eps=0.1, suite="standard", n=2, settings=["square.n_queries=5"])
    assert found.path.name.startswith("tests.own_models-build-standard-")


def test_the_digest_covers_the_weights_and_the_source(data, monkeypatch, tmp_path):
    def sha(**options):
        return prepare(data=data, eps=0.1, suite="quick", **options).plan.identity["weights_sha256"]

    torch.save(TinyCNN(seed=2).state_dict(), tmp_path / "other.pt")
    plain = sha(defense=f"{HERE}:build")
    assert plain == sha(defense=f"{HERE}:build")
    assert plain != sha(defense=f"{HERE}:build", weights=tmp_path / "other.pt")
    assert sha(defense=f"{HERE}:with_weights") != sha(defense=f"{HERE}:with_weights", weights=tmp_path / "other.pt")
    monkeypatch.setattr("inspect.getsourcefile", lambda thing: None)
    assert plain != sha(defense=f"{HERE}:build")


def test_weights_that_do_not_fit_are_refused(tmp_path, data):
    torch.save(TinyCNN(classes=5).state_dict(), tmp_path / "five.pt")
    with pytest.raises(BadWeights, match=r"five\.pt does not fit TinyCNN .*expected the state dict of this very model"):
        prepare(f"{HERE}:build", data=data, weights=tmp_path / "five.pt")
    with pytest.raises(BadInput, match=r"were given for function, expected an nn.Module; leave them out"):
        prepare(f"{HERE}:scores", data=data, weights=tmp_path / "five.pt")


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("tests.own_model:build", UnknownName, "no module 'tests.own_model' .*expected timm:..., torchvision:"),
        (f"{HERE}:biuld", UnknownName, "module tests.own_models has no 'biuld': did you mean 'build'"),
        (f"{HERE}:NUMBER", BadInput, "NUMBER is int, expected a function that returns a model or a Defense"),
        (
            f"{HERE}:broken",
            BadInput,
            "the factory tests.own_models:broken raised ValueError: no weights here; expected a m",
        ),
        ("onnx:", BadInput, "onnx: names no file; type onnx:FILE"),
        ("undefnded", UnknownName, "did you mean 'undefended'"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_type(name, kind, sentence):
    with pytest.raises(kind, match=sentence):
        resolve(name, Declared())


def test_a_factory_may_return_a_defense_and_a_defense_may_lie_there(data):
    assert resolve(f"{HERE}:shipped", Declared()).name == "undefended"
    assert resolve(f"{HERE}:DEFENSE", Declared()) is DEFENSE
    plan = prepare(f"{HERE}:DEFENSE", data=data, eps=0.1, suite="quick").plan
    assert plan.identity["traits"] == ["stateful"]
    assert prepare(f"{HERE}:shipped", n=3, suite="quick").plan.identity["dataset"] == "fashion_mnist"


def test_a_name_or_a_model_but_not_both():
    shipped = resolve("undefended", Declared())
    for given, got in (
        ({}, "neither"),
        ({"defense": "undefended", "model": build()}, "both"),
        ({"defense": audit.Defense("mine"), "model": "torchvision:resnet18"}, "both"),
        ({"defense": audit.Defense("mine"), "model": shipped}, "both"),
        ({"defense": shipped, "model": build()}, "both"),
    ):
        with pytest.raises(BadInput, match=f"expected a defense or a model, got {got}; type --defense NAME or --model"):
            prepare(**given)
    with pytest.raises(BadInput, match="'mine' builds a model and TinyCNN came as model=, expected one of them"):
        prepare(DEFENSE, model=build())
    with pytest.raises(BadInput, match=r"'mine' describes a model and has none.*type audit.run\(model=..., defense"):
        prepare(audit.Defense("mine"))


def test_an_object_and_what_is_said_of_it(tmp_path):
    """The spelling of the documents: `audit.run(model=..., defense=Defense(...))`."""
    x, y = images(TinyCNN(), 6)
    threat = audit.ThreatModel("Linf", 0.1)
    claim = audit.Claim("mine", "own_images", "TinyCNN", threat, "pgd-20", 0.9, "Table 1", 1.0)
    said = audit.Defense(
        "mine",
        traits=frozenset({"stateful"}),
        clean=1.0,
        eps=0.1,
        claims=(claim,),
        preprocessing=Preprocessing(std=(2,)),
    )
    brief = {"suite": "quick", "data": (2 * x, y)}
    with pytest.raises(BadInput, match="spans"):  # the images are still checked
        audit.run(model=build(), defense=said, **brief)
    found = audit.run(model=build(), defense=said, data=(x, y), suite="quick", traits=["rejects"], out=tmp_path / "a")
    plan = found.results.plan
    assert (plan.identity["defense"], plan.identity["eps"]) == ("mine", 0.1)
    assert plan.identity["traits"] == ["rejects", "stateful"]
    assert plan.identity["expected_clean_acc"] == 1.0
    assert plan.identity["architecture"]["preprocessing"] == Preprocessing(std=(2,)).to_dict()
    assert [c["source"] for c in plan.runtime["paper_claims"]] == ["Table 1"]
    assert plan.runtime["command"].startswith("audit.run(model=model, defense=defense, data=(x, y), suite='quick'")
    assert said.build is None
    np.savez(tmp_path / "x.npz", x=x.numpy(), y=y.numpy())
    assert sound(reverify(tmp_path / "a", data=tmp_path / "x.npz", model=build()))
    typed = prepare(model=build(), defense=said, data=(x, y), suite="quick", preprocessing=Preprocessing(std=(1.5,)))
    assert typed.plan.identity["architecture"]["preprocessing"] == Preprocessing(std=(1.5,)).to_dict()


@pytest.mark.slow
def test_objects_of_a_session_are_audited_and_left_as_they_were(tmp_path, data):
    model = build()
    x, y = images(TinyCNN())
    found = audit.run(model=model, data=(x, y), eps=16 / 255, suite="quick", out=tmp_path / "a")
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    same = audit.run(f"{HERE}:build", data=data, n=8, eps=16 / 255, suite="quick", out=tmp_path / "b")
    assert found.adaptive == same.adaptive
    brief = {"suite": "standard", "n": 2, "settings": ["square.n_queries=5", "fab-t.n_iter=2"]}
    assert audit.run(defense=DEFENSE, data=(x, y), out=tmp_path / "c", **brief).clean.accuracy == 1.0
    np.savez(tmp_path / "x.npz", x=x.numpy(), y=y.numpy())
    with pytest.raises(BadInput, match=r"audited an object of a Python session.*reverify\(run_dir, model=...\)"):
        reverify(tmp_path / "a", data=tmp_path / "x.npz")
    assert sound(reverify(tmp_path / "a", data=tmp_path / "x.npz", model=build()))
    with pytest.raises(BadInput, match="is not the checkpoint that was audited"):
        reverify(tmp_path / "a", data=tmp_path / "x.npz", model=TinyCNN(seed=3))


def test_arrays_are_checked_as_files_are():
    x, y = images(TinyCNN())
    with pytest.raises(BadInput, match=r"data has 3 parts, expected images and labels; give data=\(x, y\)"):
        prepare(model=build(), data=(x, y, y))
    with pytest.raises(BadInput, match=r"arrays given in Python spans \[0, 255"):
        prepare(model=build(), data=(255 * x.round(decimals=1), y))
    with pytest.raises(BadInput, match="the images of imagenet do not come with a library; type --data"):
        prepare(model=build(), dataset="imagenet")


def test_declared_traits_are_added_and_unknown_ones_refused(data):
    options = {"data": data, "eps": 0.1, "suite": "quick"}
    assert prepare(f"{HERE}:build", traits=["rejects"], **options).plan.identity["traits"] == ["rejects"]
    plan = prepare(f"{HERE}:DEFENSE", traits=["rejects"], **options).plan
    assert plan.identity["traits"] == ["rejects", "stateful"]
    assert DEFENSE.traits == {"stateful"}
    with pytest.raises(UnknownName, match="unknown trait 'stochastik': did you mean 'stochastic'"):
        prepare(f"{HERE}:build", traits=["stochastik"], **options)


def test_randomness_that_nobody_declared_is_found(data):
    plan = prepare(model=Noisy(TinyCNN()), data=data, eps=0.1, suite="adaptive").plan
    assert plan.identity["traits"] == []
    assert plan.draws > 1


def test_a_purifier_without_gradient_is_attacked_through_bpda_said_or_not(tmp_path, data):
    plan = prepare(f"{HERE}:rounded", data=data, eps=0.1, suite="quick").plan
    assert {a.name for s in plan.steps if s.name == "apgd-margin" for a in s.adapters} == {"bpda"}
    assert "unroll-margin" not in [s.name for s in plan.steps]
    assert any(
        line.startswith("step unroll-margin is left out: the purifier has no") for line in plan.runtime["unsupported"]
    )
    found = audit.run(f"{HERE}:rounded", data=data, eps=32 / 255, suite="quick", out=tmp_path / "run")
    assert found.adaptive.accuracy < 0.5
    with pytest.raises(BadInput, match="a preprocessing is declared for a model with a purifier and a network"):
        prepare(f"{HERE}:rounded", data=data, preprocessing=Preprocessing(mean=(0.5,)))


def test_preprocessing_is_part_of_the_model_and_of_the_plan(data, tmp_path):
    declared = Preprocessing(mean=(0.25,), std=(0.5,), resize=(8, 8), value_range=(-1.0, 1.0))
    plan = prepare(f"{HERE}:build", data=data, eps=0.1, suite="quick", preprocessing=declared)
    plain = prepare(f"{HERE}:build", data=data, eps=0.1, suite="quick")
    x, _ = images(TinyCNN())
    assert torch.allclose(plan.target.model(x), TinyCNN()((2 * x - 1 - 0.25) / 0.5), atol=1e-5)
    assert plan.plan.identity["architecture"]["preprocessing"] == declared.to_dict()
    assert plan.plan.fingerprint != plain.plan.fingerprint
    assert plan.plan.runtime["sources"]["declared"] == {"preprocessing": declared.to_dict()}
    found = shlex.split(plan.plan.runtime["command"])
    said = {f: found[found.index(f"--{f}") + 1] for f in ("mean", "std", "resize", "value-range")}
    assert preprocessing.typed(said["mean"], said["std"], said["resize"], said["value-range"]) == declared


def test_resizing_is_torchvisions():
    from torchvision.transforms.functional import resize

    x, _ = images(TinyCNN())
    seen = classifier(nn.Flatten(), "flat")
    from audit.models.own import in_front

    got = in_front(seen, Preprocessing(resize=(5, 6)))(x)
    assert torch.allclose(got, resize(x, [5, 6], antialias=True).flatten(1), atol=1e-6)


@pytest.mark.slow
def test_a_wrong_declaration_is_caught_by_the_handshake(tmp_path, data):
    common = {
        "data": data,
        "eps": 0.1,
        "suite": "standard",
        "settings": ["square.n_queries=5", "fab-t.n_iter=2"],
        "claim_clean": 1.0,
    }
    right = audit.run(f"{HERE}:build", out=tmp_path / "a", **common)
    twice = audit.run(f"{HERE}:build", out=tmp_path / "b", preprocessing=Preprocessing(mean=(3.0,)), **common)
    status = [{d.name: d.status for d in run.diagnoses}["clean_accuracy_handshake"] for run in (right, twice)]
    assert status == ["clear", "flagged"]


class Normed(nn.Module):
    """The zoo's undefended network as if it had been trained on images less 0.5, divided by 0.2."""

    def __init__(self) -> None:
        super().__init__()
        known = resolve("undefended", Declared())
        self.network = known.load(known.checkpoint("fashion_mnist", None))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(0.2 * x + 0.5)


class Twice(Normed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((x - 0.5) / 0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "declared", "status"),
    [
        (Normed, False, "flagged"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((Normed, True, "clear"), (Twice, True, "flagged"), (Twice, False, "clear"))
        ),
    ],
)
def test_a_forgotten_or_doubled_normalisation_of_usual_size_is_caught(tmp_path, model, declared, status):
    images = registry.datasets.load("fashion_mnist").load().first(100)
    front = Preprocessing(mean=(0.5,), std=(0.2,)) if declared else None
    said = audit.Defense("normed", clean=0.91, preprocessing=front)
    brief = {
        "data": (images.x, images.y),
        "dataset": "fashion_mnist",
        "suite": "quick",
        "eps": 8 / 255,
        "budget": Budget(passes=1),
    }
    found = audit.run(model=model(), defense=said, out=tmp_path / "run", **brief)
    handshake = {d.name: d for d in found.diagnoses}["clean_accuracy_handshake"]
    assert handshake.status == status, handshake.sentence
    assert "(n = 100, 95 % [" in handshake.sentence


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ({"mean": "0.5;0.5"}, "--mean is '0.5;0.5', expected numbers with commas"),
        ({"std": "0"}, "std is .*expected positive numbers"),
        ({"mean": "1,2,3", "std": "1,2"}, "3 means and 2 deviations"),
        ({"resize": "big"}, "--resize is 'big', expected pixels as 224 or 224x288"),
        ({"resize": "0"}, "the declared size is"),
        ({"value_range": "255"}, "--value-range is '255', expected two numbers"),
        ({"value_range": "1,0"}, "a rising range"),
    ],
)
def test_a_preprocessing_that_cannot_be_is_refused(typed, sentence):
    with pytest.raises(BadInput, match=sentence):
        preprocessing.typed(**typed)


def test_a_preprocessing_survives_json_and_the_zoo_refuses_one():
    declared = Preprocessing(mean=(0.1, 0.2, 0.3), resize=(4, 5))
    assert Preprocessing.from_dict(declared.to_dict()) == declared
    assert preprocessing.typed() is None
    with pytest.raises(BadInput, match="defense 'undefended' brings its own preprocessing"):
        resolve("undefended", Declared(preprocessing=declared))
    with pytest.raises(BadInput, match="--model-dir is for robustbench:"):
        resolve("undefended", Declared(model_dir=Path()))
    with pytest.raises(BadModel, match="declared mean has 3 channels, the images have 1"):
        prepare(f"{HERE}:build", data=(*images(TinyCNN()),), preprocessing=replace(declared, resize=None))


@pytest.mark.slow
def test_a_callable_gets_the_attacks_that_need_no_gradient(tmp_path, data):
    found = audit.run(
        f"{HERE}:scores", data=data, eps=32 / 255, suite="adaptive", out=tmp_path / "run",
        settings=["nes.steps=2", "rays.n_queries=200", "square.n_queries=200", "random-search.n_draws=20"],
    )  # fmt: skip
    plan = found.results.plan
    assert {"square", "nes", "random-search", "rays"} <= {step.attack for step in plan.steps}
    assert not {"apgd-margin", "fgsm", "fab-t"} & {step.attack for step in plan.steps}
    sentence = (
        "step apgd-margin is left out: attack apgd-margin needs the gradient, the model answers with scores alone"
    )
    assert sentence in plan.runtime["unsupported"]
    kept, lost = len(plan.steps), sum("needs the gradient" in said for said in plan.runtime["unsupported"])
    summary = f"the model answers with scores alone, so {lost} of {lost + kept} steps are left out; "
    assert plan.runtime["unsupported"][0].startswith(summary)
    assert "square" in plan.runtime["unsupported"][0]
    assert found.adaptive.accuracy < found.clean.accuracy == 1.0
    assert not [message for step in found.results.steps for message in step.messages]
    assert found.verdict.outcome != "upheld"
    with pytest.raises(Unsupported, match="no attack of this suite does with a model that answers with scores alone"):
        prepare(f"{HERE}:scores", data=data, suite="claimed")


def test_what_names_classes_alone_gets_decision_attacks(data):
    inner = scores()
    model = BlackBox(lambda x: inner(x).argmax(1), classes=4)
    assert answers(model) == "decision"
    plan = prepare(model=model, data=data, eps=0.1, suite="adaptive").plan
    assert {step.attack for step in plan.steps} <= {"random-search", "rays", "hopskipjump"}
    assert "rays" in {step.attack for step in plan.steps}


def test_the_cost_of_a_model_without_gradient_is_measured(data, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "--defense", f"{HERE}:scores", "--data", str(data), "--eps", "0.1", "--dry-run", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["cost"]["rate"] > 0


@pytest.mark.parametrize("kind", ["probabilities", "margins", "names"])
def test_a_fitted_estimator_is_a_classifier(data, kind):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    with np.load(data) as stored:
        x, y = stored["x"], stored["y"]
    maker = {"probabilities": linear.LogisticRegression, "margins": linear.RidgeClassifier, "names": linear.Perceptron}[
        kind
    ]
    y = np.unique(y, return_inverse=True)[1]
    fitted = maker().fit(x.reshape(len(x), -1), y)
    if kind == "names":
        fitted.__class__ = type("Namer", (linear.Perceptron,), {"decision_function": property()})
        fitted.predict = partial(linear.Perceptron.predict, linear.Perceptron().fit(x.reshape(len(x), -1), y))
    model = classifier(fitted, "estimator")
    assert answers(model) == ("decision" if kind == "names" else "scores")
    expected = fitted.predict(x.reshape(len(x), -1))
    assert np.array_equal(model(torch.from_numpy(x)).argmax(1).numpy(), expected)


def test_two_classes_have_two_logits():
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    x, y = np.random.default_rng(0).random((20, 1, 2, 2), np.float32), np.arange(20) % 2
    fitted = linear.RidgeClassifier().fit(x.reshape(20, -1), y)
    logits = classifier(fitted, "ridge")(torch.from_numpy(x))
    assert logits.shape == (20, 2)
    assert np.array_equal(logits.argmax(1).numpy(), fitted.predict(x.reshape(20, -1)))
    named = linear.RidgeClassifier().fit(x.reshape(20, -1), np.where(y, "dog", "cat"))
    with pytest.raises(BadModel, match=r"RidgeClassifier knows the classes \['cat', 'dog'\], expected 0, 1"):
        classifier(named, "ridge")


@pytest.mark.parametrize(
    ("answer", "classes", "sentence"),
    [
        (lambda x: np.zeros(len(x)), None, r"shape \(3,\) for 3 images, expected scores .*give BlackBox"),
        (lambda x: np.zeros((len(x), 4)), 4, r"expected 3 whole numbers from 0 to 3"),
        (lambda x: np.full(len(x), 4), 4, r"expected 3 whole numbers from 0 to 3"),
        (lambda x: np.asarray(["a"] * len(x)), 4, r"expected 3 whole numbers"),
    ],
)
def test_a_callable_that_answers_something_else_is_refused(answer, classes, sentence):
    with pytest.raises(BadModel, match=sentence):
        BlackBox(answer, classes=classes)(torch.rand(3, 1, 8, 8))


def test_what_is_no_model_is_refused():
    for thing, got in ((TinyCNN, "TinyCNN"), (7, "int")):
        with pytest.raises(BadModel, match=f"it is {got}, expected an nn.Module, a Defense, a fitted"):
            classifier(thing, "it")


def test_a_missing_file_is_not_the_factorys_fault(tmp_path):
    with pytest.raises(
        BadWeights, match=r"nowhere.pt does not exist, expected what .*with_weights reads; check the path"
    ):
        resolve(f"{HERE}:with_weights", Declared()).checkpoint("fashion_mnist", tmp_path / "nowhere.pt")
