"""Measure the patients' figures: python -m tests.patients.measure [NAME ...]"""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.types import ThreatModel
from tests.patients import PATIENTS, Patient
from tests.patients.by_hand import hand_attack

DRAWS = 20


def right(patient: Patient, model: nn.Module, x: Tensor, y: Tensor, *, attacked: bool = False) -> float:
    """Accuracy on x (n, c, h, w): of a random model the mean over 20 draws.

    attacked: a rejected image counts for the defense, and of a model that remembers an answer that is right before or
    after its change.
    """
    draws = DRAWS if patient.flag == "randomized" else 1
    rejected = patient.reject if attacked and patient.reject is not None else -1
    hits = torch.zeros(len(x))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(patient.seed)
        for _ in range(draws):
            said = model(x).argmax(1)
            hits += ((said == y) | (said == rejected)).float() / draws
        if attacked and patient.flag == "stateful":
            for _ in range(DRAWS):
                said = model(x).argmax(1)
            hits = hits.maximum((said == y).float())
    return float(hits.mean())


def pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """PGD-20 on cross-entropy: random start, steps of eps / 10, the last iterate. A missing gradient is zero."""
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    adv = (x + eps * (2 * noise - 1)).clamp(0, 1)
    for _ in range(20):
        adv = adv.detach().requires_grad_()
        logits, gradient = model(adv), None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), adv, allow_unused=True)
        step = 0 if gradient is None else eps / 10 * gradient.sign()
        adv = torch.minimum(torch.maximum(adv.detach() + step, x - eps), x + eps).clamp(0, 1)
    return adv


def naive(patient: Patient, x: Tensor, y: Tensor) -> Tensor:
    """The ill attack where the attack is the patient, else PGD-20 on the model as it is."""
    if patient.attack is not None:
        return patient.attack(patient.build(), x, y, ThreatModel("Linf", patient.eps), seed=patient.seed)
    return pgd(patient.build(), x, y, patient.eps, patient.seed)


def survivors(patient: Patient, adv: Tensor, y: Tensor) -> float:
    """Robust accuracy of a fresh model on attacked images."""
    return right(patient, patient.build(), adv, y, attacked=True)


def figures(patient: Patient) -> tuple[float, float, float]:
    """Clean accuracy, robust accuracy under the attack by hand and under `naive`."""
    x, y = patient.images()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(patient.seed)
        clean = right(patient, patient.build(), x, y)
        hand = hand_attack(patient.name)(patient.build(), x, y, patient.eps, patient.seed)
        plain = naive(patient, x, y)
    return clean, survivors(patient, hand, y), survivors(patient, plain, y)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or PATIENTS:
        started = time.perf_counter()
        clean, hand, plain = figures(PATIENTS[name])
        took = time.perf_counter() - started
        print(f"{name:24} clean {clean:.3f}  by hand {hand:.3f}  naive {plain:.3f}  ({took:.0f} s)", flush=True)
