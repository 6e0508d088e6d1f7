"""From names to a binarisation test: which defense, which attack, through which adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from audit import registry
from audit.binarisation.points import check_norm
from audit.binarisation.result import BinarisationTest
from audit.binarisation.run import binarisation_test, check_step
from audit.errors import BadInput
from audit.filled import filled
from audit.oracle import draws_for
from audit.preparation import Prepared, prepare
from audit.randomness import deterministic, random_drift
from audit.registry import closest
from audit.rules import Nature, fit, omitted
from audit.settings import resolve_temperature
from audit.sources import Sources
from audit.suites import SUITES, steps_for
from audit.types import Step

FIRST = ("adaptive", "full", "quick")  # where a step's name is looked up before the other suites
SPARE = 3  # times the images asked for are loaded, so that so many are classified correctly


def binarise(
    defense: str, attack: str, *, n: int = 64, settings: Sequence[str] = (), seed: int = 0, batch_size: int = 250,
    beat: Callable[[str], None] = lambda _: None, dataset: str = "fashion_mnist", data: str | Path | None = None,
    data_dir: str | Path | None = None, download: bool = False, norm: str = "Linf", **options: Any,
) -> BinarisationTest:  # fmt: skip
    """Test one attack on one defense; see `audit.binarisation` for what that means.

    attack: a step of a suite, as an audit of this defense has it (with BPDA, EOT or the bare network where the rules say
    so), or any registered attack, which then goes end to end. settings: `step.option=value`, the step being `attack`.
    options: the others of `audit.preparation.prepare` that say which weights, radius and device.
    Raises the AuditError that says what is wrong with the input.
    """
    check_norm(norm)
    if n < 1:
        raise BadInput(f"--n is {n}, expected at least 1")
    data, data_dir = (None if given is None else Path(given) for given in (data, data_dir))
    there = len(Sources(data=data, data_dir=data_dir, download=download).images(dataset).x)
    prepared = prepare(
        defense, dataset=dataset, data=data, data_dir=data_dir, download=download, seed=seed, norm=norm,
        batch_size=batch_size, n=min(there, SPARE * n), **options,
    )  # fmt: skip
    step = chosen_step(prepared, attack, settings, dataset if data is None else None)
    target, plan = prepared.target, prepared.plan
    return binarisation_test(
        target.model, target.x, target.y, step, plan.threat, n=n, seed=seed,
        draws=draws_for(n) if plan.draws > 1 else 1, replay=deterministic(plan.profile, target.traits),
        batch_size=batch_size, beat=beat,
    )  # fmt: skip


def chosen_step(prepared: Prepared, attack: str, settings: Sequence[str], dataset: str | None) -> Step:
    """The step named `attack` as the rules have it for this defense, with its options and its temperature.

    Raises BadInput for a name that is neither a step nor an attack, and for one that the rules leave out; Unsupported.
    """
    plan = prepared.plan
    identity = plan.identity
    nature = Nature.of(prepared.target.traits, staged=identity["staged"], drift=random_drift(plan.profile))
    step = _named(attack, identity["defense"], plan.threat.norm, nature)
    check_step(step, plan.threat)
    _, (step,), _ = filled((step,), settings, plan.threat, prepared.target.x.shape[1:], dataset)
    return resolve_temperature((step,), plan.profile["logit_gap"])[0]


def _named(name: str, defense: str, norm: str, nature: Nature) -> Step:
    known: dict[str, Step] = {}
    for suite in (*FIRST, *(s for s in SUITES if s not in FIRST)):
        steps = steps_for(suite, defense, norm)
        for step in fit(steps, nature):
            known.setdefault(step.name, step)
        left_out = [sentence for sentence in omitted(steps, nature) if sentence.startswith(f"step {name} ")]
        if left_out and name not in known:
            raise BadInput(f"{left_out[0]}; name another attack")
    if name in known:
        return known[name]
    if name not in registry.attacks.names():
        hint = closest(name, sorted({*known, *registry.attacks.names()}))
        raise BadInput(f"--attack {name!r} is neither a step of a suite nor an attack: {hint}")
    return next(step for step in fit((Step(name, name, "adaptive"),), nature) if step.name == name)
