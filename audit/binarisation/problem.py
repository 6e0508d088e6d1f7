"""One image's two-class problem: points, their features, a last layer that separates them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from audit.binarisation import points
from audit.binarisation.head import Bools, Floats, Head, closer, fit, scaled_to
from audit.binarisation.model import Readout
from audit.binarisation.result import Settings
from audit.errors import BadInput
from audit.rng import Stream
from audit.types import ThreatModel

BLIND = 200  # random tries that tell how hard a problem is, however short the attack (the published runs' number)
HARDER = 4  # times the points inside
RANDOM = (0.8, 0.95)  # closeness for a random defense, at first and when hardened


@dataclass(frozen=True)
class Problem:
    """head: None where none separates the points. far: the point at eps (c, h, w), of label 1; tries: the random
    attacker's images, the most promising first among those it may use and among `BLIND`: (2, c, h, w).
    """

    head: Head | None
    far: Tensor
    tries: Tensor


def suited(settings: Settings, features: int, *, random: bool) -> Settings:
    """The settings for a model with so many features. Raises BadInput for values that make no problem."""
    check(settings)
    rest, most = settings.far + settings.extra_far, features - 1
    if random:
        inner = min(settings.inner, (most - settings.extra_far) // 2)
        return replace(settings, inner=max(inner, 1), closeness=min(settings.closeness, RANDOM[0]))
    return replace(settings, inner=max(min(settings.inner, most - rest), 1))


def harder(settings: Settings, *, random: bool) -> Settings:
    """Settings under which fewer images are adversarial: more points inside, or a threshold nearer to a random far one."""
    if random:
        return replace(settings, closeness=max(settings.closeness, RANDOM[1]))
    return replace(settings, inner=HARDER * settings.inner)


def check(settings: Settings) -> None:
    """Raise BadInput for values that make no problem."""
    for name, lowest in (("inner", 1), ("far", 1), ("extra_far", 0), ("most_tries", 1)):
        if getattr(settings, name) < lowest:
            raise BadInput(f"{name} is {getattr(settings, name)}, expected at least {lowest}")
    for name in ("reach", "closeness"):
        if not 0 <= getattr(settings, name) < 1:
            raise BadInput(f"{name} is {getattr(settings, name)}, expected a number in [0,1)")
    for name, known in (("where", ("surface", "corners")), ("spread", ("adaptive", "fixed"))):
        if getattr(settings, name) not in known:
            raise BadInput(f"{name} is {getattr(settings, name)!r}, expected one of {', '.join(known)}")


def build(
    readout: Readout, x: Tensor, threat: ThreatModel, settings: Settings, *, tries: int, random: bool, seed: int
) -> Problem:
    """The problem of one image x (c, h, w) in [0,1]. tries: how many the random attacker has.

    random: the defense answers differently each time. Then the far point is drawn as often as there are inner points, and
    a head need not separate every draw: what its majority says is judged later.
    """
    with Stream(seed):
        inner = torch.cat([x[None], points.within(x, settings.inner - 1, threat, settings.reach)])
        far = points.at_distance(x, settings.far, threat, 1.0, settings.where)
        beyond = points.at_distance(x, settings.extra_far, threat, settings.beyond, settings.where)
        repeated = far.repeat(-(-len(inner) // len(far)), 1, 1, 1)[: len(inner)] if random else far
        outer = torch.cat([repeated, beyond])
        blind = points.attempts(x, max(tries, BLIND), threat)
        features, logits = readout.features(torch.cat([inner, outer]))
        asked, _ = readout.features(blind)
    rows, is_far = _numbers(features), np.arange(len(features)) >= len(inner)
    is_outer = is_far & (np.arange(len(features)) < len(inner) + len(repeated))
    spread = float(logits.max() - logits.min()) if settings.spread == "adaptive" else 1.0
    head = _head(rows, is_far, is_outer, settings.closeness, spread, random=random)
    if head is None:
        return Problem(None, far[0], blind[:2])
    order = head.scores(_numbers(asked))
    nearest = far[int(head.scores(rows[is_outer])[: len(far)].argmax())]
    return Problem(head, nearest, blind[[int(order[:tries].argmax()), int(order[:BLIND].argmax())]])


def _head(rows: Floats, far: Bools, at_eps: Bools, closeness: float, spread: float, *, random: bool) -> Head | None:
    """The fitted, moved and scaled head; None where it does not separate the rows, or where they are no numbers.

    far: which rows (m,) have label 1; at_eps: which of them count for the threshold.
    """
    if not np.isfinite(rows).all():
        return None
    head = fit(rows, far)
    if head.accuracy < 1 and not random:
        return None
    scores = head.scores(rows[at_eps])
    head = closer(head, float(np.median(scores) if random else scores.max()), closeness)
    return scaled_to(head, head.scores(rows), spread)


def _numbers(features: Tensor) -> Floats:
    result: Floats = features.double().cpu().numpy()
    return result
