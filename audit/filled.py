"""The steps of a run with every option filled in, less those that cannot run here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from audit import registry
from audit.errors import MissingDependency, Unsupported
from audit.settings import override
from audit.types import BESIDE, Norm, Step, ThreatModel

SURROGATE_IN_EVERY_NORM = "fmn"
NEEDS = ("gradient", "scores", "decision")  # each can do with what those after it need
LOGITS = {"apgd-dlr": 3, "apgd-t": 4}  # that DLR and its targeted form compare
WORDS = {"gradient": "a gradient", "scores": "scores alone", "decision": "class names alone"}


def filled(
    fitted: Sequence[Step], settings: Sequence[str], threat: ThreatModel, shape: Sequence[int], dataset: str | None,
    answers: str = "gradient",
) -> tuple[tuple[Step, ...], tuple[Step, ...], list[str]]:  # fmt: skip
    """The steps with their defaults; those after `settings` that apply; a sentence for each left out.

    A step is left out when its library is not installed, when it has no surrogate for the images, or when its attack
    does not support the norm or such images, or needs more than the model answers: "gradient", "scores" or "decision". shape: (c, h, w) of the images; dataset: the data set whose shipped
    surrogates fit them; None for images of one's own. A setting of a step holds for the one by transfer that goes beside
    it, too, unless that has its own. Raises BadInput for a setting that no step has or an option that its attack refuses, MissingDependency when no
    library is there, Unsupported when no attack supports the norm.
    """
    fitted, missing = _installed(fitted)
    options = {step.attack: registry.attacks.load(step.attack).defaults for step in fitted}
    plain = [step for step in override(fitted, (), options) if not _sourceless(step)]
    own, _ = _with_surrogates(plain, (), threat.norm, dataset, shape)
    settings = _on_both_routes(fitted, settings)
    typed = [setting.partition("=")[0] for setting in settings]
    given, homeless = _with_surrogates(override(fitted, settings, options), typed, threat.norm, dataset, shape)
    given, unanswered = _answerable(given, answers)
    kept, left_out = _supported(given, threat, shape, complete=not missing)
    return own, kept, [*missing, *homeless, *unanswered, *left_out]


def _on_both_routes(steps: Sequence[Step], settings: Sequence[str]) -> list[str]:
    names = {step.name for step in steps}
    beside = [f"{BESIDE}{s}" for s in settings if f"{BESIDE}{s.partition('.')[0]}" in names]
    typed = {s.partition("=")[0] for s in settings}
    return [*settings, *(s for s in beside if s.partition("=")[0] not in typed)]


def gives_way(steps: Sequence[Step], classes: int) -> list[str]:
    """A sentence for each step whose loss needs more logits than the model has, and which climbs the margin instead."""
    return [
        f"step {step.name} climbs the margin: its loss needs {LOGITS[step.attack]} classes, the model has {classes}"
        for step in steps
        if classes < LOGITS.get(step.attack, 0)
    ]


def _installed(steps: Sequence[Step]) -> tuple[tuple[Step, ...], list[str]]:
    """The steps whose attack loads, and a sentence for each other. Raises MissingDependency when none is left."""
    kept, left_out = [], []
    for step in steps:
        try:
            registry.attacks.load(step.attack)
            kept.append(step)
        except MissingDependency as error:
            left_out.append(f"step {step.name} is left out: {error}")
            lacking = error
    if not any(step.scope != "control" for step in kept) and left_out:
        raise lacking
    return tuple(kept), left_out


def _with_surrogates(
    steps: Sequence[Step], typed: Collection[str], norm: Norm, dataset: str | None, shape: Sequence[int]
) -> tuple[tuple[Step, ...], list[str]]:
    """The steps, `transfer` with its surrogate settled, once their attacks have accepted their options.

    typed: the options that the user set, as `step.option`. Also returns a sentence for each step without a surrogate.
    """
    kept, left_out = [], []
    for step in steps:
        if step.attack == "transfer" and step.params["run"] and f"{step.name}.surrogate" not in typed:
            step = _with(step, surrogate="")  # the suite's own, which the run replaces
        _check(step)
        if step.attack != "transfer" or step.params["run"]:
            kept.append(step)
            continue
        step, obstacle = _settled(step, typed, norm, dataset, shape)
        if obstacle:
            left_out.append(f"step {step.name} is left out: {obstacle}")
        else:
            kept.append(step)
    return tuple(kept), left_out


def _sourceless(step: Step) -> bool:
    """Is it a `transfer` whose images only a setting can name? Typed as a claim's attack it has no source of its own."""
    return step.attack == "transfer" and not (step.params["surrogate"] or step.params["run"])


