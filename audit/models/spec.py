"""From what is typed after --defense or --model to a `Defense`: a name, a library's model, a file, a Python path."""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from audit import registry
from audit.errors import BadInput, BadWeights, MissingDependency, UnknownName
from audit.models.own import Found, ModelDefense, foreign
from audit.models.preprocessing import Preprocessing
from audit.protocols import Defense
from audit.registry import closest
from audit.types import TRAITS

SCHEMES: Mapping[str, str] = {
    "timm": "audit.models.timm:find",
    "torchvision": "audit.models.torchvision:find",
    "torchscript": "audit.models.files:torchscript",
    "export": "audit.models.files:exported",
    "onnx": "audit.models.onnx:find",
    "robustbench": "audit.models.robustbench:find",
}


@dataclass(frozen=True, slots=True)
class Declared:
    """What the user says of a model: its preprocessing and traits, where its library's files lie, whether to fetch them.

    Raises UnknownName for a trait that there is not.
    """

    preprocessing: Preprocessing | None = None
    traits: tuple[str, ...] = ()
    model_dir: Path | None = None
    download: bool = False

    def __post_init__(self) -> None:
        for trait in self.traits:
            if trait not in TRAITS:
                raise UnknownName(f"unknown trait {trait!r}: {closest(trait, sorted(TRAITS))}")

    def joined(self, said: object) -> Declared:
        """With what a `Defense` says of the model beside it; a preprocessing typed for the run goes before it."""
        if not isinstance(said, ModelDefense):
            return self
        traits = tuple(sorted({*self.traits, *said.traits}))
        return replace(self, preprocessing=self.preprocessing or said.preprocessing, traits=traits)

    def record(self) -> dict[str, Any]:
        """As JSON that holds from any directory; what was not declared is left out."""
        found = {
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_dict(),
            "traits": sorted(self.traits), "model_dir": str(self.model_dir.resolve()) if self.model_dir else "",
        }  # fmt: skip
        return {name: value for name, value in found.items() if value not in (None, [], "")}

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Declared:
        """The inverse of `record`."""
        declared, place = record.get("preprocessing"), record.get("model_dir")
        return cls(
            None if declared is None else Preprocessing.from_dict(declared), tuple(record.get("traits", ())),
            Path(place) if place else None,
        )  # fmt: skip


def usual_place(asked: Any, model_dir: str | Path | None) -> Path | None:
    """Where RobustBench's checkpoints lie: as typed, else where RobustBench itself puts them. None for other models."""
    if model_dir is not None:
        return Path(model_dir)
    return Path("models") if isinstance(asked, str) and asked.startswith("robustbench:") else None


def resolve(name: str, declared: Declared) -> Defense:
    """The defense that a name of the registry, SCHEME:NAME or a Python path (module:factory) stands for.

    Raises UnknownName for none of these, BadInput where preprocessing or --model-dir is declared for a model that
    brings its own, and what the loader raises.
    """
    scheme, colon, rest = name.partition(":")
    if not colon:
        found: Defense = registry.defenses.load(name)
    elif scheme in SCHEMES:
        module, _, attribute = SCHEMES[scheme].partition(":")
        found = getattr(importlib.import_module(module), attribute)(rest, declared)
    else:
        found = from_python(scheme, rest)
    if declared.model_dir is not None and scheme != "robustbench":
        raise BadInput(f"--model-dir is for robustbench:DATASET/NORM/NAME, got {name!r}; type --weights FILE instead")
    return adjusted(found, declared)


def adjusted(known: Any, declared: Declared) -> Defense:
    """The defense with what the user declares. Raises BadInput where it brings its own preprocessing."""
    if declared.preprocessing is not None:
        if not isinstance(known, ModelDefense):
            raise BadInput(
                f"defense {known.name!r} brings its own preprocessing, got another; leave out --mean, --std, --resize and "
                "--value-range"
            )
        known = replace(known, preprocessing=declared.preprocessing)
    if declared.traits:
        traits, known = known.traits | set(declared.traits), copy.copy(known)
        object.__setattr__(known, "traits", traits)  # frozen or not
    return cast(Defense, known)


