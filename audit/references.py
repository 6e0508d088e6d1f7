"""Models to hold a defense against: the same suite on the same images, compared image by image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit import registry
from audit.errors import BadInput
from audit.preparation import Prepared, prepare

SHARED = ("suite", "data", "data_dir", "download", "seed", "norm", "device", "batch_size", "settings", "model_dir")
ROBUSTBENCH = "robustbench:"


@dataclass(frozen=True, slots=True)
class Reference:
    """A model to compare with: a defense as `--defense` or `--model` names it, with weights where it ships none."""

    defense: str
    summary: str
    weights: Path | None = None


STANDARD = Reference("undefended", "a network that was trained without any defense")
PGD_AT = Reference("pgd_at", "adversarial training with PGD, which has stood since 2018")


def named(text: str | Sequence[str]) -> tuple[str, ...]:
    """The names in `standard,pgd_at`, or in a sequence. Raises BadInput for one that comes twice."""
    names = tuple(filter(None, (n.strip() for n in (text.split(",") if isinstance(text, str) else text))))
    folders = [folder(name) for name in names]
    if len(set(folders)) < len(folders):
        raise BadInput(
            f"the references {', '.join(names)} name one model twice, expected different ones; leave one out"
        )
    return names


def folder(name: str) -> str:
    """What the run directory of a reference is called."""
    return re.sub(r"[^\w.-]+", "-", name)


def find(name: str) -> Reference:
    """A reference by its registered name; any other name is taken for a defense."""
    if name in registry.references.names():
        found: Reference = registry.references.load(name)
        return found
    return Reference(name, "")


def for_itself(asked: Any, text: str | Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` for the audited model: without model_dir where only a reference of RobustBench's lies there.

    asked: what was given as the defense or the model; text: the references.
    """
    itself = isinstance(asked, str) and asked.startswith(ROBUSTBENCH)
    theirs = any(find(name).defense.startswith(ROBUSTBENCH) for name in named(text))
    dropped = {"model_dir"} if theirs and not itself else set()
    return {key: value for key, value in options.items() if key not in dropped}


def prepare_references(
    text: str | Sequence[str], prepared: Prepared, options: Mapping[str, Any]
) -> dict[str, Prepared]:
    """Each reference ready to run on the images of `prepared`, by the name of its directory.

    options: those that the audit itself was prepared with; of these the suite, the images and their settings are shared.
    Raises what `prepare` raises, and BadInput where the images would not be the same.
    """
    plan, found = prepared.plan, {}
    for name in named(text):
        reference = find(name)
        shared = {key: options[key] for key in SHARED if key in options}
        if not reference.defense.startswith(ROBUSTBENCH):
            shared.pop("model_dir", None)
        other = prepare(
            reference.defense, weights=reference.weights, dataset=plan.identity["dataset"], n=plan.n, eps=plan.threat.eps,
            **shared,
        )  # fmt: skip
        if other.plan.identity["dataset_digest"] != plan.identity["dataset_digest"]:
            raise BadInput(f"reference {name!r} would see other images than the defense, expected the same; type --n")
        found[folder(name)] = other
    return found