def _check(step: Step) -> None:
    """Raise BadInput for options that the attack refuses. Third parties' attacks need not have a `check`."""
    check = getattr(registry.attacks.load(step.attack), "check", None)
    if check is not None:
        check(step.params)


def _settled(
    step: Step, typed: Collection[str], norm: Norm, dataset: str | None, shape: Sequence[int]
) -> tuple[Step, str]:
    """A transfer step with the data set of its weights and an attack for the norm, and what stands in its way.

    What the user typed stays as it is. Else the weights are those for `dataset`; and `fmn`, which knows every norm,
    makes the images where `by` does not support this one. A surrogate that is not of the registry, or has weights of its
    own, was typed: it is tried out on one image, and what is wrong with it is raised.
    """
    name, by = step.params["surrogate"], step.params["by"]
    shipped = ":" not in name and not step.params["weights"]
    wanted = step.params["dataset"] if f"{step.name}.dataset" in typed else dataset
    if shipped and wanted not in _shipped(name):
        return step, f"no weights of {name} are at hand for these images"
    if f"{step.name}.by" not in typed and norm not in registry.attacks.load(by).norms:
        by = SURROGATE_IN_EVERY_NORM
    try:
        maker = registry.attacks.load(by)
    except MissingDependency as error:
        return step, str(error)
    step = _with(step, dataset=wanted or "", by=by)
    if norm not in maker.norms:
        return step, f"attack {by} supports {', '.join(maker.norms)}, not {norm}"
    if not shipped:
        registry.tools.load("surrogate")(name, shape=shape, dataset=wanted or "", weights=step.params["weights"], by=by)
    return step, ""


def _shipped(name: str) -> set[str]:
    known = registry.defenses.load(name)
    return {*getattr(known, "zoo", ()), *getattr(known, "external", ())}


def _with(step: Step, **params: Any) -> Step:
    return replace(step, params={**step.params, **params})


def enough(needs: str, answers: str) -> bool:
    """Can an attack that `needs` so much do with a model that `answers` so much?"""
    return NEEDS.index(needs) >= NEEDS.index(answers)


def _answerable(steps: Sequence[Step], answers: str) -> tuple[tuple[Step, ...], list[str]]:
    """The steps whose attack needs no more than the model answers, and a sentence for each other.

    Raises Unsupported when none is left.
    """
    kept = tuple(s for s in steps if enough(registry.attacks.load(s.attack).needs, answers))
    if not any(step.scope != "control" for step in kept):
        raise Unsupported(
            f"no attack of this suite does with a model that answers with {WORDS[answers]}; type --suite adaptive"
        )
    left_out = [
        f"step {s.name} is left out: attack {s.attack} needs the {registry.attacks.load(s.attack).needs}, the model answers "
        f"with {WORDS[answers]}"
        for s in steps
        if s not in kept
    ]
    if left_out:
        instead = ", ".join(dict.fromkeys(step.attack for step in kept if step.scope != "control"))
        left_out.insert(
            0,
            f"the model answers with {WORDS[answers]}, so {len(left_out)} of {len(steps)} steps are left out; {instead} ask for no more",
        )
    return kept, left_out


def _supported(
    steps: Sequence[Step], threat: ThreatModel, shape: Sequence[int], *, complete: bool
) -> tuple[tuple[Step, ...], list[str]]:
    """The steps whose attack supports the norm and the shape, and a sentence for each that is left out.

    Raises Unsupported when none is left. complete: no step was left out for want of its library.
    """
    obstacles = {step.name: _obstacle(step, threat, shape) for step in steps}
    kept = tuple(s for s in steps if not obstacles[s.name])
    left_out = [f"step {name} is left out: {obstacle}" for name, obstacle in obstacles.items() if obstacle]
    if not any(s.scope != "control" for s in kept):
        which, more = (
            ("", "") if complete else (" that is installed", ", or run `python -m audit doctor` for the others")
        )
        raise Unsupported(
            f"no attack of this suite{which} supports {threat.norm}; choose another --norm or --suite{more}"
        )
    if threat.norm != "Linf":  # a control's eps of 1 spans the box in Linf only
        kept = tuple(replace(s, eps=1e4) if s.scope == "control" else s for s in kept)
    return kept, left_out


def _obstacle(step: Step, threat: ThreatModel, shape: Sequence[int]) -> str:
    """Why an attack cannot run on images of `shape` (c, h, w); empty when it can. Third parties' need no `fits`."""
    attack = registry.attacks.load(step.attack)
    if threat.norm not in attack.norms:
        return f"attack {step.attack} supports {', '.join(attack.norms)}, not {threat.norm}"
    fits = getattr(attack, "fits", None)
    return "" if fits is None else str(fits(threat, shape))
