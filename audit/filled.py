"""The steps of a run with every option filled in, less those whose attack does not support the norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from audit import registry
from audit.errors import Unsupported
from audit.settings import override
from audit.types import Step, ThreatModel


def filled(
    fitted: Sequence[Step], settings: Sequence[str], threat: ThreatModel, dataset: str | None
) -> tuple[tuple[Step, ...], tuple[Step, ...], list[str]]:
    """The steps with their defaults; those after `settings` that apply; a sentence for each left out.

    dataset: the data set whose shipped surrogates fit the images; None for images of one's own. Raises BadInput for a setting that no step has, Unsupported when no attack supports the norm.
    """
    fitted, homeless = _with_surrogates(fitted, dataset)
    options = {step.attack: registry.attacks.load(step.attack).defaults for step in fitted}
    kept, left_out = _supported(override(fitted, settings, options), threat)
    return override(fitted, (), options), kept, [*homeless, *left_out]


def _with_surrogates(steps: Sequence[Step], dataset: str | None) -> tuple[tuple[Step, ...], list[str]]:
    """Transfer steps with the surrogate's weights for `dataset`, and a sentence for each that has none."""
    kept, left_out = [], []
    for step in steps:
        name = step.params.get("surrogate")
        if not name:
            kept.append(step)
            continue
        known = registry.defenses.load(name)
        if dataset in {*known.zoo, *known.external}:
            kept.append(replace(step, params={**step.params, "dataset": dataset}))
        else:
            left_out.append(f"step {step.name} is left out: no weights of {name} are at hand for these images")
    return tuple(kept), left_out


def _supported(steps: Sequence[Step], threat: ThreatModel) -> tuple[tuple[Step, ...], list[str]]:
    """The steps whose attack supports the norm, and a sentence for each that is left out.

    Raises Unsupported when none is left.
    """
    norms = {step.name: registry.attacks.load(step.attack).norms for step in steps}
    kept = tuple(s for s in steps if threat.norm in norms[s.name])
    left_out = [
        f"step {s.name} is left out: attack {s.attack} supports {', '.join(norms[s.name])}, not {threat.norm}"
        for s in steps if s not in kept
    ]  # fmt: skip
    if not any(s.scope != "control" for s in kept):
        raise Unsupported(f"no attack of this suite supports {threat.norm}; choose another --norm or --suite")
    if threat.norm != "Linf":  # a control's eps of 1 spans the box in Linf only
        kept = tuple(replace(s, eps=1e4) if s.scope == "control" else s for s in kept)
    return kept, left_out
