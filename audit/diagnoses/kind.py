"""Which kind of gradient masking the findings amount to, in the field's words."""

from __future__ import annotations

from collections.abc import Callable
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
from audit.results import Results
from audit.types import Diagnosis

Kind = Literal["dynamic", "shattered", "stochastic", "vanishing", "exploding"]

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
        if any(sign(results).status in ("flagged", "resolved") for sign in signs):
            return kind
    return None
