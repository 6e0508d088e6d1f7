"""The audit agrees with pyautoattack's own standard evaluation, and never refutes what that confirms. Slow."""

from __future__ import annotations

from dataclasses import replace

import pyautoattack
import pytest
import torch

import audit
from audit import registry
from audit.datasets import FASHION_MNIST
from audit.verdict import judge_claim

pytestmark = pytest.mark.slow
N = 60


def autoattack_accuracy(defense: str, eps: float) -> float:
    """Robust accuracy by the library's own driver, which shares no code with the engine."""
    known = registry.defenses.load(defense)
    model = known.load(known.checkpoint("fashion_mnist", None))
    data = FASHION_MNIST.load().first(N)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    attack = pyautoattack.AutoAttack(model, eps=eps, norm="Linf", seed=0, version="standard", device="cpu")
    x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=N)
    with torch.no_grad():
        return float((model(x_adv).argmax(1) == y).float().mean())


@pytest.mark.parametrize(("defense", "eps"), [("pgd_at", "0.1"), ("undefended", "8/255")])
def test_standard_agrees_with_autoattack_within_a_point(defense, eps, tmp_path):
    theirs = autoattack_accuracy(defense, audit.types.parse_eps(eps))
    ours = audit.run(defense, suite="standard", n=N, eps=eps, out=tmp_path / "run", claim_robust=theirs)
    assert abs(ours.adaptive.accuracy - theirs) <= 0.01 + 1e-9
    assert ours.verdict.outcome != "refuted"
    assert ours.results.checks["rejected"] == 0
    if defense == "pgd_at":  # twenty points above what holds is refuted once n carries it: the exact interval decides
        bold = replace(ours.claim, robust_acc=min(theirs + 0.2, 1.0))
        assert judge_claim(bold, ours.results, ours.diagnoses).outcome == "refuted"


def test_undefended_falls_and_super_fitting_collapses(tmp_path):
    plain = audit.run("undefended", suite="quick", n=N, eps="16/255", out=tmp_path / "plain")
    assert plain.adaptive.accuracy <= 0.06
    broken = audit.run("super_fitting", suite="quick", n=N, eps="16/255", out=tmp_path / "broken")
    assert broken.claimed.accuracy >= 0.7
    assert broken.adaptive.accuracy <= 0.04
    assert broken.verdict.outcome == "refuted"
    assert broken.verdict.reasons[1] == "gradient masking, vanishing: the loss saturates"
