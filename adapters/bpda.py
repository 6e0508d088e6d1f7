"""BPDA: the exact forward pass, and a backward pass through a differentiable substitute of chosen modules.

Source: Athalye, Carlini and Wagner 2018, Sec. 4.1 (backward pass differentiable approximation). The rest of the model
is differentiated exactly, at the values of the exact forward pass; several substituted modules compose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters import draws, structure
from adapters.learned import Learned, stand_in
from audit.errors import BadInput
from audit.registry import closest

Substitute = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """The straight-through substitute."""
    return x


def binomial_blur(x: Tensor) -> Tensor:
    """Images (n, c, h, w) blurred by the 3 x 3 binomial kernel (1, 2, 1) x (1, 2, 1) / 16; edge pixels repeat."""
    if x.ndim != 4:
        raise BadInput(f"substitute 'binomial_blur' got a tensor of {x.ndim} dimensions, expected 4; try 'identity'")
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device) / 4
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])


SUBSTITUTES: dict[str, Callable[[], Substitute]] = {
    "identity": lambda: identity,
    "binomial_blur": lambda: binomial_blur,
    "learned": Learned,
}


def substitute_named(name: str | Substitute) -> Substitute:
    """The substitute of that name; a callable is itself. Raises BadInput."""
    if not isinstance(name, str):
        return name
    if name not in SUBSTITUTES:
        raise BadInput(f"unknown substitute {name!r}: {closest(name, sorted(SUBSTITUTES))}")
    return SUBSTITUTES[name]()


class Instead(torch.autograd.Function):
    """The exact value forward; backward, the gradient goes to the substitute's value."""

    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, exact: Tensor) -> Tensor:
        ctx.dtype = stand_in.dtype
        return exact.view_as(exact)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].to(ctx.dtype), None


class Substituted(nn.Module):
    """`exact` forward, `substitute` backward; `label` names it in errors.

    A random substitute draws the same numbers as the exact module did, and leaves torch's generators as if it had not
    been there.
    """

    def __init__(self, exact: nn.Module, substitute: Substitute, label: str) -> None:
        super().__init__()
        self.exact, self.substitute, self.label = exact, substitute, label
        self.called = False
        self._layers = draws.noise_layers(self)

    def forward(self, x: Tensor) -> Tensor:
        self.called = True
        before = draws.save(self._layers) if self.substitute is not identity else []
        with torch.no_grad():
            exact: Tensor = self.exact(x.detach())
        if not (torch.is_grad_enabled() and x.requires_grad):
            return exact
        smooth = stand_in(self.substitute, self.exact, x, self._layers, before)
        if smooth.shape != exact.shape:
            raise BadInput(
                f"the substitute of module {self.label!r} gives shape {tuple(smooth.shape)} where the module gives "
                f"{tuple(exact.shape)}; pass a substitute that keeps the module's shape"
            )
        instead: Tensor = Instead.apply(smooth, exact)
        return instead


class Bpda(nn.Module):
    """`model` whose `modules` are differentiated through a substitute: images (n, c, h, w) -> logits (n, k).

    modules: dotted names of submodules, comma-separated; each must map one tensor to one tensor.
    substitute: "identity", "binomial_blur", "learned" (a small network fitted to the module in the first pass that needs
    a gradient), or in Python any module or callable with the module's output shape. It stands in for each of the modules.
    Only the path that a name spells is changed: a part that holds the network for its own use keeps the exact one.
    To name a module inside a part that takes gradients itself changes that part's answers; do not.
    Raises BadInput for unknown names, for one module inside another, and in the first pass where a module did not take
    part in it (then nothing was substituted) or where shapes differ.
    """

    def __init__(self, model: nn.Module, modules: str = "purifier", substitute: str | Substitute = "identity") -> None:
        super().__init__()
        mirrored = structure.mirror(model)
        for name in _outermost(mirrored, modules):
            part = Substituted(mirrored.get_submodule(name), substitute_named(substitute), name)
            mirrored = structure.replace(mirrored, name, part)
        self.model, self._checked = mirrored, False

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        if not self._checked:
            _check_called(self.model)
            self._checked = True
        return logits


def _check_called(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, Substituted) and not part.called:
            raise BadInput(
                f"module {part.label!r} took no part in the forward pass, so nothing was substituted; "
                "name a module that the model's forward pass calls"
            )


def _outermost(model: nn.Module, modules: str) -> list[str]:
    """The full names in the comma-separated list, none of which lies inside another."""
    names = sorted({structure.find(model, name.strip()) for name in modules.split(",")})
    for name in names:
        inside = [other for other in names if other.startswith(name + ".")]
        if inside:
            raise BadInput(f"module {inside[0]!r} lies inside {name!r}; substitute one or the other")
    return names
