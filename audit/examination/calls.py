"""Which submodules a forward pass calls, with what, and inside which other one: a tree, seen by hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(eq=False)
class Call:
    """One call of the submodule at the dotted `path` ("" is the model itself), and the calls made during it.

    given: its first floating tensor; answer: what it returned, None while it runs or where that is no single tensor;
    grad: were gradients enabled around the call?
    """

    path: str
    given: Tensor | None
    grad: bool
    answer: Tensor | None = None
    inner: list[Call] = field(default_factory=list)

    def everyone(self) -> Iterator[Call]:
        """This call and all calls during it, innermost first."""
        for call in self.inner:
            yield from call.everyone()
        yield self


Answered = Callable[[Call], Tensor | None]


class Calls:
    """The open calls of one pass, outermost first, and the finished outermost one."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self.open: list[Call] = []
        self.root: Call | None = None

    @property
    def where(self) -> str:
        """The path of the innermost open call."""
        return self.open[-1].path if self.open else ""

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = Call(path, _first((*args, *kwargs.values())), torch.is_grad_enabled())
        if self.open:
            self.open[-1].inner.append(call)
        self.open.append(call)

    def leave(self, answer: Any) -> Any:
        call = self.open.pop()
        call.answer = answer if isinstance(answer, Tensor) else None
        if not self.open:
            self.root = call
        return self._answered(call)


def _nothing(_: Call) -> None:
    return None


@contextmanager
def followed(model: nn.Module, answered: Answered = _nothing) -> Iterator[Calls]:
    """Hooks on every submodule of `model` while the block lasts; a part called by `.forward` is not seen.

    answered: told of each call when it ends; a tensor that it returns goes on in place of the answer.
    """
    calls = Calls(answered)
    hooks = []
    for path, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule) and path:
            continue  # compiled parts take no hooks that replace answers
        hooks.append(part.register_forward_pre_hook(_enter(calls, path), with_kwargs=True))
        hooks.append(part.register_forward_hook(_leave(calls)))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _enter(calls: Calls, path: str) -> Callable[..., None]:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.enter(path, args, kwargs)

    return before


def _leave(calls: Calls) -> Callable[..., Any]:
    def after(_: nn.Module, __: tuple[Any, ...], answer: Any) -> Any:
        return calls.leave(answer)

    return after


def _first(values: tuple[Any, ...]) -> Tensor | None:
    return next((value for value in values if isinstance(value, Tensor) and value.is_floating_point()), None)
