"""Random streams that do not touch one another.

Attack libraries draw from, and reseed, the process-wide generators (pyautoattack calls `torch.manual_seed`
inside `perturb`). A `Stream` swaps the generators of torch, numpy and `random` in and out, so the attack, the
defense and the caller each keep a sequence of their own.
"""

from __future__ import annotations

import hashlib
import random
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

State = tuple[torch.Tensor, list[torch.Tensor], Any, Any]


def derive_seed(*parts: object) -> int:
    """A 31-bit seed from any printable parts, the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _capture() -> State:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()


def _restore(state: State) -> None:
    cpu, cuda, numpy_state, python_state = state
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
    np.random.set_state(numpy_state)
    random.setstate(python_state)


class Stream:
    """A private sequence of random numbers behind the global generators.

    `with stream:` makes the global generators continue this stream's sequence and puts the caller's back on exit.
    Streams nest; entering one twice at the same time is an error.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._own: State | None = None
        self._outer: State | None = None

    def __enter__(self) -> Self:
        if self._outer is not None:
            raise RuntimeError("this random stream is active already")
        self._outer = _capture()
        if self._own is None:
            torch.manual_seed(self._seed)
            np.random.seed(self._seed)
            random.seed(self._seed)
        else:
            _restore(self._own)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own = _capture()
        assert self._outer is not None
        _restore(self._outer)
        self._outer = None
