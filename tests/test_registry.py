"""Names: loaded when first used, never overwritten, and unknown ones answered with the nearest known."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from audit import registry
from audit.errors import BadInput, MissingDependency, UnknownName
from audit.protocols import Attack, Defense
from audit.registry import Registry, closest


@pytest.fixture
def things() -> Registry:
    return Registry("thing", {"beta": "math:sqrt", "alpha": "math:pi"})


def plugins(monkeypatch, **targets: str) -> None:
    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == "audit.things"
        return [EntryPoint(name, target, group) for name, target in targets.items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_names_are_sorted(things):
    assert things.names() == list(things) == ["alpha", "beta"]


def test_load_gives_the_attribute(things):
    assert things.load("beta")(49) == 7
    assert things.target("alpha") == "math:pi"


def test_unknown_name_gets_the_nearest(things):
    with pytest.raises(UnknownName, match=r"unknown thing 'alhpa': did you mean 'alpha'\?"):
        things.load("alhpa")


def test_unknown_name_far_from_all_gets_the_list(things):
    with pytest.raises(UnknownName, match=r"unknown thing 'zzz': known are alpha, beta\."):
        things.target("zzz")


@pytest.mark.parametrize(
    ("kind", "typed", "meant"),
    [
        ("defenses", "superfitting", "super_fitting"),
        ("defenses", "undefend", "undefended"),
        ("attacks", "apgd_ce", "apgd-ce"),
        ("attacks", "pdg", "pgd"),
        ("adapters", "rescaled", "rescale"),
        ("datasets", "fashion-mnist", "fashion_mnist"),
        ("datasets", "cifar-10", "cifar10"),
    ],
)
def test_did_you_mean(kind, typed, meant):
    with pytest.raises(UnknownName, match=rf"unknown {kind[:-1]} {typed!r}: did you mean {meant!r}\?"):
        getattr(registry, kind).load(typed)


def test_a_name_is_not_overwritten(things):
    with pytest.raises(BadInput, match=r"thing 'alpha' is already math:pi, math:tau must take another name"):
        things.register("alpha", "math:tau")
    assert things.target("alpha") == "math:pi"


def test_registering_the_same_again_is_harmless(things):
    things.register("alpha", "math:pi")
    things.register("gamma", "math:e")
    assert things.names() == ["alpha", "beta", "gamma"]


def test_entry_points_add_names(things, monkeypatch):
    plugins(monkeypatch, gamma="math:tau")
    assert things.names() == ["alpha", "beta", "gamma"]
    assert things.load("gamma") == pytest.approx(6.283185307)


def test_entry_points_cannot_take_a_name(things, monkeypatch):
    plugins(monkeypatch, alpha="math:tau")
    with pytest.raises(BadInput, match=r"thing 'alpha' is already math:pi"):
        things.names()


def test_a_library_that_does_not_import(things):
    things.register("gone", "no_such_library_anywhere:thing")
    with pytest.raises(MissingDependency, match=r"thing 'gone' needs a library that does not import .*audit doctor"):
        things.load("gone")


def test_nothing_is_imported_before_load():
    code = (
        "import sys; from audit import registry as r; "
        "[k.names() for k in (r.defenses, r.attacks, r.adapters, r.datasets)]; "
        "assert not {'torch', 'torchattacks', 'pyautoattack', 'defenses', 'adapters'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("kind", "protocol"), [("defenses", Defense), ("attacks", Attack)])
def test_everything_shipped_loads_under_its_own_name(kind, protocol):
    for name in getattr(registry, kind):
        found = getattr(registry, kind).load(name)
        assert isinstance(found, protocol)
        assert found.name == name


def test_every_dataset_loads_under_its_own_name():
    sizes = {name: len(registry.datasets.load(name).classes) for name in registry.datasets}
    assert sizes == {"cifar10": 10, "cifar100": 100, "fashion_mnist": 10, "mnist": 10, "svhn": 10}
    assert all(registry.datasets.load(name).name == name for name in registry.datasets)


def test_closest():
    assert closest("colour", ["color", "shape"]) == "did you mean 'color'?"
    assert closest("x", ["color", "shape"]) == "known are color, shape."
