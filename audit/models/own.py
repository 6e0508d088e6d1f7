"""A model that somebody brings, as a `Defense`: built once, digested with what it is built from."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters.black_box import BlackBox, from_estimator
from adapters.preprocessed import Preprocessed
from adapters.structure import mirror
from audit.errors import AuditError, BadInput, BadModel, BadWeights
from audit.gates import fingerprint_model, staged
from audit.models.preprocessing import Preprocessing
from audit.types import Claim

MEMORY = "a Python session"  # where a model came from that no command line can name
IDLE = Preprocessing()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is built, with what is known of it; an `audit.protocols.Checkpoint`."""

    path: Path
    sha256: str
    module: nn.Module
    dataset: str | None = None
    architecture: Mapping[str, Any] = field(default_factory=dict)
    inference: Mapping[str, Any] = field(default_factory=dict)
    meant_for_eps: float | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a loader hands over: the thing, the files that it is made of, and what the library says of it.

    preprocessing: what the library declares; it holds unless the user declares another. about: joins the architecture in
    plan and report. stated: the clean accuracy in [0,1] that the library states, by data set, for the handshake. note: a
    sentence for the start of a run in which nothing is done to the images.
    """

    thing: Any
    files: tuple[Path, ...] = ()
    preprocessing: Preprocessing = IDLE
    about: Mapping[str, Any] = field(default_factory=dict)
    stated: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class ModelDefense:
    """Implements `audit.protocols.Defense` for a model from anywhere; `audit.Defense` is the same class.

    build: weights file or None -> `Found`; left out where the model comes beside it, as in
    `audit.run(model=net, defense=Defense("mine", clean=0.9))`. dataset: the one it was trained for, if that is known; eps: the radius it was
    made for; clean: the clean accuracy that its authors state, in [0,1], for the handshake. preprocessing: declared by
    the user, instead of what the library says.
    """

    name: str
    build: Callable[[Path | None], Found] | None = None
    summary: str = "a model of your own"
    traits: frozenset[str] = frozenset()
    claims: tuple[Claim, ...] = ()
    preprocessing: Preprocessing | None = None
    dataset: str | None = None
    eps: float | None = None
    clean: float | None = None

    def checkpoint(self, dataset: str, weights: Path | None = None) -> Loaded:
        """Build the model and digest it. Raises BadWeights for another data set than it was trained for, BadModel; BadInput without `build`."""
        if self.build is None:
            raise BadInput(
                f"defense {self.name!r} describes a model and has none, expected one beside it; type "
                "audit.run(model=..., defense=...), or give it build=..."
            )
        if self.dataset not in (None, dataset):
            raise BadWeights(
                f"{self.name} was trained on {self.dataset}, expected {dataset}; type --dataset {self.dataset}"
            )
        found = self.build(weights)
        declared = found.preprocessing if self.preprocessing is None else self.preprocessing
        module = in_front(classifier(found.thing, self.name), declared)
        about = {"name": self.name, **found.about}
        if isinstance(found.thing, nn.Module) and any(part.training for part in found.thing.modules()):
            about["mode"] = "was in training mode, audited in evaluation mode"
        if not declared.idle:
            about["preprocessing"] = declared.to_dict()
        clean = found.stated.get(dataset) if self.clean is None else self.clean
        return Loaded(
            found.files[0] if found.files else Path(MEMORY), digest(module, found.files), module, self.dataset, about,
            meant_for_eps=self.eps, measured={} if clean is None else {"clean_accuracy": clean},
            note=found.note if declared.idle else "",
        )  # fmt: skip

    def load(self, checkpoint: Loaded) -> nn.Module:
        """The model that `checkpoint` has built."""
        return checkpoint.module


def classifier(thing: Any, name: str) -> nn.Module:
    """A module in evaluation mode from a module, a fitted scikit-learn estimator or any callable.

    Raises BadModel for anything else, a class, or a module that stays in training mode.
    """
    if isinstance(thing, torch.jit.ScriptModule):
        return _evaluating(nn.Sequential(thing).train(thing.training))  # a script itself takes no hooks
    if isinstance(thing, nn.Module):
        return _evaluating(thing)
    if hasattr(thing, "predict") and hasattr(thing, "classes_"):
        return from_estimator(thing)
    if callable(thing) and not inspect.isclass(thing):
        return BlackBox(thing)
    raise BadModel(
        f"{name} is {thing.__name__ if inspect.isclass(thing) else type(thing).__name__}, expected an nn.Module, a Defense, "
        "a fitted scikit-learn classifier or a callable that maps images to scores"
    )


def _evaluating(module: nn.Module) -> nn.Module:
    """The module in evaluation mode; where it is in training mode, a twin around the same tensors."""
    if not any(part.training for part in module.modules()):
        return module
    twin = mirror(module)
    try:
        twin.eval()
    except NotImplementedError:  # an exported program: its mode was fixed when it was exported
        for part in twin.modules():
            part.training = False
    return twin


def in_front(module: nn.Module, declared: Preprocessing) -> nn.Module:
    """The module behind its preprocessing. Raises BadInput for one with a test-time part, which sees images in [0,1]."""
    if declared.idle:
        return module
    if staged(module):
        raise BadInput(
            "a preprocessing is declared for a model with a purifier and a network, expected none; put normalisation into "
            "its network, where a purifier that asks the network finds it too"
        )
    return Preprocessed(
        module, mean=declared.mean, std=declared.std, resize=declared.resize, value_range=declared.value_range
    )


def digest(module: nn.Module, files: tuple[Path, ...]) -> str:
    """sha256 of every tensor of the model and of the files that it is made of, in their order."""
    seen = hashlib.sha256(fingerprint_model(module).encode())
    for path in files:
        try:
            seen.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise BadWeights(f"{path} cannot be read ({error.strerror}); type the path of a file") from error
    return seen.hexdigest()


def answers(module: nn.Module) -> str:
    """What an attack may ask of a model: "gradient", "scores", or "decision" where it names classes alone."""
    return next((part.answers for part in module.modules() if isinstance(part, BlackBox)), "gradient")


def foreign(call: Callable[[], Any], what: str, advice: str) -> Any:
    """The result of foreign code. Whatever it raises becomes one sentence (BadInput); our own errors pass."""
    try:
        return call()
    except AuditError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise BadInput(f"{what} raised {type(error).__name__}: {said}; {advice}") from error