def from_object(thing: Any, declared: Declared) -> Defense:
    """The defense that a Python object is: a Defense, a module, an estimator or a callable."""
    if isinstance(thing, Defense):
        return adjusted(thing, declared)
    name = thing.__name__ if inspect.isroutine(thing) else type(thing).__name__
    found = ModelDefense(name, lambda weights: _with_weights(thing, weights), summary="an object of a Python session")
    return adjusted(found, declared)


def described(said: object, thing: Any, declared: Declared) -> Defense:
    """The object `thing` with the name, traits, claims, preprocessing and clean accuracy of `said`, a `Defense` without build.

    Raises BadInput where these are two models, or `thing` is a name, which has a defense of its own.
    """
    if not isinstance(said, ModelDefense) or isinstance(thing, str | Defense):
        raise BadInput(
            "expected a defense or a model, got both; type --defense NAME or --model SCHEME:NAME, or from Python model=OBJECT "
            "with defense=audit.Defense(NAME, ...), which describes it"
        )
    if said.build is not None:
        raise BadInput(
            f"defense {said.name!r} builds a model and {type(thing).__name__} came as model=, expected one of them; leave out "
            "build=... or model=..."
        )
    return adjusted(replace(said, build=partial(_with_weights, thing)), declared)


def from_python(path: str, attribute: str) -> Defense:
    """`module:factory` as a defense. The factory gives a Defense or whatever `ModelDefense` takes; a Defense may also lie
    there itself. The current directory is searched. Raises UnknownName or MissingDependency.
    """
    name = f"{path}:{attribute}"
    found = _attribute(path, attribute)
    if isinstance(found, Defense) and not inspect.isclass(found):
        return found
    if not callable(found):
        raise BadInput(f"{name} is {type(found).__name__}, expected a function that returns a model or a Defense")
    takes_weights = "weights" in _parameters(found)
    if not takes_weights:
        made = _called(found, name)
        if isinstance(made, Defense):
            return made
    return cast(
        Defense, ModelDefense(name, partial(_from_factory, found, name, takes_weights), summary=f"built by {name}")
    )


def _parameters(function: Callable[..., Any]) -> Iterable[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtins have none
        return ()


def _called(factory: Callable[..., Any], name: str, **given: Any) -> Any:
    return foreign(lambda: factory(**given), f"the factory {name}", "expected a model; mend the factory")


def _from_factory(factory: Callable[..., Any], name: str, takes_weights: bool, weights: Path | None) -> Found:
    """The model of a factory, with its weights, and the file that the factory is written in. Raises BadWeights."""
    source = inspect.getsourcefile(inspect.unwrap(factory))
    files = (Path(source),) if source else ()
    if takes_weights:
        if weights is not None and not weights.exists():
            raise BadWeights(f"--weights {weights} does not exist, expected what {name} reads; check the path")
        return Found(_called(factory, name, weights=weights), files)
    found = _with_weights(_called(factory, name), weights)
    return replace(found, files=files)


def _with_weights(thing: Any, weights: Path | None) -> Found:
    """A model with the tensors of a file, if one is given. Raises BadWeights where they do not fit, BadInput."""
    from torch import nn

    from audit.models.weights import fill

    if weights is None:
        return Found(thing)
    if not isinstance(thing, nn.Module):
        raise BadInput(
            f"--weights {weights} were given for {type(thing).__name__}, expected an nn.Module; leave them out"
        )
    return Found(fill(thing, weights))


def _attribute(path: str, attribute: str) -> Any:
    """The thing at a Python path. Raises UnknownName, MissingDependency."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the command `audit` does not search it, `python -m audit` does
    module = foreign(partial(_module, path), f"importing {path}", "mend the module")
    if not hasattr(module, attribute):
        hint = closest(attribute, [n for n in vars(module) if not n.startswith("_")])
        raise UnknownName(f"module {path} has no {attribute!r}: {hint}")
    return getattr(module, attribute)


def _module(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise MissingDependency(
                f"{path} needs {error.name}, which is not installed; type pip install {error.name}"
            ) from error
        raise UnknownName(
            f"there is no module {path!r} in the current directory or among the installed packages, expected "
            f"{', '.join(f'{s}:...' for s in SCHEMES)} or module:factory; see `python -m audit list defenses`"
        ) from error
