"""`audit test-attack`: names become the steps that an audit of the defense runs, and the exit code tells the outcome."""

from __future__ import annotations

import json

import pytest

from audit.binarisation.prepare import chosen_step
from audit.cli import main
from audit.errors import BadInput
from audit.preparation import prepare


def call(*arguments: object) -> int:
    """Run `test-attack` in this process and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["test-attack", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_a_weak_attack_ends_in_exit_code_1(capsys):
    assert call("--defense", "super_fitting", "--attack", "bim-20", "--n", "3") == 1
    printed = capsys.readouterr().out
    assert "bim-20 finds 0.0% of the adversarial examples that exist by construction (n = 3, [0.0%, 70.8%])" in printed
    assert "expected at least 95%: the attack is what failed" in printed
    assert "found by 20 random tries" in printed


def test_a_good_one_ends_in_0_and_in_json(capsys):
    shorter = ["--set", "apgd-margin.n_iter=40"]
    assert call("--defense", "super_fitting", "--attack", "apgd-margin", "--n", "3", "--json", *shorter) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["n"], found["setup_failed"], found["asr"]) == ("apgd-margin", 3, 0, 1.0)
    assert found["params"]["n_iter"] == 40
    assert found["passed"] is True
    assert found["outcomes"] == ["found"] * 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--attack", "bim-2"], "'bim-2' is neither a step of a suite nor an attack: did you mean 'bim-20'?"),
        (["--attack", "bim-20", "--norm", "L0"], "supports Linf, L2, L1, got L0"),
        (["--attack", "bim-20", "--norm", "L2"], "supports Linf, not L2"),
        (["--attack", "bim-20", "--n", "0"], "--n is 0, expected at least 1"),
        (["--attack", "bim-20", "--set", "pgd-20.steps=3"], "names step 'pgd-20'"),
    ],
)
def test_mistakes_end_in_a_sentence(flags, said, capsys):
    assert call("--defense", "super_fitting", *flags) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defense", "name", "attack", "adapters"),
    [
        ("tpap", "apgd-margin", "apgd-margin", ["bpda"]),
        ("tpap", "pgd-20", "pgd", ["base"]),
        ("tpap", "e2e-pgd-20", "pgd", ["bpda"]),
        ("tpap", "unroll-margin", "apgd-margin", ["unroll"]),
        ("tpap", "mi-fgsm", "mi-fgsm", ["bpda"]),
        ("co_noise", "bim", "bim", ["eot"]),
        ("co_noise", "eot-pgd", "eot-pgd", []),
        ("super_fitting", "rescaled-ce", "apgd-ce", ["rescale"]),
    ],
)
def test_a_name_means_what_an_audit_of_this_defense_runs(defense, name, attack, adapters):
    step = chosen_step(prepare(defense, n=8), name, [], "fashion_mnist")
    assert (step.attack, [adapter.name for adapter in step.adapters]) == (attack, adapters)
    assert "auto" not in [value for adapter in step.adapters for value in adapter.params.values()]


def test_a_step_that_the_rules_leave_out_is_refused():
    with pytest.raises(BadInput, match="spsa is left out: too dear through averaged draws"):
        chosen_step(prepare("co_noise", n=8), "spsa", [], "fashion_mnist")
