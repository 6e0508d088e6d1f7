"""The maps of a convolution as what comes after it sees them: behind normalisation, shortcut and activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

ACTIVATIONS = frozenset(
    ("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "elu", "elu_", "selu", "selu_", "celu", "celu_", "gelu",
     "silu", "mish", "hardswish", "hardtanh", "hardtanh_", "softplus", "tanh", "sigmoid", "clamp", "clamp_min", "clamp_"),
)  # fmt: skip


class Followed(TorchFunctionMode):
    """While it is entered, follows a tensor through torch's functions up to the first activation.

    `begin` gives it the answer of a convolution (n, c, h, w); `maps` is what the first activation behind it answers, as
    long as only maps of as many channels lie between (normalisation, a shortcut that is added, pooling); else that answer.
    Modules and plain functions are followed alike, so a network may be written either way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps: Tensor | None = None
        self._at: Tensor | None = None

    def begin(self, answer: Tensor) -> None:
        """Follow this one from now on; the last that is given counts."""
        self.maps = self._at = answer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self._at
        found = func(*args, **(kwargs or {}))
        if before is not None and self._at is before and any(a is before for a in args) and isinstance(found, Tensor):
            self._step(getattr(func, "__name__", ""), before, found)
        return found

    def _step(self, name: str, before: Tensor, found: Tensor) -> None:
        if found.ndim != 4 or found.shape[:2] != before.shape[:2] or found.shape[2] * found.shape[3] == 1:
            if found.is_floating_point() and found.numel() > 1:
                self._at = None  # flattened, or another layer: no activation on the way
            return
        self._at = found
        if name in ACTIVATIONS:
            self.maps, self._at = found, None


def leaf(answer: Tensor) -> Tensor:
    """An answer that a gradient can be asked for: itself, or a copy where none leads through it."""
    return answer if answer.requires_grad else torch.clone(answer.detach().requires_grad_())
