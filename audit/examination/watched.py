"""Does a model take gradients while it classifies? AutoAttack's "dynamic" flag, without `sys.settrace`.

The model runs as it is deployed, under `torch.no_grad()`. Two passes look for a gradient in two ways:

1. `torch.autograd.grad`, `torch.autograd.backward` (which `Tensor.backward` and `torch.func` reach) and the entry of
   forward-mode differentiation are replaced by versions that note the call and then do their work. The replacement is
   process-wide and lasts for one pass; a lock keeps two examinations apart, and calls from other threads do not count.
2. Hooks on saved tensors see every backward pass that reads one, also from C++ or through a name imported earlier. They
   belong to this thread, and nothing is left behind.

What neither sees: a model that differentiates in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from audit.examination.calls import Calls, followed

_ONE_AT_A_TIME = threading.Lock()
WATCHED = ((torch.autograd, "grad"), (torch.autograd, "backward"), (forward_ad, "enter_dual_level"))


def dynamic(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """What one pass over images x (n, c, h, w) does with gradients; `model` should be a borrowed one.

    Keys: dynamic (bool: a gradient was taken); dynamic_in (dotted paths of the innermost submodules that took one, ""
    for the model's own code); enables_gradients (bool: gradients were switched on inside `no_grad`, taken or not).
    """
    taken, enabled = set[str](), False
    with torch.no_grad(), followed(model) as calls, _replaced(lambda: taken.add(calls.where)):
        model(x)
    with torch.no_grad(), followed(model) as calls:
        seen = _Saved(calls)
        try:
            with torch.autograd.graph.saved_tensors_hooks(seen.pack, seen.unpack):
                model(x)
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):
                raise
            taken.add(calls.where)  # torch.func refuses to run under these hooks: it was about to differentiate
    enabled = seen.enabled or bool(taken)
    taken |= seen.taken
    return {"dynamic": bool(taken), "dynamic_in": sorted(taken), "enables_gradients": enabled}


class _Saved:
    """Hooks on saved tensors: one that is packed shows that gradients are on, one that is unpacked that one is taken."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.taken = set[str]()
        self.enabled = False

    def pack(self, tensor: Tensor) -> Tensor:
        self.enabled = True
        return tensor

    def unpack(self, tensor: Tensor) -> Tensor:
        self.taken.add(self._calls.where)
        return tensor


@contextmanager
def _replaced(note: Callable[[], None]) -> Iterator[None]:
    mine = threading.get_ident()

    def noting(original: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == mine:
                note()
            return original(*args, **kwargs)

        return noted

    with _ONE_AT_A_TIME:
        originals = [(owner, name, getattr(owner, name)) for owner, name in WATCHED]
        try:
            for owner, name, original in originals:
                setattr(owner, name, noting(original))
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)
