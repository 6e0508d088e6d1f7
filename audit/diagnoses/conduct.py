"""Is this the right model, did the adapters leave its answers alone, and do the records still hold?"""

from __future__ import annotations

import math

from scipy.stats import binomtest

from audit.diagnoses.common import status
from audit.results import Results
from audit.stats import clopper_pearson
from audit.types import Diagnosis

FORWARD_SAMPLE = 100  # images on which adapted models are compared with the defense
FAR_BETTER = 0.2
UNSTATED = " and nothing says what it should be; type --claim-clean 0.91, with the number that the authors state"
UNFINISHED = "the run has not come to its last checks"


def clean_accuracy_handshake(results: Results) -> Diagnosis:
    """Is this the model that its authors measured? Exact binomial test against the expected clean accuracy.

    Expected is what was typed, else what was recorded after training, else what the claim under audit states. A model
    that is no better than guessing is wrong whatever was expected.
    """
    right, n = int(results.correct.sum()), len(results.correct)
    expected, seen = _expected(results), bool((results.prediction >= 0).all())
    guesses = seen and _guesses(results)
    measured = seen and (expected is not None or guesses)
    p = float(binomtest(right, n, expected).pvalue) if expected is not None else math.nan
    if not seen:
        sentence = "the clean pass has not come to every image"
    elif expected is None:
        sentence = f"clean accuracy is {_measured(right, n)}{'' if guesses else UNSTATED}{_hint(results, right / n)}"
    else:
        twice = "; is the input normalised twice, or not at all?" if right / n < 0.5 * expected else ""
        hint = (_hint(results, right / n) or twice) if right / n < expected else ""
        sentence = f"clean accuracy is {_measured(right, n)}, expected is {expected:.1%}{hint}"
    return Diagnosis(
        "clean_accuracy_handshake", status(guesses or p < 1e-3) if measured else "not_measured",
        right / n if measured else None, 1e-3, n, sentence,
        "check the value range, the normalisation, the channel order and the weights", True,
        "binomial test, p below 0.001",
    )  # fmt: skip


def _measured(right: int, n: int) -> str:
    low, high = clopper_pearson(right, n)
    return f"{right / n:.1%} (n = {n:,}, 95 % [{low:.1%}, {high:.1%}])"


def _guesses(results: Results) -> bool:
    """Is the model right no more often than one that names labels at random (exact binomial test at 5 %)?"""
    labels = len(set(results.label.tolist()))
    right, n = int(results.correct.sum()), len(results.correct)
    return labels > 1 and right * labels <= 2 * n and float(binomtest(right, n, 1 / labels, "greater").pvalue) > 0.05


def _hint(results: Results, accuracy: float) -> str:
    """What to type next, where the model seems to have been made for other pixels or for other images."""
    of_range = _range_hint(results, accuracy)
    if of_range or not _guesses(results):
        return of_range
    data, labels = results.plan.identity.get("dataset", "the data"), len(set(results.label.tolist()))
    return (
        f"; that is no better than guessing among {labels} labels: was it trained on {data}? If not, type "
        "--data my_images.npz or --dataset NAME with what it was trained on"
    )


def _range_hint(results: Results, accuracy: float) -> str:
    """Which other range of pixels the model seems to expect; empty where it does not do far better in any."""
    found = results.plan.profile.get("right_in_range") or {}
    shares = {name: float(share) for name, share in found.items() if share is not None}
    best = max(shares, key=lambda name: shares[name], default="")
    if not best or shares[best] < accuracy + FAR_BETTER:
        return ""
    return f"; with pixels from {best.replace(',', ' to ')} it is {shares[best]:.1%} on a sample: type --value-range {best}"


def _expected(results: Results) -> float | None:
    identity = results.plan.identity
    known = identity.get("expected_clean_acc")
    if known is None:
        known = (identity.get("claim") or {}).get("clean_acc")
    return None if known is None else float(known)


def adapter_forward(results: Results) -> Diagnosis:
    """Adapters may change gradients, not answers. Steps made on the bare network answer otherwise on purpose."""
    found = results.checks.get("forward_mismatch")
    bare = {s.name for s in results.plan.steps if any(a.name == "base" for a in s.adapters)}
    worst = max((v for k, v in found.items() if k not in bare), default=0.0) if found is not None else math.nan
    n = min(FORWARD_SAMPLE, results.plan.n)
    several = found is not None and worst * n > 1.5  # one image may lie on the edge that float64 rounds otherwise
    return Diagnosis(
        "adapter_forward", status(worst > 0.01 and several) if found is not None else "not_measured",
        worst if found is not None else None, 0.01, n,
        f"adapted models classify up to {worst:.1%} of the images otherwise than the defense"
        if found is not None else UNFINISHED,
        "use adapters whose forward pass equals the defense's", True, "forward equality",
    )  # fmt: skip


def run_integrity(results: Results) -> Diagnosis:
    """Was the model left as it was, and do the stored images still prove what the records say?"""
    checks = results.checks
    verified, rejected = int(checks.get("verified", 0)), int(checks.get("rejected", 0))
    unchanged = bool(checks.get("model_unchanged", True))
    wrong = rejected + int(not unchanged)
    return Diagnosis(
        "run_integrity", status(wrong > 0) if checks else "not_measured", float(wrong) if checks else None, 0.0,
        verified,
        f"{verified} stored adversarial images were judged again with another batch size, {rejected} rejected; "
        f"the model is {'unchanged' if unchanged else 'CHANGED'}" if checks else UNFINISHED,
        "find what changes the model, or what depends on the batch", True,
        "Carlini et al. 2019; RobustBench issue 7",
    )  # fmt: skip
