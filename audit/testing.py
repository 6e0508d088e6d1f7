"""What a new attack or defense must do, as functions to call from its own tests.

    from audit.testing import check_attack
    check_attack(my_attack, n_iter=20)

An attack is put to a linear classifier, whose distance to the nearest decision boundary is known exactly in every
norm: just above that distance the attack must succeed, below it nothing can. A broken contract raises AssertionError
with a sentence that says which part of it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audit.datasets import Dataset
from audit.errors import BadInput, BadModel, Unsupported
from audit.gates import fingerprint_model
from audit.geometry import SLACK, contains, distance, project
from audit.linear import Linear, linear_problem
from audit.oracle import check_logits, check_mode
from audit.protocols import Attack, Defense
from audit.rng import Stream, derive_seed
from audit.types import NORMS, TRAITS, Norm, ThreatModel

ABOVE, BELOW = 1.25, 0.8  # radii, as multiples of the largest and of the smallest distance
OVERSTEP = 1.001  # how far, relative to eps, an attack's own arithmetic may carry it outside the ball
EDGE = 0.1  # radius where all pixels are black or white
STRETCH = 5.0  # farther from the boundary, so that L0 needs more than one pixel


def check_attack(
    attack: Attack, *, above: float | None = None, share: float | None = None, classes: int = 4, channels: int = 1,
    seed: int = 0, **options: Any,
) -> None:  # fmt: skip
    """Assert that `attack` keeps the contract of `audit.protocols.Attack`, in every norm that it names.

    above, share: with a radius of `above` times the largest distance to the boundary it must break at least `share`
    of the images; an attack of kind "minimal" must come within `above` times the distance of each. By default 1.25
    and 1.0, or the attack's own `reach` (also by norm) and `share`, of which few have reason to ask for more or less.
    Below 0.8 times the distance nothing may succeed. options: passed to the attack, for example to shorten it.
    The attack must also stay in its ball and the box (black and white images are tried for that too), repeat itself bit for bit under its seed, refuse other norms
    (Unsupported) and unknown options (BadInput), and leave its inputs, the model, the global random generators and
    the trace function as it found them.
    """
    model, x, y = linear_problem(seed, classes=classes, channels=channels)
    share = float(getattr(attack, "share", 1.0)) if share is None else share

    def call(images: Tensor, threat: ThreatModel, **more: Any) -> Tensor:
        return attack(model, images, y, threat, seed=derive_seed(seed, attack.name), **options, **more)

    for norm in NORMS:
        images = 0.5 + STRETCH * (x - 0.5) if norm == "L0" else x
        if norm not in attack.norms:
            _check_raises(partial(call, images, ThreatModel(norm, 1.0)), Unsupported, f"{attack.name} under {norm}")
        else:
            room = _reach(attack, norm) if above is None else above
            _check_norm(attack, partial(call, images), model, images, y, norm, room, share)
            _check_edge(attack, model, images, ThreatModel(norm, 2.0 if norm == "L0" else EDGE), seed, options)
    unknown = partial(call, x, ThreatModel(attack.norms[0], 1.0), no_such_option=1)
    _check_raises(unknown, BadInput, f"{attack.name} with an unknown option")


def _check_norm(
    attack: Attack, call: Callable[[ThreatModel], Tensor], model: Linear, x: Tensor, y: Tensor, norm: Norm,
    above: float, share: float,
) -> None:  # fmt: skip
    """Success where it is possible, none where it is not, and nothing else moved."""
    reach = model.distance(x, y, norm)
    least = max(BELOW * float(reach.min()), 1.0 if norm == "L0" else 0.0)
    wide, tight = ThreatModel(norm, above * float(reach.max())), ThreatModel(norm, least)
    name = f"attack {attack.name!r} under {norm}"
    candidate = _check_repeats(partial(call, wide), model, x, y, name)
    if attack.kind == "budget":
        _check_inside(candidate, x, wide, name)
        broken = model(project(candidate, x, wide)).argmax(1) != y
    else:
        _check_box(candidate, wide, name)
        near = distance(candidate, x, norm) <= above * reach * (1 + SLACK)
        broken = near & (model(candidate).argmax(1) != y)
    assert float(broken.float().mean()) >= share, (
        f"{name} broke {int(broken.sum())} of {len(x)} images within {above:g} times the distance to the boundary, "
        f"expected a share of {share:g}"
    )
    candidate = call(tight)
    if attack.kind == "budget":  # the nearest adversarial image may lie beyond eps, and a minimal attack return it
        _check_inside(candidate, x, tight, name)
    impossible = (model(candidate).argmax(1) != y) & contains(candidate, x, tight) & (BELOW * reach >= least)
    assert not impossible.any(), f"{name} succeeded inside {BELOW} times the distance to the boundary"


def _reach(attack: Attack, norm: Norm) -> float:
    declared = getattr(attack, "reach", ABOVE)
    return float(declared.get(norm, ABOVE) if isinstance(declared, Mapping) else declared)


def _check_edge(
    attack: Attack, model: Linear, x: Tensor, threat: ThreatModel, seed: int, options: Mapping[str, Any]
) -> None:
    """Stay inside where every pixel is black or white, so that half of all steps lead out of the box."""
    x = (x[:2] > 0.5).float()
    candidate = attack(model, x, model(x).argmax(1), threat, seed=derive_seed(seed, attack.name), **options)
    check = partial(_check_inside, candidate, x) if attack.kind == "budget" else partial(_check_box, candidate)
    check(threat, f"attack {attack.name!r} under {threat.norm}, on black and white images,")


def _check_raises(call: Callable[[], object], expected: type[Exception], what: str) -> None:
    try:
        call()
    except expected:
        return
    except Exception as error:  # whatever else it raises is what the sentence reports
        raise AssertionError(f"attack {what} raised {error!r}, expected {expected.__name__}") from error
    raise AssertionError(f"attack {what} returned, expected it to raise {expected.__name__}")


def _check_repeats(call: Callable[[], Tensor], model: nn.Module, x: Tensor, y: Tensor, name: str) -> Tensor:
    """The result of `call`, once twice gave the same under different global randomness and nothing else moved."""
    inputs, weights, results = (x.clone(), y.clone()), fingerprint_model(model), []
    for outer in (1, 2):
        with Stream(outer):
            before, tracer = _randomness(), sys.gettrace()
            results.append(call())
            assert sys.gettrace() is tracer, f"{name} changed the trace function"
            assert _randomness() == before, f"{name} moved the global random generators"
    assert fingerprint_model(model) == weights, f"{name} changed the model's mode, parameters or buffers"
    kept = torch.equal(x, inputs[0]) and torch.equal(y, inputs[1])
    assert kept, f"{name} changed the images or labels that it was given"
    first, second = results
    got = tuple(first.shape), first.dtype
    assert got == (x.shape, torch.float32), f"{name} returned {got}, expected float32 of shape {tuple(x.shape)}"
    assert torch.isfinite(first).all(), f"{name} returned NaN or infinite pixels"
    assert torch.equal(first, second), f"{name} returned different images under the same seed"
    return first


def _check_inside(candidate: Tensor, x: Tensor, threat: ThreatModel, name: str) -> None:
    """The attack's own return, before any projection. NaN fails every comparison."""
    reach = float(distance(candidate, x, threat.norm).max()) / threat.eps
    assert reach <= OVERSTEP, f"{name} left the ball: it moved {reach:.4f} times eps"
    _check_box(candidate, threat, name)


