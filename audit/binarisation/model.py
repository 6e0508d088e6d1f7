"""The defense with another last layer: where that layer is, what goes into it, and which head answers which image.

All of it happens on a mirror (`adapters.structure`): the defense itself is not touched. A purifier that asks the network
keeps asking the network with its own last layer, as in the defense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adapters import structure
from audit.errors import Unsupported
from audit.geometry import distance
from audit.types import Norm

POWERS = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}


class Ambiguous(BaseException):
    """A query lies so far from its image that it may belong to another. Not an Exception: no library swallows it."""


class Tap(nn.Module):
    """The last layer as it is, keeping what went into it: `features` (m, d) of the last pass."""

    def __init__(self, exact: nn.Module) -> None:
        super().__init__()
        self.exact, self.features = exact, torch.zeros(0)

    def forward(self, features: Tensor) -> Tensor:
        self.features = features.detach().flatten(1)
        logits: Tensor = self.exact(features)
        return logits


class Heads(nn.Module):
    """A two-class head for each of n images: weight (n, d), bias (n,); features (m, ...) -> logits (m, 2).

    `owner` (m,), set before each pass, tells whose head answers which row. instead_of: the layer that they replace: a
    purifier may still ask it, so a cast of the whole model has to reach it, and it is kept as a part without being used.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, instead_of: nn.Module) -> None:
        super().__init__()
        self.instead_of = instead_of
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.owner = torch.zeros(0, dtype=torch.int64)

    def forward(self, features: Tensor) -> Tensor:
        rows = features.flatten(1)
        if len(rows) != len(self.owner):
            raise Unsupported(
                f"the last layer got {len(rows)} rows for {len(self.owner)} images, expected one for each; "
                "the binarisation test cannot take this model"
            )
        score = (rows * self.weight[self.owner].to(rows)).sum(1) + self.bias[self.owner].to(rows)
        return torch.stack([-score, score], 1)


class Binary(nn.Module):
    """`model`, whose last layer is `heads`: images near those of `clean` (n, c, h, w) -> logits (m, 2).

    A row belongs to the clean image nearest in `norm`. Where that is not certain (the row lies further away than half
    way to the next image) Ambiguous is raised; with one image everything is its own.
    """

    clean: Tensor

    def __init__(self, model: nn.Module, heads: Heads, clean: Tensor, norm: Norm) -> None:
        super().__init__()
        self.model, self.norm = model, norm
        self._held = (heads,)  # a part of the model already
        self.register_buffer("clean", clean)
        self._half_way = spacing(clean, norm) / 2

    @property
    def network(self) -> nn.Module:
        """The bare network of a staged defense, for the adapter `base`. Raises AttributeError without one."""
        return Binary(self.model.get_submodule("network"), self._held[0], self.clean, self.norm).eval()

    def forward(self, x: Tensor) -> Tensor:
        self._held[0].owner = self._owner(x.detach())
        logits: Tensor = self.model(x)
        if logits.shape != (len(x), 2):
            raise Unsupported(
                f"the model with a two-class last layer answered with shape {tuple(logits.shape)}, expected ({len(x)}, 2); "
                "the binarisation test cannot take a model whose last layer changes from pass to pass"
            )
        return logits

    def _owner(self, rows: Tensor) -> Tensor:
        if len(rows) == len(self.clean) and bool((distance(rows, self.clean, self.norm) < self._half_way).all()):
            return torch.arange(len(rows), device=rows.device)
        gaps, owner = _distances(rows.to(self.clean), self.clean, self.norm).min(1)
        if not bool((gaps < self._half_way[owner]).all()):
            raise Ambiguous
        return owner


