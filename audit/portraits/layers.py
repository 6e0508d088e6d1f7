"""Which layers of a network to look at, and what flows through one. Found by watching a pass, whatever the names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from audit.errors import Unsupported

Call = tuple[str, Tensor, Tensor]  # path, what it was given, what it answered
KINDS = (nn.Conv2d, nn.Linear)


@contextmanager
def calls(network: nn.Module, record: Callable[[Call], Tensor | None]) -> Iterator[None]:
    """Inside the context, `record` hears each call of a convolution or linear layer, and may change its answer."""

    def watch(path: str) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], answer: Any) -> Tensor | None:
            whole = bool(given) and isinstance(given[0], Tensor) and isinstance(answer, Tensor)
            return record((path, given[0], answer)) if whole else None

        return hook

    hooks = [
        part.register_forward_hook(watch(path)) for path, part in network.named_modules() if isinstance(part, KINDS)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def places(network: nn.Module, x: Tensor) -> tuple[str | None, str | None]:
    """Paths of the last convolution with an extent, and of the last linear layer that gives the logits; None for none.

    x: one or more images (n, c, h, w).
    """
    heard = list[Call]()
    with calls(network, lambda call: heard.append(call)), torch.no_grad():
        logits = network(x)
    maps = [path for path, _, out in heard if out.ndim == 4 and out.shape[-1] * out.shape[-2] > 1]
    heads = [path for path, given, out in heard if given.ndim == 2 and out.shape == logits.shape]
    return (maps[-1] if maps else None), (heads[-1] if heads else None)


def operations(network: nn.Module, x: Tensor) -> int:
    """Multiplications in the convolutions and linear layers of one pass over one image x (1, c, h, w)."""
    count = [0]

    def add(call: Call) -> None:
        weight = network.get_submodule(call[0]).weight
        assert isinstance(weight, Tensor)
        count[0] += call[2].numel() // weight.shape[0] * weight.numel()

    with calls(network, add), torch.no_grad():
        network(x)
    return count[0]


def answers_at(network: nn.Module, path: str, x: Tensor) -> Tensor:
    """What the layer at `path` answered last in a pass over images x (n, c, h, w), detached."""
    return _at(network, path, x, 2)


def inputs_at(network: nn.Module, path: str, x: Tensor) -> Tensor:
    """What the layer at `path` was given last, detached: before a linear layer, features (n, d)."""
    return _at(network, path, x, 1)


def _at(network: nn.Module, path: str, x: Tensor, place: int) -> Tensor:
    heard = list[Call]()
    with calls(network, lambda call: heard.append(call) if call[0] == path else None), torch.no_grad():
        network(x)
    found = heard[-1][place] if heard else None
    if not isinstance(found, Tensor) or len(found) != len(x):
        raise Unsupported(
            f"layer {path!r} was not called on all {len(x)} images of a pass, expected one answer for each"
        )
    return found.detach().clone()
