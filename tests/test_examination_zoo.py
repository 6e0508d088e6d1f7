"""What the examination says of the shipped checkpoints: each its own kind of masking, and the honest ones none."""

from __future__ import annotations

import pytest
import torch

from audit import registry
from audit.datasets import FASHION_MNIST
from audit.diagnoses import diagnose, kind_of_masking
from audit.gates import fingerprint_model, profile
from audit.types import ThreatModel
from tests.built import built, claimed, control, ran

STEPS = claimed(), ran("apgd-margin"), ran("square", attack="square"), control()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "unresolved"),
    [
        ("undefended", None, set()),
        ("pgd_at", None, set()),
        ("sim_adv", None, set()),
        ("super_fitting", "vanishing", set()),  # resolved by the margin and the control
        ("distillation", "vanishing", set()),
        ("tpap", "dynamic", {"dynamic"}),  # that no gradient gets through follows from it
        ("co_noise", "stochastic", {"randomized"}),
    ],
)
def test_each_shipped_defense_is_of_its_kind(name, kind, unresolved):
    defense, data = registry.defenses.load(name), FASHION_MNIST.load().first(64)
    checkpoint = defense.checkpoint("fashion_mnist", None)
    model = defense.load(checkpoint)
    before = fingerprint_model(model)
    threat = ThreatModel("Linf", checkpoint.meant_for_eps or 8 / 255)
    seen = profile(model, torch.from_numpy(data.x), torch.from_numpy(data.y), batch_size=64, seed=0, threat=threat)
    assert fingerprint_model(model) == before
    results = built(*STEPS, profile=seen)
    assert kind_of_masking(results) == kind
    assert {d.name for d in diagnose(results) if d.blocking and d.status == "flagged"} == unresolved
    staged = name in ("tpap", "co_noise")
    assert (seen["bare_network_at"], seen["front_at"]) == (("network", ["purifier"]) if staged else (None, []))
    if kind not in ("dynamic", "stochastic"):
        assert seen["difference_cosine"]["0.1"] > 0.9
        assert seen["slope_agreement"] > 0.98
        assert seen["batch_difference"] < 1e-5
    if name == "co_noise":
        assert 8 <= seen["draws_for_snr"] <= 24
