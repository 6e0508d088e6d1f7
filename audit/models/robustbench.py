"""`robustbench:DATASET/NORM/NAME`: a model of RobustBench's zoo, from its own layout of files or fetched as it fetches.

RobustBench 1.1.1 imports `autoattack`, which is not on the package index, although it depends on `pyautoattack`, which is:
it gets the latter under the former's name, before it is imported and for the whole process. It also imports `pkg_resources`,
which setuptools dropped in release 81.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torchvision import models

from audit import leaderboard
from audit.errors import BadInput, BadWeights, MissingDependency, UnknownName
from audit.leaderboard import Entry
from audit.models.own import Found, ModelDefense, foreign
from audit.models.spec import Declared, usual_place
from audit.models.weights import fill, state_of
from audit.protocols import Defense
from audit.registry import closest
from audit.types import Claim, ThreatModel
from audit.versions import installed
from defenses.weights import harmless, inspect, read_safely

EXPECTED = "type robustbench:cifar10/Linf/Carmon2019Unlabeled; `python -m audit leaderboard` lists names"
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
STANDARD = {"Standard_R50": "resnet50"}  # networks whose weights RobustBench takes from torchvision


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model of the zoo, the folder of its data set and norm, and whether it may be fetched."""

    dataset: str
    norm: str
    name: str
    model_dir: Path
    download: bool

    @property
    def folder(self) -> Path:
        return self.model_dir / self.dataset / self.norm

    @property
    def timm_name(self) -> str:
        """The name under which RobustBench registers some of its models with timm, which then keeps their weights."""
        return f"{self.name.lower().replace('-', '_')}_{self.dataset}_{self.norm.lower()}"


def find(name: str, declared: Declared) -> Defense:
    """The defense of a model of the zoo, with the leaderboard's figures as its claim and for the handshake.

    Raises UnknownName where the zoo has no such model, MissingDependency where RobustBench does not import.
    """
    dataset, norm, model = [*name.split("/"), "", ""][:3]
    if name.count("/") != 2 or dataset not in CLASSES or norm not in ("Linf", "L2"):
        raise UnknownName(f"robustbench:{name} names no data set, norm (Linf or L2) and model; {EXPECTED}")
    place = declared.model_dir or usual_place(f"robustbench:{name}", None)
    wanted = Wanted(dataset, norm, model, cast(Path, place), declared.download)
    known = zoo(dataset, norm)
    entry = leaderboard.find(dataset, norm, model)
    if model not in known:
        where = "is on the leaderboard, but RobustBench's zoo" if entry else "is not: RobustBench's zoo"
        raise UnknownName(f"{model!r} {where} for {dataset}, {norm} has no weights of it: {closest(model, [*known])}")
    found = ModelDefense(
        f"robustbench:{name}", partial(_build, wanted, entry), f"{model} of RobustBench {installed('robustbench')}",
        claims=() if entry is None else (_claim(f"robustbench:{name}", entry),), dataset=dataset,
        eps=None if entry is None else entry.eps, clean=None if entry is None else entry.clean,
    )  # fmt: skip
    return cast(Defense, found)


def _claim(defense: str, entry: Entry) -> Claim:
    threat = ThreatModel(entry.norm, entry.eps)  # type: ignore[arg-type]
    source = f"RobustBench's leaderboard, as of {leaderboard.SNAPSHOT}"
    return Claim(
        defense, entry.dataset, entry.architecture, threat, "autoattack", entry.autoattack, source, entry.clean
    )


def library(name: str) -> Any:
    """A module of RobustBench. Raises MissingDependency, saying what to install, where it does not import."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm and pkg_resources are deprecated in many ways
            sys.modules.setdefault("autoattack", importlib.import_module("pyautoattack"))
            return importlib.import_module(name)
    except ImportError as error:
        lacks = error.name == "pkg_resources"
        advice = (
            "pip install 'setuptools<81'" if lacks else "pip install robustbench==1.1.1 timm==1.0.9 'setuptools<81'"
        )
        raise MissingDependency(f"robustbench does not import ({error}); type {advice}") from error


def zoo(dataset: str, norm: str) -> Mapping[str, Mapping[str, Any]]:
    """RobustBench's own record of each model for a data set and norm: `model` builds it, `gdrive_id` says where it lies."""
    kinds, found = library("robustbench.model_zoo.enums"), library("robustbench.model_zoo").model_dicts
    models: Mapping[str, Mapping[str, Any]] = found[kinds.BenchmarkDataset(dataset)].get(kinds.ThreatModel(norm), {})
    return models


