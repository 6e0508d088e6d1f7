"""A true claim is not refuted and a bold one is, whatever the seed: PGD-AT's network at AutoAttack's own number, n = 500.

`python -m pytest -m long tests/test_claim_seeds.py -k quick` takes the 20 seeds with the cheapest suite whose attacks
carry the second half (its interval has to end 2 points below the bold claim); `-k standard` with AutoAttack itself.
AutoAttack's number is the library's own driver's, which shares no code with the engine, and is measured once.
"""

from __future__ import annotations

from dataclasses import replace

import pyautoattack
import pytest
import torch

import audit
from audit import registry
from audit.datasets import FASHION_MNIST
from audit.verdict import judge_claim

pytestmark = pytest.mark.long
N, EPS, BATCH = 500, 0.1, 250
BOLD = 0.1
SEEDS = range(20)


@pytest.fixture(scope="module")
def number() -> float:
    """Robust accuracy of the first 500 images under AutoAttack with seed 0."""
    known = registry.defenses.load("pgd_at")
    model = known.load(known.checkpoint("fashion_mnist", None))
    data = FASHION_MNIST.load().first(N)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    attack = pyautoattack.AutoAttack(model, eps=EPS, norm="Linf", seed=0, version="standard", device="cpu")
    x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=BATCH)
    with torch.no_grad():
        return float((model(x_adv).argmax(1) == y).float().mean())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("suite", ["quick", "standard"])
def test_the_verdict_on_a_true_and_on_a_bold_claim(suite, seed, number, tmp_path):
    found = audit.run("pgd_at", suite=suite, n=N, eps=EPS, seed=seed, claim_robust=number, out=tmp_path)
    bold = replace(found.claim, robust_acc=number + BOLD)
    said = found.verdict, judge_claim(bold, found.results, found.diagnoses)
    print(
        f"{suite}, seed {seed}: AutoAttack {number:.1%}, worst case {found.adaptive}: {said[0].outcome}, {said[1].outcome}"
    )
    assert said[0].outcome != "refuted", said[0].reasons
    assert said[1].outcome == "refuted", said[1].reasons
