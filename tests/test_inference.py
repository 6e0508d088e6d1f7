"""--inference: variants of a test-time part, checked, part of the plan's identity, and in the command that repeats a run."""

from __future__ import annotations

import json
import shlex

import pytest

from audit import registry
from audit.cli import main
from audit.errors import BadInput
from audit.preparation import prepare
from audit.sources import Sources
from defenses.co_noise import CO_NOISE
from defenses.inference import pixels, positive, whole
from defenses.tpap import TPAP
from tests.test_cli import call

pytestmark = pytest.mark.usefixtures("undrawn")

STORED = {"purify": "fgsm", "xi": 0.1}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], STORED),
        (["xi=16/255"], {"purify": "fgsm", "xi": 16 / 255}),
        (["purify=pgd"], {"purify": "pgd", "xi": 0.1}),
        (["purify = pgd", "steps=7", "step_size=0.02"], {"purify": "pgd", "xi": 0.1, "steps": 7, "step_size": 0.02}),
        (["purify=cw", "c=5"], {"purify": "cw", "c": 5.0}),
        (["purify=none"], {"purify": "none"}),
    ],
)
def test_settings_lie_over_what_the_checkpoint_says(settings, expected):
    assert TPAP.variants.typed(settings, STORED) == expected


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["purify"], "is no KEY=VALUE of its own; type --inference purify=fgsm"),
        (["xi=0.1", "xi=0.2"], "is no KEY=VALUE of its own"),
        (["purify=pgdd"], "purify is 'pgdd': did you mean 'pgd'?"),
        (["purify=magic"], "known are fgsm, pgd, cw, none"),
        (["noise=uniform"], "no key 'noise': known are purify, xi"),
        (["steps=3"], "steps does not go with purify=fgsm, which takes xi"),
        (["purify=none", "xi=0.1"], "xi does not go with purify=none, which takes nothing"),
        (["xi=2"], r"xi is '2', expected a number in \(0, 1\]"),
        (["purify=pgd", "steps=0"], "steps is '0', expected a positive whole number"),
        (["purify=cw", "lr=fast"], "lr is 'fast', expected a positive number"),
    ],
)
def test_a_wrong_setting_is_one_sentence(settings, sentence):
    with pytest.raises(BadInput, match=sentence):
        TPAP.variants.typed(settings, STORED)


@pytest.mark.parametrize("read", [pixels, positive, whole])
@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1/0", "1e999", "one"])
def test_what_is_no_positive_number_is_refused(read, text):
    with pytest.raises(ValueError, match="such as"):
        read(text)


def test_every_kind_that_may_be_typed_is_built_with_its_numbers(tmp_path):
    for defense in (TPAP, CO_NOISE):
        checkpoint = defense.checkpoint("fashion_mnist")
        for kind, takes in defense.variants.kinds.items():
            numbers = [f"{key}={'3' if key == 'steps' else '1/8'}" for key in takes]
            varied = defense.varied(checkpoint, [f"{defense.variants.key}={kind}", *numbers])
            assert set(varied.inference) == {defense.variants.key, *takes}
            part = getattr(defense.load(varied), "purifier", None)
            assert (part is None) is (kind == "none") is defense.variants.off(varied.inference)
            assert all(getattr(part, key) == (3 if key == "steps" else 0.125) for key in takes), kind


@pytest.mark.parametrize(("name", "setting"), [("tpap", "purify=none"), ("co_noise", "noise=none")])
def test_with_its_part_switched_off_a_defense_is_a_plain_network(name, setting):
    """No trait of the part is left: no draws, no BPDA, no row by transfer. A trait that is declared stays."""
    plan = prepare(name, suite="quick", n=6, inference=(setting,)).plan
    assert (plan.identity["traits"], plan.identity["staged"], plan.draws) == ([], False, 1)
    assert all(not step.adapters for step in plan.steps if step.suite == "claimed")
    assert not {adapter.name for step in plan.steps for adapter in step.adapters} & {"bare", "bpda", "eot", "unroll"}
    declared = prepare(name, suite="quick", n=6, inference=(setting,), traits=("stochastic",)).plan
    assert declared.identity["traits"] == ["stochastic"]
    assert declared.draws > 1
    known = registry.defenses.load(name)
    varied = known.varied(known.checkpoint("fashion_mnist"), [setting])
    assert known.as_set(varied).traits == frozenset()
    assert known.as_set(known.checkpoint("fashion_mnist")) is known


@pytest.mark.parametrize("kind", ["pgd", "cw", "none"])
def test_a_changed_part_keeps_the_radius_of_the_stored_one_and_not_its_clean_accuracy(kind):
    checkpoint = TPAP.checkpoint("fashion_mnist")
    assert TPAP.varied(checkpoint, ["xi=0.2"]) is checkpoint
    varied = TPAP.varied(checkpoint, [f"purify={kind}"])
    assert "clean_accuracy" in checkpoint.measured
    assert "clean_accuracy" not in varied.measured
    assert varied.meant_for_eps == checkpoint.meant_for_eps == 0.2
    assert TPAP.varied(checkpoint, ["xi=0.1"]).meant_for_eps == 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "setting"), [("tpap", "purify=pgd"), ("co_noise", "noise=gaussian")])
def test_it_is_another_run_told_in_the_command_and_found_again(name, setting):
    plans = [prepare(name, suite="quick", n=6, inference=given).plan for given in ((), (setting,))]
    assert plans[0].fingerprint != plans[1].fingerprint
    key, value = setting.split("=")
    assert plans[1].identity["inference"][key] == value
    command = plans[1].runtime["command"]
    assert f"--inference {setting}" in command
    assert "--inference" not in plans[0].runtime["command"]
    sources = Sources.recorded(plans[1].runtime["sources"], weights=None, data=None, data_dir=None)
    found = sources.checkpoint(registry.defenses.load(name), "fashion_mnist")
    assert dict(found.inference) == plans[1].identity["inference"]


def test_the_command_line_takes_it_more_than_once(capsys, monkeypatch):
    typed = shlex.split(
        "run --defense tpap --suite quick --n 6 --inference purify=pgd --inference steps=2 --dry-run --json"
    )
    assert call(*typed) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["identity"]["inference"] == {"purify": "pgd", "steps": 2, "xi": 0.2}
    with pytest.raises(SystemExit) as ended:
        main(["run", "--defense", "undefended", "--n", "6", "--inference", "purify=none"])
    assert ended.value.code == 2
    assert "no test-time part to set; leave out --inference" in capsys.readouterr().err


def test_a_model_of_ones_own_takes_none():
    with pytest.raises(BadInput, match="takes no --inference; leave it out"):
        prepare("tests.own_models:build", suite="quick", n=6, inference=("xi=0.1",))