def _check_box(candidate: Tensor, threat: ThreatModel, name: str) -> None:
    assert threat.bounds[0] <= float(candidate.min()), f"{name} left the box: pixels down to {float(candidate.min())}"
    assert float(candidate.max()) <= threat.bounds[1], f"{name} left the box: pixels up to {float(candidate.max())}"


def _randomness() -> tuple[list[bytes], str, str]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    states = [state.numpy().tobytes() for state in (torch.get_rng_state(), *cuda)]
    return states, repr(np.random.get_state()), repr(random.getstate())


def check_defense(defense: Defense, dataset: Dataset, *, weights: Path | None = None, n: int = 16) -> None:
    """Assert that `defense` loads for `dataset` and keeps the contract of `audit.protocols.Defense` on n images.

    That is: known traits; evaluation mode; finite float32 logits (n, k) with one for every label; the same logits
    twice, unless it says that it is stochastic.
    """
    unknown = sorted(defense.traits - TRAITS)
    assert not unknown, f"defense {defense.name!r} has traits {unknown}, expected some of {sorted(TRAITS)}"
    model = defense.load(defense.checkpoint(dataset.name, weights))
    x, y = torch.from_numpy(dataset.x[:n]), torch.from_numpy(dataset.y[:n])
    try:
        check_mode(model)
        with torch.no_grad(), Stream(0):
            logits, again = model(x), model(x)
        check_logits(logits, len(x))
    except BadModel as error:
        raise AssertionError(f"defense {defense.name!r}: {error}") from error
    assert logits.dtype == torch.float32, f"defense {defense.name!r} returned {logits.dtype}, expected float32"
    assert int(y.max()) < logits.shape[1], f"defense {defense.name!r} has no logit for label {int(y.max())}"
    assert torch.equal(logits, again) or "stochastic" in defense.traits, (
        f"defense {defense.name!r} answered the same images differently; add the trait 'stochastic'"
    )
