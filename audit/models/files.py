"""Models saved whole: TorchScript archives and exported programs. Both hold their own code, neither runs Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from audit.errors import BadInput, BadWeights
from audit.models.own import Found, ModelDefense
from audit.protocols import Defense
from defenses.weights import inspect


def torchscript(name: str, _: object) -> Defense:
    """`torchscript:FILE`: what `torch.jit.save` wrote."""
    return _from_file("torchscript", name, partial(torch.jit.load, map_location="cpu"), "torch.jit.save")


def exported(name: str, _: object) -> Defense:
    """`export:FILE`: what `torch.export.save` wrote, with a dynamic first dimension."""
    return _from_file("export", name, lambda path: torch.export.load(path).module(), "torch.export.save")


def _from_file(scheme: str, name: str, read: Callable[[str], Any], writer: str) -> Defense:
    if not name:
        raise BadInput(f"{scheme}: names no file; type {scheme}:FILE")
    found = ModelDefense(f"{scheme}:{name}", partial(_read, Path(name), read, writer), summary=f"a file of {writer}")
    return cast(Defense, found)


def _read(path: Path, read: Callable[[str], Any], writer: str, weights: Path | None) -> Found:
    path = weights or path  # where the file lies now: `verify --weights FILE`
    inspect(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
            module = read(str(path))
    except Exception as error:  # a torn archive makes torch raise nearly anything
        said = " ".join(str(error).split())[:160]
        raise BadWeights(
            f"{path} cannot be read ({type(error).__name__}: {said}), expected a file of {writer}; save the model anew"
        ) from error
    for weight in module.parameters():
        weight.requires_grad_(False)  # a script's weights, once copied, are no leaves, and torch warns of them
    return Found(module, (path,))
