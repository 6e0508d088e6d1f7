"""The paper defenses: the audit finds at least what generic attacks on the whole find. Slow.

"At least" is paired and exact: the sign-flip test (`audit.stats.drop_p_value`) on the correct draws of each image.
"""

from __future__ import annotations

import numpy as np
import pyautoattack
import pytest
import torch
from torch import nn

import audit
from adapters.bpda import Bpda
from audit import registry
from audit.datasets import FASHION_MNIST
from audit.oracle import Oracle
from audit.stats import drop_p_value

pytestmark = pytest.mark.slow
N = 100
NOISE = 0.05


def deployed(defense: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    known = registry.defenses.load(defense)
    data = FASHION_MNIST.load().first(N)
    model = known.load(known.checkpoint("fashion_mnist", None))
    return model, torch.from_numpy(data.x), torch.from_numpy(data.y)


def by_the_library(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, version: str, attack: str = "apgd-ce"
) -> torch.Tensor:
    library = pyautoattack.AutoAttack(model, eps=eps, norm="Linf", seed=0, version=version, device="cpu")
    assert version != "rand" or (library.attacks_to_run, library.apgd.eot_iter) == (["apgd-ce", "apgd-dlr"], 20)
    library.attacks_to_run = [attack]
    torch.manual_seed(0)
    return library.run_standard_evaluation(x, y, batch_size=N)[0]


def p_correct(model: nn.Module, x: torch.Tensor, y: torch.Tensor, draws: int = 1) -> np.ndarray:
    return Oracle(model, batch_size=N, seed=12345, draws=draws).judge(x, y).p_correct.numpy()


def higher(ours: np.ndarray, theirs: np.ndarray, draws: int = 1) -> float:
    """The p-value of ours being higher than theirs, image by image; small where it is so by more than noise."""
    return drop_p_value(*(np.rint(p * draws).astype(np.int64) for p in (ours, theirs)))


def test_tpap_is_no_stronger_than_straight_through_apgd_finds(tmp_path):
    model, x, y = deployed("tpap")
    eps = 0.2
    theirs = p_correct(model, by_the_library(Bpda(model), x, y, eps, "standard"), y)
    found = audit.run("tpap", suite="quick", n=N, eps=eps, out=tmp_path / "run")
    ours = found.results.p_worst
    assert ours.mean() <= theirs.mean()  # nothing is random here
    assert higher(p_correct(model, x, y), theirs) < NOISE  # the test could fail
    grey = next(r for r in found.to_dict()["routes"] if r["attack"] == "pgd-20")
    assert grey["bare"]["accuracy"] < grey["transfer"]["accuracy"] - 0.3  # what the paper saw
    assert found.adaptive.accuracy < grey["transfer"]["accuracy"] - 0.3  # and what it did not


def test_co_noise_is_no_stronger_than_autoattack_for_random_defenses_finds(tmp_path):
    model, x, y = deployed("co_noise")
    eps, draws = 0.3, 97
    # Images fixed, then fresh draws: the library's own count is of one draw. Its second part takes what the first left.
    theirs = p_correct(model, by_the_library(model, x, y, eps, "rand"), y, draws)
    left = np.flatnonzero(theirs > 0)
    second = p_correct(model, by_the_library(model, x[left], y[left], eps, "rand", "apgd-dlr"), y[left], draws)
    theirs[left] = np.minimum(theirs[left], second)
    found = audit.run("co_noise", suite="quick", n=N, eps=eps, out=tmp_path / "run")
    ours = found.results.p_worst
    assert found.results.plan.draws == draws
    assert ours.mean() <= theirs.mean()
    assert higher(ours, theirs, draws) > NOISE
    assert higher(p_correct(model, x, y, draws), theirs, draws) < NOISE
    grey = next(r for r in found.to_dict()["routes"] if r["attack"] == "pgd-50")
    assert grey["bare"]["accuracy"] < grey["transfer"]["accuracy"] - 0.2  # what the paper saw
    assert found.adaptive.accuracy < grey["transfer"]["accuracy"] - 0.2  # and what it did not


def test_sim_adv_is_no_stronger_than_apgd_finds(tmp_path):
    model, x, y = deployed("sim_adv")
    eps = 0.2
    theirs = p_correct(model, by_the_library(model, x, y, eps, "standard"), y)
    found = audit.run("sim_adv", suite="quick", n=N, eps=eps, out=tmp_path / "run")
    assert found.results.p_worst.mean() <= theirs.mean()
    assert higher(p_correct(model, x, y), theirs) < NOISE