def _distances(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    mode = "donot_use_mm_for_euclid_dist"  # exact for near images
    return torch.cdist(a.flatten(1), b.flatten(1), p=POWERS[norm], compute_mode=mode)


def spacing(x: Tensor, norm: Norm) -> Tensor:
    """The distance from each image (n, c, h, w) to the nearest other one: (n,), infinite for a single image."""
    return _distances(x, x, norm).fill_diagonal_(float("inf")).amin(1)


def apart(x: Tensor, norm: Norm, eps: float, at_most: int) -> list[list[int]]:
    """Indices of x (n, c, h, w) in groups whose balls of radius eps do not meet, of `at_most` images each."""
    gaps, groups = _distances(x, x, norm) <= 2.01 * eps, list[list[int]]()
    for i in range(len(x)):
        fitting = (g for g in groups if len(g) < at_most and not bool(gaps[i, g].any()))
        group = next(fitting, None)
        if group is None:
            groups.append([i])
        else:
            group.append(i)
    return groups


class Readout:
    """The place of a model's last layer, found on images x (m, c, h, w) by trying.

    That is the last nn.Linear whose output has the shape of the logits, or else the last other module without parts of
    its own; it must be one whose replacement by a layer of another width changes the width of the model's answer. What the model does to its
    logits afterwards (a temperature, a softmax) it also does to those of the head.
    Raises Unsupported when the model has no such module.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self._mirror = structure.mirror(model).eval()
        found = (name for name in _names(self._mirror, x) if _widens(self._mirror, name, x))
        self.name = next(found, "")
        if not self.name:
            raise Unsupported(
                f"{type(model).__name__} has no last layer that can be exchanged, expected a module such as nn.Linear whose "
                "output becomes the logits; the binarisation test cannot take this model"
            )
        self._tap = Tap(self._mirror.get_submodule(self.name)).eval()
        self._tapped = structure.replace(self._mirror, self.name, self._tap)

    @torch.no_grad()
    def features(self, x: Tensor, batch_size: int = 256) -> tuple[Tensor, Tensor]:
        """What reaches the last layer (m, d), and the model's own logits (m, k), for images x (m, c, h, w)."""
        parts = [(self._tapped(part), self._tap.features) for part in x.split(batch_size)]
        logits, features = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(logits)

    def binary(self, weight: Tensor, bias: Tensor, clean: Tensor, norm: Norm) -> Binary:
        """The defense with heads (n, d) and (n,) for the images `clean` (n, c, h, w); modules of its own each time."""
        whole = structure.mirror(self._mirror)
        heads = Heads(weight, bias, whole.get_submodule(self.name))
        return Binary(structure.replace(whole, self.name, heads), heads, clean, norm).eval()


class _Wide(nn.Module):
    """Answers with `classes` zeros."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1)[:, :1] * torch.zeros(self.classes, device=features.device, dtype=features.dtype)


@torch.no_grad()
def _names(model: nn.Module, x: Tensor) -> Iterator[str]:
    """Dotted names of modules that may be the last layer, the likeliest first; more than one for a shared module."""
    calls: list[tuple[nn.Module, Sequence[int]]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        one = len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
        if one and inputs[0].shape != x.shape:  # a network in one module, from images to logits, is no layer
            calls.append((module, tuple(output.shape)))

    leaves = [part for part in model.modules() if part is not model and not any(part.children())]
    hooks = [part.register_forward_hook(note) for part in leaves]
    try:
        shape = tuple(model(x).shape)
    finally:
        for hook in hooks:
            hook.remove()
    fitting = list(dict.fromkeys(part for part, output in reversed(calls) if output == shape))
    fitting.sort(key=lambda part: not isinstance(part, nn.Linear))
    for part in fitting:
        yield from (name for name, other in model.named_modules(remove_duplicate=False) if other is part)


@torch.no_grad()
def _widens(model: nn.Module, name: str, x: Tensor) -> bool:
    """Does a layer with one more class at `name` make the model answer with one more class?"""
    classes = int(model(x).shape[1]) + 1
    changed = structure.replace(model, name, _Wide(classes))
    try:
        return tuple(changed(x).shape) == (len(x), classes)
    except (RuntimeError, IndexError, ValueError, TypeError, AssertionError):  # what follows wants the old number
        return False