def _build(wanted: Wanted, entry: Entry | None, weights: Path | None) -> Found:
    if weights is not None:
        raise BadInput(
            f"--weights {weights} were given for a model of RobustBench, expected its own layout of files; type --model-dir DIR"
        )
    record = zoo(wanted.dataset, wanted.norm)[wanted.name]
    about: dict[str, Any] = {"library": f"robustbench {installed('robustbench')}"}
    if entry is not None:
        about |= {"name": entry.architecture, "width": 1.0}
    if "preprocessing" in record:
        about["images"] = str(record["preprocessing"])  # how the images must be cropped beforehand
    if library("timm").is_model(wanted.timm_name):
        module, files = _of_timm(wanted)
    elif wanted.dataset == "imagenet" and "Standard" in wanted.name:
        module, files = _of_torchvision(wanted)
    else:
        files = tuple(_checked(path, wanted, gdrive) for path, gdrive in _parts(wanted, record["gdrive_id"]))
        module = _loaded(wanted, files)
    return Found(module, files, about=about)


def _parts(wanted: Wanted, gdrive: str | list[str]) -> list[tuple[Path, str]]:
    """The files of a model in RobustBench's layout, each with its place in Google Drive; an ensemble has several."""
    whole = wanted.folder / f"{wanted.name}.pt"
    if isinstance(gdrive, str):
        return [(whole, gdrive)]
    return [(whole.with_name(f"{whole.name}_m{part}.pt"), place) for part, place in enumerate(gdrive)]


def _checked(path: Path, wanted: Wanted, gdrive: str) -> Path:
    """The file, fetched if need be and allowed. Raises BadWeights for none, a web page, a torn file or a pickle."""
    if path.is_file():
        inspect(path)
        read_safely(path)  # RobustBench reads it again, and says less of what is wrong
        return path
    if not wanted.download:
        raise BadWeights(
            f"RobustBench's checkpoint of {wanted.name} is not at {path}; type --model-dir DIR, or --download to fetch it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f"{path.name}.part")
    fetch = library("robustbench.utils").download_gdrive_new
    foreign(lambda: fetch(gdrive, partial_file), f"fetching {wanted.name}", f"put its checkpoint at {path}")
    if not partial_file.is_file():
        raise BadWeights(f"Google Drive gave no file for {wanted.name}; put its checkpoint at {path}")
    inspect(partial_file)
    read_safely(partial_file)
    partial_file.rename(path)  # only a file that can be read takes the name
    return path


def _loaded(wanted: Wanted, files: tuple[Path, ...]) -> nn.Module:
    load = library("robustbench.utils").load_model
    try:
        with harmless(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = load(wanted.name, wanted.model_dir, wanted.dataset, wanted.norm)
    except Exception as error:  # a state dict of something else makes RobustBench raise KeyError, TypeError and others
        said = " ".join(str(error).split())[:160]
        raise BadWeights(
            f"{files[0]} does not fit RobustBench's {wanted.name} ({type(error).__name__}: {said}); fetch it anew"
        ) from error
    return module


def _of_timm(wanted: Wanted) -> tuple[nn.Module, tuple[Path, ...]]:
    """A model whose weights timm fetches, or that lie as NAME.pt where the others of RobustBench do."""
    timm = library("timm")
    make, path = timm.create_model, wanted.folder / f"{wanted.name}.pt"
    classes = CLASSES[wanted.dataset]
    if path.is_file():
        module: nn.Module = make(wanted.timm_name, num_classes=classes, pretrained=False)
        state = state_of(path)
        inside = not all(name.startswith("model.") for name in state)
        fill(cast(nn.Module, module.model) if inside else module, path, state)
        return module.eval(), (path,)
    if not wanted.download:
        raise BadWeights(f"the weights of {wanted.name} are not at {path}; put them there, or type --download")
    _sound(timm.get_pretrained_cfg(wanted.timm_name).url)
    fetch = partial(make, wanted.timm_name, num_classes=classes, pretrained=True)
    return foreign(fetch, f"timm, fetching {wanted.name},", f"put its weights at {path}").eval(), ()


def _of_torchvision(wanted: Wanted) -> tuple[nn.Module, tuple[Path, ...]]:
    """A network that torchvision trained: its state dict as NAME.pt in RobustBench's layout, or what torchvision fetches."""
    path, network = wanted.folder / f"{wanted.name}.pt", STANDARD.get(wanted.name, "")
    if path.is_file() and network:
        zoo_of, parts = (
            library("robustbench.model_zoo.imagenet"),
            "robustbench.model_zoo.architectures.utils_architectures",
        )
        inner = fill(models.get_model(network), path, state_of(path))
        module: nn.Module = library(parts).normalize_model(inner, zoo_of.mu, zoo_of.sigma)
        return module.eval(), (path,)
    if not wanted.download:
        raise BadWeights(
            f"the weights of {wanted.name} are torchvision's and not at {path}; put its state dict there, or type --download"
        )
    _sound(models.get_model_weights(network).IMAGENET1K_V1.url if network else None)
    load = partial(_loaded, wanted, (Path("torchvision's file"),))
    return cast(nn.Module, foreign(load, f"torchvision, fetching {wanted.name},", f"put its state dict at {path}")), ()


def _sound(url: str | None) -> None:
    """Check the file that torch's hub keeps of a URL, if it has one. Raises BadWeights as for any other checkpoint."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / (url or "").rpartition("/")[2]
    if url and path.is_file():
        inspect(path)
        read_safely(path)
