"""Which part of a model answers for the whole? Found by watching a forward pass, without any convention of names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """One call of a submodule with one tensor, which it answered with one tensor; both are detached."""

    path: str
    given: Tensor
    answer: Tensor


@contextmanager
def watching(model: nn.Module) -> Iterator[list[Call]]:
    """The calls of all submodules of `model` inside the context, in the order in which they end. The hooks are removed."""
    calls: list[Call] = []

    def watch(path: str) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
            if len(given) == 1 and isinstance(given[0], Tensor) and isinstance(answer, Tensor):
                calls.append(Call(path, given[0].detach(), answer.detach()))

        return hook

    parts = (
        (path, part) for path, part in model.named_modules() if path and not isinstance(part, torch.jit.ScriptModule)
    )
    hooks = [part.register_forward_hook(watch(path)) for path, part in parts]  # compiled parts take none
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def last_network(model: nn.Module, x: Tensor) -> str | None:
    """The dotted path of the outermost submodule whose last answer *is* the model's, and which has a gradient.

    All that happens before it, in submodules or in the model's own code, can then be given another backward pass
    (`adapters.front`). x: images (n, c, h, w). None where there is none, or where it is given no feature maps.
    """
    with watching(model) as calls, torch.no_grad():
        logits = model(x)
    last = {c.path: c for c in calls}
    same = [c for c in last.values() if c.given.ndim == 4 and torch.equal(c.answer, logits)]
    differentiable = (c.path for c in sorted(same, key=lambda c: _depth(c.path)) if _has_gradient(model, c))
    return next(differentiable, None)


def _depth(path: str) -> tuple[int, str]:
    return path.count("."), path


def _has_gradient(model: nn.Module, call: Call) -> bool:
    if not call.given.is_floating_point():
        return False
    given = call.given.clone().requires_grad_()
    with torch.enable_grad():
        logits = model.get_submodule(call.path)(given)
        if not logits.requires_grad:
            return False
        top = logits.topk(2, dim=1).values
        (gradient,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), given, allow_unused=True)
    return gradient is not None and bool((gradient != 0).any())
