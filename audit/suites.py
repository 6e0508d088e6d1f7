"""The suites, as data. A step names an attack of the registry, what it looks through, and whom it attacks.

Order matters: cheap steps come first, and each "survivors" step attacks only what all steps before it left standing.
A temperature of "auto" is replaced by the median logit gap of the model under audit before the plan is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from audit.errors import UnknownName
from audit.registry import closest
from audit.types import AdapterSpec, Step, Suite

RESCALED = AdapterSpec("rescale", {"temperature": "auto"})


def _iterated(name: str, attack: str, steps: int, rel_stepsize: float) -> Step:
    start = ", from a random start" if attack == "pgd" else ""
    why = f"{steps} CE steps of {rel_stepsize:g} eps{start}"
    return Step(name, attack, "claimed", "all", params={"steps": steps, "rel_stepsize": rel_stepsize}, why=why)


CLAIMED_STEPS = (
    Step("fgsm", "fgsm", "claimed", "all", why="one CE step of size eps"),
    _iterated("bim-20", "bim", 20, 0.1),
    _iterated("pgd-20", "pgd", 20, 0.1),
    _iterated("pgd-100", "pgd", 100, 0.1),
    Step("apgd-ce-100", "apgd-ce", "claimed", "all", params={"n_iter": 100}, why="Auto-PGD on CE, 100 iterations"),
)

_TARGETED = Step("apgd-t", "apgd-t", "claimed", "all", why="the targeted attack of AutoAttack")

CLAIMED_BY: Mapping[str, tuple[Step, ...]] = {
    # TPAP, Table 2: FGSM, PGD-20 and PGD-100 (public code: steps .003 and .0007 at 8/255), AutoAttack.
    "tpap": (CLAIMED_STEPS[0], _iterated("pgd-20", "pgd", 20, 0.0956), _iterated("pgd-100", "pgd", 100, 0.0223),
             CLAIMED_STEPS[4], replace(_TARGETED, name="claimed-apgd-t")),
    # Catastrophic overfitting, Tables 2 and 5: FGSM, PGD-50, APGD-T. The paper prints no step size; 2/255 at 16/255 is
    # that of a public re-implementation by others.
    "co_noise": (CLAIMED_STEPS[0], _iterated("pgd-50", "pgd", 50, 0.125), replace(_TARGETED, name="claimed-apgd-t")),
    # SIM-Adv, Table 3: FGSM, BIM(10,40), Madry(10,40).
    "sim_adv": (CLAIMED_STEPS[0], _iterated("bim-40", "bim", 40, 0.1), _iterated("madry-40", "pgd", 40, 0.1)),
}  # fmt: skip

UNBOUNDED = Step(
    "unbounded", "apgd-margin", "control", "control", params={"n_iter": 100}, eps=1.0, limit=100,
    why="with no bound but the box every image must fall; if not, the attack is at fault",
)  # fmt: skip

ADAPTIVE_STEPS = (
    Step("rescaled-ce", "apgd-ce", "adaptive", adapters=(RESCALED,), why="CE whose softmax no longer saturates"),
    Step("float64-ce", "apgd-ce", "adaptive", adapters=(AdapterSpec("float64"),), why="CE where exp(-150) is not zero"),
    Step("apgd-margin", "apgd-margin", "adaptive", why="a loss that cannot saturate"),
    Step("apgd-dlr", "apgd-dlr", "adaptive", why="a loss that is invariant to scale"),
    Step("apgd-t", "apgd-t", "adaptive", why="towards each of nine classes", late=True),
    Step("fab-t", "fab-t", "adaptive", why="the nearest boundary of each class", late=True),
    Step("square", "square", "adaptive", why="no gradient at all", late=True),
)

# Athalye et al. 2018, sign 4: cheap, because few survivors are tried with few draws, before what is dear.
RANDOM_SEARCH = Step(
    "random-search", "random-search", "adaptive", params={"n_draws": 200}, limit=100,
    why="random points where gradients failed: 200 corners of the ball, 100 images",
)  # fmt: skip

STANDARD_STEPS = (
    Step("apgd-ce", "apgd-ce", "standard", why="AutoAttack 1 of 4"),
    Step("apgd-t", "apgd-t", "standard", why="AutoAttack 2 of 4"),
    Step("fab-t", "fab-t", "standard", why="AutoAttack 3 of 4"),
    Step("square", "square", "standard", why="AutoAttack 4 of 4"),
)

# What AutoAttack's "standard" sets otherwise under L1. FAB-T keeps nine classes; "plus" and "rand" are the same everywhere.
UNDER_L1: Mapping[str, Mapping[str, int]] = {"apgd-ce": {"n_restarts": 5}, "apgd-t": {"n_target_classes": 5}}

# AutoAttack's "plus". Its five restarts are those of the untargeted attacks.
PLUS_STEPS = (
    Step("apgd-ce", "apgd-ce", "plus", params={"n_restarts": 5}, why="AutoAttack plus 1 of 6, five restarts"),
    Step("apgd-dlr", "apgd-dlr", "plus", params={"n_restarts": 5}, why="AutoAttack plus 2 of 6, five restarts"),
    Step("fab", "fab", "plus", params={"n_restarts": 5}, why="AutoAttack plus 3 of 6, five restarts"),
    Step("square", "square", "plus", why="AutoAttack plus 4 of 6"),
    Step("apgd-t", "apgd-t", "plus", why="AutoAttack plus 5 of 6"),
    Step("fab-t", "fab-t", "plus", why="AutoAttack plus 6 of 6"),
)


def _mean_of_losses(loss: str) -> AdapterSpec:
    return AdapterSpec("eot", {"k": 20, "estimator": "losses", "loss": loss})


# AutoAttack's "rand": as there, each step follows the mean of the loss's gradient over 20 draws.
RAND_STEPS = (
    Step("apgd-ce", "apgd-ce", "rand", adapters=(_mean_of_losses("ce"),), why="AutoAttack rand 1 of 2, 20 draws a step"),
    Step("apgd-dlr", "apgd-dlr", "rand", adapters=(_mean_of_losses("dlr"),), why="AutoAttack rand 2 of 2, 20 draws a step"),
)  # fmt: skip

# Least-norm attacks on every image measure how far the nearest adversarial image lies; the rest takes what still stands.
# Steps whose attack does not support the norm are left out, and a purifier or noise leaves out the dearest (audit.rules).
FULL_STEPS = (
    Step("r-fgsm", "r-fgsm", "full", "all", why="one CE step from a random point"),
    Step("mi-fgsm", "mi-fgsm", "full", "all", why="BIM with momentum"),
    Step("ti-dim", "ti-dim", "full", "all", why="BIM on resized and shifted images"),
    Step("pgd-l2", "pgd-l2", "full", "all", why="PGD in the L2 ball"),
    Step("fmn", "fmn", "full", "all", why="the nearest adversarial image, in every norm"),
    Step("ddn", "ddn", "full", "all", why="the nearest adversarial image in L2"),
    Step("deepfool", "deepfool", "full", "all", why="the nearest boundary, step by step linear"),
    *ADAPTIVE_STEPS[:5],
    Step("a3", "a3", "full", params={"restarts": 5}, why="many directions to start in, cosine steps"),
    Step("an-pgd", "an-pgd", "full", why="PGD, then bisection towards the image"),
    Step("pgd-margin", "pgd-margin", "full", why="PGD on Carlini and Wagner's margin"),
    Step("fab", "fab", "full", why="the nearest boundary, untargeted"),
    # With 100 steps it left the same images of three networks as with 40 (docs/attacks.md).
    Step(
        "cw-l2",
        "cw-l2",
        "full",
        params={"steps": 40, "search_steps": 6},
        why="Carlini and Wagner's margin, least L2; 6 searches of 40 steps",
    ),
    Step(
        "cw-linf",
        "cw-linf",
        "full",
        limit=20,
        params={"queries": 2000},
        why="Carlini and Wagner's margin, least Linf; 20 images",
    ),
    Step("cw-l0", "cw-l0", "full", limit=50, why="Carlini and Wagner's margin, fewest pixels; 50 images"),
    Step("st-adv", "st-adv", "full", why="moves pixels instead of changing them, clipped to the Linf ball"),
    Step("fwa", "fwa", "full", why="moves mass between neighbouring pixels, clipped to the Linf ball"),
    ADAPTIVE_STEPS[5],
    Step("transfer", "transfer", "full", params={"surrogate": "undefended"}, why="images of an undefended network"),
    Step("random-search", "random-search", "full", why="1,000 random corners of the ball"),
    ADAPTIVE_STEPS[6],
    # After Square on every survivor: where a robust network leaves most images, more of these would take as long as all
    # other steps together.
    Step("spsa", "spsa", "full", limit=50, why="gradients from scores alone, by random signs; 50 images"),
    Step("nes", "nes", "full", limit=50, why="gradients from scores alone, by normal draws; 50 images"),
    Step(
        "rays",
        "rays",
        "full",
        limit=50,
        params={"n_queries": 2000},
        why="decisions alone: the ray that leaves the class first; 50 images",
    ),
    Step(
        "hopskipjump",
        "hopskipjump",
        "full",
        limit=20,
        params={"queries": 5000},
        why="decisions alone, along the boundary; 20 images",
    ),
    Step(
        "boundary",
        "boundary",
        "full",
        limit=20,
        params={"queries": 5000},
        why="decisions alone, a walk along the boundary; 20 images",
    ),
    Step(
        "zoo",
        "zoo",
        "full",
        limit=10,
        params={"steps": 50, "search_steps": 3},
        why="scores alone, pixel by pixel; 10 images",
    ),
)

QUICK_STEPS = (
    *CLAIMED_STEPS[:3],
    replace(ADAPTIVE_STEPS[0], suite="quick", params={"n_iter": 20}),
    replace(ADAPTIVE_STEPS[2], suite="quick", params={"n_iter": 40}),
    replace(UNBOUNDED, params={"n_iter": 40}),
)

# What the diagnoses need to see, in a minute or two: `audit diagnose`.
DIAGNOSE_STEPS = (
    CLAIMED_STEPS[0],
    CLAIMED_STEPS[1],
    CLAIMED_STEPS[2],
    replace(ADAPTIVE_STEPS[0], suite="diagnose", params={"n_iter": 20}),
    replace(ADAPTIVE_STEPS[2], suite="diagnose", params={"n_iter": 50}),
    Step("random-search", "random-search", "diagnose", params={"n_draws": 200}, why="200 random corners of the ball"),
    Step(
        "square", "square", "diagnose", params={"n_queries": 500, "rescale": 1}, why="no gradient at all, 500 queries"
    ),
    replace(UNBOUNDED, params={"n_iter": 40}, limit=50),
)

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("quick", "a minute: CE attacks beside short rescaled-CE and margin attacks", QUICK_STEPS),
        Suite("claimed", "the attacks of printed claims on the defense, AutoAttack as its four parts; else five on "
              "cross-entropy, step eps/10", CLAIMED_STEPS),
        Suite("adaptive", "claimed, then attacks adapted to what they miss, and a control",
              (*CLAIMED_STEPS, *ADAPTIVE_STEPS[:4], RANDOM_SEARCH, UNBOUNDED, *ADAPTIVE_STEPS[4:]), rounds=6, controlled=True),
        Suite("diagnose", "short attacks on 64 images, 24 of a random defense, for what they tell about the gradient", DIAGNOSE_STEPS, images=64, random_images=24,
              controlled=True),
        Suite("full", "every attack that applies to the norm, eot-pgd for random defenses alone, on 200 images; the dearest on "
              "50, 20 or 10 of those left",
              (*CLAIMED_STEPS, *FULL_STEPS, UNBOUNDED), images=200),
        Suite("standard", "AutoAttack's four end to end, each on the survivors of the one before; behind them what a "
              "test-time part asks for", STANDARD_STEPS),
        Suite("plus", "AutoAttack's six, with restarts: for a last word, at several times the cost", PLUS_STEPS),
        Suite("rand", "AutoAttack's two for random defenses, each step over 20 draws", RAND_STEPS),
    )
}  # fmt: skip


def get_suite(name: str) -> Suite:
    """The suite of that name. Raises UnknownName."""
    if name not in SUITES:
        raise UnknownName(f"unknown suite {name!r}: {closest(name, sorted(SUITES))}")
    return SUITES[name]


def standard(attack: str, norm: str) -> Mapping[str, int]:
    """The options of a part of AutoAttack's "standard" that differ from the attack's defaults under a norm."""
    return UNDER_L1.get(attack, {}) if norm == "L1" else {}


def steps_for(suite: str, defense: str, norm: str = "Linf") -> tuple[Step, ...]:
    """The suite's steps under a norm, its claimed ones being those that the paper of `defense` ran.

    Raises UnknownName.
    """
    found = get_suite(suite).steps
    if suite == "standard":
        return tuple(replace(step, params={**step.params, **standard(step.attack, norm)}) for step in found)
    own = CLAIMED_BY.get(defense)
    if own is None or not any(step.suite == "claimed" for step in found):
        return found
    if suite == "quick":
        own = tuple(step for step in own if int(step.params.get("steps", 1)) <= 50 and step.attack != "apgd-t")
    return (*own, *(step for step in found if step.suite != "claimed"))
