"""What `prepare` writes into a plan: the claim it holds the model against, and what `--set` weakened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from audit import preparation, registry
from audit.datasets import FASHION_MNIST
from audit.errors import BadInput
from audit.preparation import prepare
from audit.types import Claim, ThreatModel
from defenses.super_fitting import SUPER_FITTING

PRINTED = Claim("super_fitting", "fashion_mnist", "middle_cnn", ThreatModel(), "pgd-100", 0.83, "Table 9", 0.9)


@dataclass(frozen=True)
class Printed:
    """Super-fitting as if its paper spoke of the very network and data set at hand."""

    recorded: float | None = 0.911
    name: str = "super_fitting"
    summary: str = ""
    traits: frozenset[str] = frozenset()
    claims: tuple[Claim, ...] = (PRINTED,)

    def checkpoint(self, dataset: str, weights: Any) -> Any:
        found = SUPER_FITTING.checkpoint(dataset, weights)
        network = {**found.architecture, "width": 1.0}
        measured = {} if self.recorded is None else {"clean_accuracy": self.recorded}
        return replace(found, manifest={**found.manifest, "architecture": network, "measured": measured})

    def load(self, checkpoint: Any) -> Any:
        return SUPER_FITTING.load(SUPER_FITTING.checkpoint("fashion_mnist", None))


@pytest.fixture
def printed(monkeypatch):
    def use(defense: Printed) -> None:
        monkeypatch.setattr(registry.defenses, "load", lambda name: defense)

    use(Printed())
    return use


def identity(**options: Any) -> dict[str, Any]:
    plan = prepare("super_fitting", **{"suite": "quick", "n": 8, **options}).plan
    return dict(plan.identity)


@pytest.mark.usefixtures("printed")
def test_a_printed_claim_for_this_model_and_these_images_is_taken():
    claim = identity()["claim"]
    assert (claim["basis"], claim["robust_acc"]) == ("paper", 0.83)


@pytest.mark.usefixtures("printed")
def test_a_printed_claim_is_not_taken_for_images_of_ones_own(tmp_path):
    images = FASHION_MNIST.load("test").first(8)
    np.savez(tmp_path / "own.npz", x=images.x, y=images.y)
    plan = prepare("super_fitting", suite="quick", data=tmp_path / "own.npz").plan
    assert plan.identity["claim"] is None
    assert plan.runtime["paper_claims"][0]["source"] == "Table 9"


@pytest.mark.slow
def test_a_typed_clean_accuracy_comes_before_the_recorded_one(printed):
    assert identity()["expected_clean_acc"] == 0.911
    assert identity(claim_clean=0.85)["expected_clean_acc"] == 0.85
    printed(Printed(recorded=None))
    assert identity()["expected_clean_acc"] is None
    assert identity(claim_clean=0.0)["expected_clean_acc"] == 0.0
    typed = identity(claim_robust=0.8, claim_clean=0.85)["claim"]
    assert (typed["robust_acc"], typed["clean_acc"], typed["basis"]) == (0.8, 0.85, "typed")


@pytest.mark.parametrize("value", [91.0, -0.1, float("nan")])
def test_a_clean_accuracy_that_is_no_fraction_is_refused(value):
    with pytest.raises(BadInput, match=r"--claim-clean is .* type 0.91 for 91 %"):
        prepare("super_fitting", suite="quick", n=8, claim_clean=value)


@pytest.mark.parametrize(
    ("settings", "weakened"),
    [
        ((), []),
        (("pgd-20.steps=200",), []),
        (("pgd-20.steps=20",), []),
        (("pgd-20.steps=2",), ["pgd-20.steps: 20 -> 2"]),
        (
            ("unbounded.n_iter=1", "apgd-margin.n_iter=400"),
            ["unbounded.n_iter: 40 -> 1"],
        ),  # 40 is the quick suite's own
    ],
)
def test_what_set_weakened_is_part_of_the_plan(settings, weakened):
    assert identity(settings=settings)["weakened"] == weakened


@pytest.mark.slow
def test_a_norm_that_drops_steps_weakens_nothing():
    assert identity(norm="L2", eps="0.5")["weakened"] == []


def test_steps_too_dear_for_a_random_defense_are_said_in_the_plan():
    plan = prepare("co_noise", suite="standard", n=4).plan
    assert [s.name for s in plan.steps] == ["apgd-ce", "square", "transfer-apgd-ce", "transfer-square"]
    assert plan.runtime["unsupported"] == [
        f"step {name} is left out: too dear through averaged draws" for name in ("apgd-t", "fab-t")
    ]


def test_a_printed_claim_beside_images_of_ones_own_asks_to_leave_them_out(tmp_path):
    with pytest.raises(BadInput, match=r"this run for images of your own; leave out --data"):
        prepare("sim_adv", claim="sim-t3-r7-sim", data=tmp_path / "own.npz")


@pytest.mark.parametrize(
    ("defense", "suite", "n", "expected"),
    [
        ("super_fitting", "quick", None, 1000),
        ("sim_adv", "quick", None, 500),
        ("super_fitting", "full", None, 200),
        ("sim_adv", "full", None, 200),
        ("sim_adv", "full", 300, 300),
        ("sim_adv", "diagnose", None, 64),
        ("co_noise", "diagnose", None, 24),
    ],
)
def test_so_many_images_are_audited_that_minutes_suffice_unless_told(defense, suite, n, expected, monkeypatch):
    class Loaded(Exception):
        pass

    def before_the_examination(subject, *args, **kwargs):
        raise Loaded(len(subject.x))

    monkeypatch.setattr(preparation, "_examined", before_the_examination)
    with pytest.raises(Loaded) as found:
        prepare(defense, suite=suite, n=n)
    assert found.value.args == (expected,)


def test_a_claim_that_is_none_is_said_before_the_examination(monkeypatch):
    monkeypatch.setattr(preparation, "_examined", lambda *args, **kwargs: pytest.fail("examined"))
    with pytest.raises(BadInput, match=r"type 0\.865"):
        prepare("super_fitting", suite="quick", claim_robust=86.5)


def test_the_libraries_of_the_attacks_that_run_are_recorded():
    plain = prepare("super_fitting", suite="quick", n=10).plan.identity["versions"]
    full = prepare("super_fitting", suite="full", n=10).plan.identity["versions"]
    assert set(plain) == {"torch", "numpy", "torchattacks", "pyautoattack"}
    assert set(full) == {*plain, "art", "foolbox"}  # our own attacks go by the tool's version
    assert full["foolbox"] == "3.3.4"
