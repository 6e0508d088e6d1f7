"""The six indicators of attack failure (Pintor et al. 2022), over all images instead of ten."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from audit.diagnoses.common import (
    NOT_EXAMINED,
    ZERO_SHARE,
    averaged,
    bridged,
    control_left,
    counted,
    status,
    unmeasured,
    white_box,
    zero_gradients,
)
from audit.results import Results
from audit.step_results import StepResult
from audit.types import Diagnosis

NO_CLAIMED = "no claimed attack has run on all its images, so there is nothing to compare"
UNSTABLE = 0.1
UNSETTLED = 0.05
LAST = 10
FEW = 10  # images; a step that came to fewer says little of how attacks settle
MARGIN = 1  # column of a trace


def shattered_gradient(results: Results) -> Diagnosis:
    """No gradient leads from the logits to the images: every attack that follows it stands still.

    The paper's indicator fires when one sample has none; here when the examined images have none at all, since a share of
    zero gradients has diagnoses of its own (vanishing_gradient, zero_gradient_in_attack).
    """
    profile = results.plan.profile
    cut = bool(profile.get("gradient_cut", False))
    at = ", ".join(profile.get("gradient_cut_at") or ()) or "the model's own code"
    sentence = "no gradient of the defense leads to its input: a part of it is not differentiable"
    if "gradient_cut_at" in profile:
        sentence += f" ({at})"
    return Diagnosis(
        "shattered_gradient", status(cut, resolved=bridged(results)), float(cut), 0.0,
        int(profile["n"]), sentence if cut else "the gradient leads from the logits to the input",
        "attack through BPDA or unrolling, and by transfer", True,
        "Athalye et al. 2018 (shattered gradients); Pintor et al. 2022, indicator 1",
    )  # fmt: skip


def unstable_predictions(results: Results) -> Diagnosis:
    """It blocks nothing: the paper draws no line, and a robust network at a large radius changes its loss as much.

    The paper takes the attack's loss and 100 noises 8/255 wide; here the margin, 16 noises as wide as eps on 32 images,
    for the time.
    """
    name, remedy, reference = "unstable_predictions", "average the attack's gradient over draws, or estimate it over a radius", "Pintor et al. 2022, indicator 2, on the margin"  # fmt: skip
    change = results.plan.profile.get("loss_change")
    if change is None:
        why = (
            "no image that was examined is classified correctly" if "examined" in results.plan.profile else NOT_EXAMINED
        )
        return unmeasured(name, why, remedy, reference, UNSTABLE)
    return Diagnosis(
        name, status(change > UNSTABLE, resolved=averaged(results)), float(change), UNSTABLE,
        int(results.plan.profile["examined"]), f"noise of up to eps/2 changes the margin by {change:.1%} of itself",
        remedy, False, reference,
    )  # fmt: skip


def silent_success(results: Results) -> Diagnosis:
    """Resolved once the worst case counts what was harvested on the way, judged again; the claimed figure does not."""
    steps = [r for r in results.claimed if r.step.scope == "all"]
    silent = np.zeros_like(results.correct)
    for result in steps:
        silent |= result.silent
    sentence = f"of {int(silent.sum())} images a claimed attack met an adversarial one on its way and returned another"
    return Diagnosis(
        "silent_success", status(bool(silent.any()), resolved=counted(results, silent)) if steps else "not_measured",
        float(silent.mean()) if steps else None, 0.0, len(silent), sentence if steps else NO_CLAIMED,
        "keep the best query; the worst case counts these images as broken", False, "Pintor et al. 2022, indicator 3",
    )  # fmt: skip


def incomplete_optimisation(results: Results) -> Diagnosis:
    """Was the best settled of the gradient attacks still gaining when it ended?

    Attacks on the whole defense count; those on the bare network where there are no others. One that broke every image
    it came to has nothing left to gain. One that stood still on zero gradients, or came to fewer than ten images, settles
    nothing. Whether twice the steps break more is asked by running them.
    """
    name, remedy, reference = "incomplete_optimisation", "double the steps and restarts until that changes nothing", "Pintor et al. 2022, indicator 4, on the running minimum of the mean margin"  # fmt: skip
    steps = white_box(results) or tuple(r for r in results.counted if r.done and r.step.transfers)
    fewest = min(FEW, int(results.correct.sum()))
    gains = {r.step.name: gain for r in steps if (gain := _last_gain(r, fewest)) is not None}
    if not gains:
        return unmeasured(name, "no attack of several steps had gradients to follow", remedy, reference, UNSETTLED)
    best = min(gains, key=lambda step: gains[step])
    return Diagnosis(
        name, status(gains[best] > UNSETTLED), gains[best], UNSETTLED, len(results.correct),
        f"of {len(gains)} attacks with gradients {best} had settled best: its last steps made "
        f"{gains[best]:.1%} of what it gained in all", remedy, True, reference,
    )  # fmt: skip


def _last_gain(result: StepResult, fewest: int) -> float | None:
    """The largest over shards of indicator 4: the part of all gain that the last ten steps (or rows of a trace) made."""
    zero = zero_gradients(result)
    if zero is None:
        return None
    if bool(result.broken[result.attacked].all()) and result.step.limit is None:
        return 0.0
    if zero > ZERO_SHARE or int(result.attacked.sum()) < fewest:
        return None
    return max(_defined(indicator_4(trace[:, MARGIN]) for trace in result.traces), default=None)


def _defined(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def indicator_4(losses: NDArray[np.floating]) -> float:
    """Of losses to be minimised (m,): shifted to 0 and scaled to 1, the fall of the running minimum over the last ten,
    or over all where there are fewer.

    0 where the loss never changed, NaN for fewer than two numbers: one step has no course.
    """
    losses = losses[np.isfinite(losses)]
    if len(losses) < 2:
        return math.nan
    span = float(np.ptp(losses))
    if span == 0:
        return 0.0
    lowest = np.minimum.accumulate((losses - losses.min()) / span)
    return float(lowest[-min(LAST, len(lowest) - 1) - 1] - lowest[-1])


def unbounded_control(results: Results) -> Diagnosis:
    """The unconstrained attack must break every image: else the attack failed, not the defense held."""
    attacked, left = control_left(results)
    crashed = sum(int(r.errors.sum()) for r in results.steps if r.step.scope == "control")
    sentence = f"with no bound but the box, {left} of {attacked} images survive"
    if crashed:
        sentence += f", {crashed} of them because the attack crashed"
    return Diagnosis(
        "unbounded_control", status(left > 0) if attacked else "not_measured", left / attacked if attacked else None,
        0.0, attacked, sentence if attacked else "no unbounded attack has run on any image",
        "change the loss or the adapters until the unbounded attack breaks everything (suites adaptive and quick have one)",
        True, "Athalye et al. 2018; Pintor et al. 2022, indicator 6",
    )  # fmt: skip
