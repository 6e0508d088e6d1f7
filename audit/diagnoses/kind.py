"""Which kind of gradient masking the findings amount to, in the field's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from audit.diagnoses.autoattack import dynamic, randomized
from audit.diagnoses.gradients import (
    exploding_gradient,
    masked_gradient,
    saturated_softmax,
    unstable_gradient,
    vanishing_gradient,
)
from audit.diagnoses.pintor import shattered_gradient
from audit.diagnoses.transfer import worst_transfer
from audit.results import Results
from audit.types import Diagnosis

Kind = Literal["dynamic", "shattered", "stochastic", "vanishing", "exploding"]
FIRED = ("flagged", "resolved")
NONE = "none found"
KINDS: Mapping[Kind, str] = {
    "dynamic": "dynamic: the defense takes gradients while it answers",
    "shattered": "shattered: the gradient is missing or false",
    "stochastic": "stochastic: the gradient is random",
    "vanishing": "vanishing: the loss saturates",
    "exploding": "exploding: the gradient overflows",
}

# In this order: what optimises at test time also shatters, and what is shattered may be random besides.
SIGNS: tuple[tuple[Kind, tuple[Callable[[Results], Diagnosis], ...]], ...] = (
    ("dynamic", (dynamic,)),
    ("shattered", (shattered_gradient,)),
    ("stochastic", (randomized,)),
    ("vanishing", (vanishing_gradient, saturated_softmax)),
    ("exploding", (exploding_gradient,)),
    ("shattered", (masked_gradient, unstable_gradient)),
)


def kind_of_masking(results: Results) -> Kind | None:
    """ "shattered" (missing or false), "stochastic", "vanishing" or "exploding" (Athalye et al. 2018), "dynamic"
    (AutoAttack: gradients inside the forward pass), or None. Findings count whether or not a remedy resolved them.
    """
    for kind, signs in SIGNS:
        if any(sign(results).status in FIRED for sign in signs):
            return kind
    return None


def masking(results: Results) -> str:
    """The kind in words for reports, "none found" where there is none; and whether most images that an attack made on
    the bare network fail.

    Whatever the verdict: an inconclusive audit has found its kind, too.
    """
    kind = kind_of_masking(results)
    if kind is None:
        return NONE
    moved = worst_transfer(results)
    if moved is None or moved.foreign or not moved.mostly_kept:
        return KINDS[kind]
    fails = f"{moved.kept} of {moved.made} images that {moved.step} made on the bare network do not transfer"
    return f"{KINDS[kind]}, and {fails}"
