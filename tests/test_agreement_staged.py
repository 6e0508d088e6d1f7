"""Defenses with a test-time part: the audit finds at least what generic attacks on the whole find. Slow."""

from __future__ import annotations

import pyautoattack
import pytest
import torch
from torch import nn

import audit
from adapters.bpda import Bpda
from audit import registry
from audit.datasets import FASHION_MNIST
from audit.oracle import Oracle

pytestmark = pytest.mark.slow
N = 100


def deployed(defense: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    known = registry.defenses.load(defense)
    data = FASHION_MNIST.load().first(N)
    model = known.load(known.checkpoint("fashion_mnist", None))
    return model, torch.from_numpy(data.x), torch.from_numpy(data.y)


def robust_accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor, draws: int) -> float:
    return float(Oracle(model, batch_size=N, seed=12345, draws=draws).judge(x, y).p_correct.mean())


def test_tpap_is_no_stronger_than_straight_through_apgd_finds(tmp_path):
    model, x, y = deployed("tpap")
    eps = 0.1
    library = pyautoattack.AutoAttack(Bpda(model), eps=eps, norm="Linf", seed=0, version="standard", device="cpu")
    library.attacks_to_run = ["apgd-ce"]
    x_adv, _ = library.run_standard_evaluation(x, y, batch_size=N)
    found = audit.run("tpap", suite="quick", n=N, eps=eps, out=tmp_path / "run")
    assert found.adaptive.accuracy <= robust_accuracy(model, x_adv, y, 1) + 0.01
    grey = next(r for r in found.to_dict()["routes"] if r["attack"] == "pgd-20")
    assert grey["bare"]["accuracy"] < grey["transfer"]["accuracy"] - 0.3  # what the paper saw
    assert found.adaptive.accuracy < grey["transfer"]["accuracy"] - 0.3  # and what it did not


def test_co_noise_is_no_stronger_than_autoattack_for_random_defenses_finds(tmp_path):
    model, x, y = deployed("co_noise")
    eps = 0.2
    library = pyautoattack.AutoAttack(model, eps=eps, norm="Linf", seed=0, version="rand", device="cpu")
    library.attacks_to_run = ["apgd-ce"]  # the first of its two, with 20 draws
    torch.manual_seed(0)
    x_adv, _ = library.run_standard_evaluation(x, y, batch_size=N)
    theirs = robust_accuracy(model, x_adv, y, 97)  # images fixed, fresh draws: the library's own count is of one draw
    found = audit.run("co_noise", suite="quick", n=N, eps=eps, out=tmp_path / "run")
    assert found.results.plan.draws == 97
    assert found.adaptive.accuracy <= theirs + 0.03
