"""Results built by hand: 1,000 images, any steps, and what each of them broke."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from audit.plan import Plan
from audit.results import Results
from audit.step_results import StepResult
from audit.types import AdapterSpec, Claim, Diagnosis, Step, ThreatModel

N = 1000
PROFILE = {
    "n": N, "clean_correct": 900, "classes": 10, "logit_gap": 5.0, "zero_gradient": 0.0, "saturated": 0.0,
    "max_draw_difference": 0.0, "softmax_output": False,
}  # fmt: skip
HEALTHY = dict.fromkeys(("zero", "zero_in_ball", "bad", "zero_pixels"), 0.0)
EXAMINED = {
    "examined": 64, "random_by_seed": False, "repeats_correct": [58] * 5, "repeats_difference": 0.0, "dynamic": False,
    "dynamic_in": [], "enables_gradients": False, "gradient_cut": False, "gradient_cut_at": [], "gradient_cut_shapes": {},
    "front_at": [], "bare_network_at": None, "gradient_snr": None, "draws_for_snr": 1, "logit_range": [-21.6, 24.2],
    "distinct_logits": 1.0, "logit_step": None,
    "loss_gradients": dict.fromkeys(("ce", "ce-rescaled", "ce-float64", "margin", "dlr"), HEALTHY),
    "softmax_saturated": 0.0, "ce_cosine_float64": 1.0, "ce_cosine_rescaled": 0.9,
    "difference_cosine": {"0.001": 0.97, "0.1": 0.96}, "difference_ratio": {"0.001": 1.0, "0.1": 1.0},
    "slope_agreement": 0.99, "loss_change": 0.05, "linearity_gap": {"0.01": 0.06, "0.1": 0.1, "1": 0.3},
    "gradient_cosine": {"0.01": 0.9, "0.1": 0.87},
    "eps_curve": [{"eps": e, "accuracy": a} for e, a in ((0.016, 0.6), (0.03, 0.3), (0.06, 0.0), (0.5, 0.0))],
    "batch_difference": 3e-7, "batch_flips": 0.0, "state_changes": [], "state_drift": 0.0, "stateful": False,
}  # fmt: skip
CHECKS = {"forward_mismatch": {"rescaled-ce": 0.0}, "model_unchanged": True, "verified": 40, "rejected": 0}


def mask(*spans: tuple[int, int], n: int = N) -> np.ndarray:
    made = np.zeros(n, bool)
    for start, stop in spans:
        made[start:stop] = True
    return made


NONE = mask()


def traced(*zeros) -> tuple[np.ndarray, ...]:
    """One trace per shard: the first row has no gradient yet, three more have a constant share of zero ones."""
    rows = [[(1.0, 1.0, 0.0, z, 1.0) for z in (np.nan, zero, zero, zero)] for zero in zeros if zero is not None]
    return tuple(np.asarray(shard, np.float32) for shard in rows)


def ran(name, broken=NONE, *, suite="adaptive", scope="survivors", attacked=None, returned=None, errors=NONE, done=True,
        messages=(), n=N, attack="pgd", adapters=(), params=None, zero=0.0, nearest=None) -> StepResult:  # fmt: skip
    """zero: the share of zero gradients all along the trace; None leaves no trace."""
    step = Step(name, attack, suite, scope, tuple(AdapterSpec(a) for a in adapters), params or {})
    attacked = mask((0, 900), n=n) if attacked is None else attacked
    returned = broken if returned is None else returned
    own = (mask((0, 900), n=n) & ~broken).astype(np.float32)
    views = {"returned": (mask((0, 900), n=n) & ~returned).astype(np.float32)}
    far = np.full(n, np.nan, np.float32) if nearest is None else nearest
    return StepResult(
        step,
        attacked,
        broken,
        returned,
        errors,
        errors,
        returned,
        own,
        own,
        views,
        far,
        1,
        1,
        0.0,
        messages,
        traced(zero),
        done,
    )


def claimed(name="pgd-20", broken=NONE, **changes) -> StepResult:
    return ran(name, broken, **{"suite": "claimed", "scope": "all", **changes})


def control(broken=None, **changes) -> StepResult:
    first = mask((0, 100))
    broken = first if broken is None else broken
    return ran("unbounded", broken, **{"suite": "control", "scope": "control", "attacked": first, **changes})


def built(
    *steps: StepResult,
    missing=0,
    checks=CHECKS,
    profile=None,
    expected=0.9,
    prediction=None,
    examined=True,
    **identity,
) -> Results:
    """900 of 1,000 images are correct: the first 900. examined: as runs are since release 0.1.0."""
    whole = {"n": N, "seed": 0, "batch_size": 250, "norm": "Linf", "eps": 8 / 255, "expected_clean_acc": expected}
    plan = Plan(
        {**whole, **identity},
        tuple(s.step for s in steps),
        {**PROFILE, **(EXAMINED if examined else {}), **(profile or {})},
    )
    label = np.zeros(N, np.int64)
    seen = np.where(mask((0, 900)), 0, 1) if prediction is None else prediction
    right = seen == label
    p_clean = right.astype(np.float32)
    running, kept = p_clean, []
    for result in steps:
        if result.step.scope != "control":
            running = running * ~result.broken
        kept.append(replace(result, p_after=running))
    logits = np.zeros((N, 10), np.float32)
    return Results(plan, right, p_clean, right, label, seen, logits, tuple(kept), missing, checks)


def typed(robust: float, basis="typed", tolerance=0.02) -> Claim:
    return Claim("d", "s", "a", ThreatModel(), "pgd", robust, basis, tolerance=tolerance, basis=basis)


MEASURED = typed(0.9, "measured")


def finding(status="clear", *, blocking=True, name="finding") -> Diagnosis:
    return Diagnosis(name, status, 0.0, 0.0, 1, "the sentence", "the remedy", blocking, "reference")
