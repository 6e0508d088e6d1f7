"""Baselines built by hand, of 1,000 images or of as many shares as are given."""

from __future__ import annotations

import json

import numpy as np

from audit.baselines import Baseline, Figure
from audit.summary import Audit
from tests.built import built, claimed, mask, ran

IDENTITY = {
    "defense": "undefended", "dataset": "fashion_mnist", "suite": "quick", "architecture": {"name": "lenet"},
    "weights_sha256": "ab" * 32, "dataset_digest": "cd" * 32, "code": "0.1.0", "versions": {"torch": "2.15"},
}  # fmt: skip
RECORD = {
    "defense": "undefended", "architecture": {}, "weights_sha256": "ab" * 32, "seed": 0, "batch_size": 250,
    "code": "0.1.0", "versions": {"torch": "2.15"}, "device": "cpu", "threads": 1, "command": "typed", "data_source": "",
}  # fmt: skip


def audited(*steps, path="runs/planted", **changes) -> Audit:
    """A run of 1,000 images, 900 correct; without `steps` a claimed PGD that breaks 300 and APGD that breaks 400."""
    chosen = steps or (claimed("pgd-20", mask((0, 300))), ran("apgd", mask((0, 400)), attack="apgd-margin"))
    steps_as_stored = json.loads(json.dumps([s.step.to_dict() for s in chosen]))
    found = built(*chosen, **{**IDENTITY, "steps": steps_as_stored, **changes})
    return Audit(path, found)


def frozen(worst, clean=None, *, draws=1, digest="cd" * 32, fingerprint="f0", record=None, attacks=None, **changes):
    """A baseline of given hits per image, int (n,): worst case, clean (default: all right), and attacks run alone."""
    worst = np.asarray(worst, np.int64)
    clean = np.full_like(worst, draws) if clean is None else np.asarray(clean, np.int64)
    figures = [Figure("worst case", "worst", worst, draws), Figure("clean", "clean", clean, draws)]
    figures += [Figure(name, "alone", np.asarray(hits, np.int64), draws) for name, hits in (attacks or {}).items()]
    comparable = {
        "dataset": "fashion_mnist", "n": len(worst), "norm": "Linf", "eps": 8 / 255, "suite": "quick", "draws": draws,
        "steps": {"pgd-20": {"attack": "pgd", "params": {"steps": 20}}}, **changes,
    }  # fmt: skip
    return Baseline(comparable, digest, fingerprint, {**RECORD, **(record or {})}, tuple(figures))


def standing(count: int, n: int) -> np.ndarray:
    """The first `count` of n images are right."""
    return (np.arange(n) < count).astype(np.int64)
