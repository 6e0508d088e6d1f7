"""The flags of AutoAttack (Croce and Hein 2020, its checks and flags), each measured on more than one batch."""

from __future__ import annotations

from audit.diagnoses.common import (
    BLACK_BOX,
    NOT_EXAMINED,
    ZERO_SHARE,
    averaged,
    most_draws,
    ran_clean,
    remedied,
    status,
    through,
    unmeasured,
    white_box,
    zero_gradients,
)
from audit.diagnoses.gradients import vanishing_gradient
from audit.randomness import RANDOM, drift, random, remembers
from audit.results import Results
from audit.types import Diagnosis

FEW_CLASSES = 4


def randomized(results: Results) -> Diagnosis:
    """Randomness that the defense declares is resolved by gradients over enough draws; undeclared randomness is not.

    Answers that change because the model remembers are no randomness: see `stateful`.
    """
    profile = results.plan.profile
    seen, memory = drift(profile), remembers(profile)
    declared = "stochastic" in results.plan.identity.get("traits", ())
    enough = averaged(results) and most_draws(results) >= (profile.get("draws_for_snr") or 1)
    sentence = f"repeated passes change the normalised logits by up to {seen:.2g}"
    counts = profile.get("repeats_correct") or [0]
    if min(counts) != max(counts):
        sentence += f"; of {profile['examined']} images {min(counts)} to {max(counts)} are right in one pass"
    if (profile.get("draws_for_snr") or 1) > 1 and random(profile):
        sentence += f"; the gradient of one draw is mostly noise until {profile['draws_for_snr']} are averaged"
    if memory and seen > RANDOM:
        sentence += ", by memory and not at random (see stateful)"
    return Diagnosis(
        "randomized", status(random(profile), resolved=declared and enough), seen, RANDOM,
        int(profile["n"]), sentence,
        "declare the trait stochastic, average the attack's gradient over draws (EOT) and judge on fresh ones", True,
        "AutoAttack's randomized flag; Athalye et al. 2018 (stochastic gradients)",
    )  # fmt: skip


def softmax_output(results: Results) -> Diagnosis:
    found = bool(results.plan.profile["softmax_output"])
    return Diagnosis(
        "softmax_output", status(found, resolved=remedied(results)), float(found), 0.0,
        int(results.plan.profile["n"]),
        "the model returns probabilities" if found else f"the model returns logits{_range(results)}",
        "return logits; CE would apply softmax twice", True, "AutoAttack's softmax flag",
    )  # fmt: skip


def _range(results: Results) -> str:
    low, high = results.plan.profile.get("logit_range") or (None, None)
    return "" if low is None else f", from {low:.3g} to {high:.3g} on a sample"


def zero_gradient_in_attack(results: Results) -> Diagnosis:
    """The share of exactly zero gradients along each attack on the whole defense; another loss resolves one's zeros.

    AutoAttack fires at one zero in the first step. Here a share along the attack counts; NaN counts as zero. A gradient of
    1e-20 is none of them: attacks step along its sign or its direction, which size does not touch.

    It blocks only where nothing seen at the clean images explains it: `vanishing_gradient` and `shattered_gradient` do.
    """
    name, remedy, reference = "zero_gradient_in_attack", "attack with losses of logit differences", "AutoAttack's zero-gradient flag, every loss, every step"  # fmt: skip
    shares = {r.step.name: share for r in white_box(results) if (share := zero_gradients(r)) is not None}
    if not shares:
        return unmeasured(name, "no attack on the whole defense has recorded a gradient", remedy, reference, ZERO_SHARE)
    worst, least = max(shares, key=lambda step: shares[step]), min(shares.values())
    explained = bool(results.plan.profile.get("gradient_cut")) or vanishing_gradient(results).status == "flagged"
    others = "" if shares[worst] <= ZERO_SHARE else f"; on the best of {len(shares)} attacks {least:.1%} are"
    return Diagnosis(
        name, status(shares[worst] > ZERO_SHARE, resolved=least <= ZERO_SHARE), shares[worst], ZERO_SHARE,
        len(results.correct), f"along {worst}, {shares[worst]:.1%} of the gradients are exactly zero{others}",
        remedy, not explained, reference,
    )  # fmt: skip


def black_box_beats_white_box(results: Results) -> Diagnosis:
    """Paired: what Square breaks of what was left. A score-based step that crashed clears nothing, nor one without images.

    AutoAttack's flag asks for 0.2 points and no test; here half a point and McNemar's p < 0.01, as Athalye's sign is a pair.
    """
    name, remedy, reference = "black_box_beats_white_box", "more steps and restarts, other losses, or BPDA for the gradient attacks (suites adaptive and standard run Square)", "Athalye et al. 2018, sign 2; AutoAttack's Square flag"  # fmt: skip
    steps = [r for r in results.named(*BLACK_BOX) if r.step.scope == "survivors"]
    whites = [r for r in results.counted if r.step.name not in BLACK_BOX]
    if steps and not any(r.attacked.any() for r in steps):
        return unmeasured(name, "the attacks before left Square no image to attack", remedy, reference, 0.005)
    extra = sum(int(r.broken.sum()) for r in steps)
    share = extra / len(results.correct)
    ahead = share > 0.005 and 0.5**extra < 0.01  # McNemar, one-sided: all discordant images lie on one side
    measured = bool(steps) and bool(whites) and (ahead or all(map(ran_clean, steps)))
    return Diagnosis(
        name, status(ahead) if measured else "not_measured",
        share if measured else None, 0.005, len(results.correct),
        f"Square breaks {extra} images that every gradient attack left standing (McNemar p = {0.5**extra:.2g})" if measured
        else "Square has not run, without a crash, on what gradient attacks leave standing",
        remedy, True, reference,
    )  # fmt: skip


def dynamic(results: Results) -> Diagnosis:
    """A gradient inside the forward pass: the defense optimises at test time, declared or not."""
    name = "dynamic"
    remedy = "attack through BPDA or unrolling, by transfer from the bare network, and with Square end to end"
    reference = "AutoAttack's dynamic flag, without sys.settrace; Croce et al. 2022, arXiv 2202.13711"
    profile = results.plan.profile
    found = profile.get("dynamic")
    if found is None:
        return unmeasured(name, NOT_EXAMINED, remedy, reference)
    needs = through(results)
    if not results.plan.identity.get("staged") and not profile.get("bare_network_at"):
        needs.pop("a step made on the bare network")  # there is none
    where = ", ".join(path or "the model's own code" for path in profile.get("dynamic_in", ()))
    return Diagnosis(
        name, status(bool(found), resolved=all(needs.values())), float(found), 0.0, int(profile["examined"]),
        f"the defense takes a gradient inside its forward pass (in {where})" if found
        else "no gradient is taken inside the forward pass"
        + (", though gradients are switched on there" if profile.get("enables_gradients") else ""), remedy, True, reference,
    )  # fmt: skip


def too_few_classes(results: Results) -> Diagnosis:
    """With 2 classes DLR does not exist, with 3 its targeted form does not; here the margin takes their place."""
    classes = int(results.plan.profile["classes"])
    few = classes < FEW_CLASSES
    instead = "DLR does not exist, and the margin stands for it" if classes < 3 else "targeted DLR does not exist"
    return Diagnosis(
        "too_few_classes", status(few), float(classes), float(FEW_CLASSES), int(results.plan.profile["n"]),
        f"with {classes} classes {instead}" if few else f"{classes} classes are enough for every loss",
        "rely on CE, the margin, FAB and Square", False, "AutoAttack's flag on the number of classes",
    )  # fmt: skip
