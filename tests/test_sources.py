"""Where a run's files come from: absolute once recorded, and a command line that repeats what Python started."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit.cli import app, main
from audit.datasets import FASHION_MNIST, make_dataset
from audit.errors import BadInput, BadModel
from audit.models.preprocessing import Preprocessing
from audit.preparation import prepare
from audit.sources import Sources, check_shape
from defenses.undefended import UNDEFENDED

pytestmark = pytest.mark.usefixtures("undrawn")


def test_what_is_recorded_holds_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = FASHION_MNIST.load().first(1)
    given = Sources(Path("net.pt"), Path("x.npz"), None, False, "resnet18", 0.5)
    assert given.record(data) == {
        "weights": str(tmp_path / "net.pt"), "data": str(tmp_path / "x.npz"), "data_dir": "", "network": "resnet18",
        "width": 0.5,
    }  # fmt: skip
    downloaded = Sources(download=True).record(replace(data, place=Path("data")))
    assert downloaded["data_dir"] == str(tmp_path / "data")
    assert Sources().record(data) == {"weights": "", "data": "", "data_dir": "", "network": None, "width": None}


def test_what_was_moved_replaces_what_was_recorded():
    record = {"weights": "/a.pt", "data": "/x.npz", "data_dir": "", "network": None, "width": 0.25}
    same = Sources.recorded(record, weights=None, data=None, data_dir=None)
    assert same == Sources(Path("/a.pt"), Path("/x.npz"), width=0.25)
    moved = Sources.recorded(record, weights=Path("b.pt"), data=None, data_dir=Path("d"))
    assert moved == Sources(Path("b.pt"), None, Path("d"), width=0.25)
    assert Sources.recorded(record, weights=None, data=Path("y.npz"), data_dir=None).data == Path("y.npz")


def test_a_defense_that_brings_its_network_is_not_asked_for_one():
    class Third:
        name = "third"

        def checkpoint(self, dataset, weights):
            return UNDEFENDED.checkpoint(dataset, weights)

    assert Sources().checkpoint(Third(), "fashion_mnist").sha256
    with pytest.raises(BadInput, match="'third' brings its own network, got --network and --width; leave them out"):
        Sources(network="resnet18", width=1.0).checkpoint(Third(), "fashion_mnist")


@pytest.mark.parametrize("shape", [(1, 28, 32), (1, 32, 28), (3, 28, 28), (1, 32, 32)])
def test_images_of_another_shape_are_refused(shape):
    images = make_dataset("d", np.zeros((2, *shape), np.float32), np.zeros(2, np.int64), ("a",), "these")
    sentence = (
        rf"expects images of 1 x 28 x 28 \(channels.*, these has {' x '.join(map(str, shape))}; choose the --data"
    )
    with pytest.raises(BadModel, match=sentence):
        check_shape(UNDEFENDED.checkpoint("fashion_mnist"), images)


def words(monkeypatch, text: str) -> dict:
    """What the command line makes of a command: the arguments that reach `prepare`."""
    seen = {}

    def catch(defense, **options):
        seen.update(options, defense=defense)
        raise BadInput("seen")

    monkeypatch.setattr("audit.preparation.prepare", catch)
    with pytest.raises(SystemExit):
        main(shlex.split(text)[3:])
    return {k: v for k, v in seen.items() if k != "command"}


@pytest.mark.parametrize("eps", [4 / 255, 0.0312345678901])
def test_a_run_from_python_records_the_command_that_repeats_it(monkeypatch, eps):
    given = {
        "suite": "quick", "n": 5, "eps": eps, "norm": "Linf", "seed": 3, "batch_size": 4, "dataset": "fashion_mnist",
        "settings": ["pgd-20.steps=2"], "claim_robust": 0.5, "claim_attack": "pgd-20", "claim_clean": 0.75,
    }  # fmt: skip
    plan = prepare("undefended", **given).plan
    found = words(monkeypatch, plan.runtime["command"])
    assert float(found["eps"]) == eps if "/" not in found["eps"] else found["eps"] == "4/255"
    assert {k: found[k] for k in given if k != "eps"} == {k: v for k, v in given.items() if k != "eps"}
    assert found["defense"] == "undefended"


class Called(Exception):
    """What the line of a run asks for."""


def asked(line: str, **session) -> tuple[tuple, dict]:
    """The arguments of the call of `audit.run` that a line is, in a session that holds these names."""

    class Caught:
        Preprocessing = Preprocessing

        @staticmethod
        def run(*words, **options):
            raise Called(words, options)

    with pytest.raises(Called) as found:
        eval(line, {"audit": Caught, **session})
    return found.value.args[0], found.value.args[1]


def test_what_only_a_session_holds_is_repeated_from_python():
    """A command line can name neither the model nor the images; the line does it again, with the same fingerprint."""
    images = FASHION_MNIST.load().first(6)
    x, y = images.x, images.y
    model = UNDEFENDED.load(UNDEFENDED.checkpoint("fashion_mnist"))
    declared = Preprocessing(mean=(0.25,), std=(0.5,))
    first = prepare(
        model=model, data=(x, y), suite="quick", eps=0.0312345678901, n=5, seed=3, batch_size=4, preprocessing=declared,
        settings=["pgd-20.steps=2"], claim_robust=0.5, claim_attack="pgd-20", claim_clean=0.75,
    ).plan  # fmt: skip
    line = first.runtime["command"]
    assert line.endswith("# model: the MiddleCNN; x, y: the images and labels of that Python session")
    words, options = asked(line, model=model, x=x, y=y)
    assert prepare(*words, **options).plan.fingerprint == first.fingerprint


def test_images_of_a_session_for_a_named_defense():
    images = FASHION_MNIST.load().first(6)
    plan = prepare("undefended", data=(images.x, images.y), suite="quick").plan
    words, options = asked(plan.runtime["command"], x=images.x, y=images.y)
    assert words == ("undefended",)
    assert prepare(*words, **options).plan.fingerprint == plan.fingerprint
    assert "--data" not in plan.runtime["command"]


def test_a_typed_command_is_recorded_as_typed():
    assert prepare("undefended", suite="quick", n=2, command="as typed").plan.runtime["command"] == "as typed"


def test_the_flags_of_a_recorded_command_exist():
    from typer.main import get_command

    known = {name for parameter in get_command(app).commands["run"].params for name in parameter.opts}
    plan = prepare("undefended", suite="quick", n=2, claim_robust=0.5, claim_clean=0.5).plan
    assert {word for word in shlex.split(plan.runtime["command"]) if word.startswith("--")} <= known
