"""The random numbers that a model draws in a pass: where they come from, repeating them, seeing that there are none."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from adapters.structure import reachable

State = list[tuple[torch.Generator, Tensor]]


def noise_layers(model: nn.Module) -> list[nn.Module]:
    """The parts of `model` that offer a `generators` attribute: None, or one torch.Generator per row of the batch."""
    return [part for part in reachable(model)[0] if hasattr(part, "generators")]


def row_generators(x: Tensor, seed: int, draws: Sequence[int]) -> list[torch.Generator]:
    """One generator on the CPU per image of x (n, c, h, w) and draw, image by image: n * len(draws) of them.

    Its seed is a hash of (seed, draw, the image's float32 bytes), so that a draw depends on nothing else: not on the
    batch, the machine or what was asked before.
    """
    found = []
    for image in x.detach().float().cpu().contiguous().numpy():
        pixels = hashlib.blake2b(image.tobytes()).digest()
        for draw in draws:
            key = hashlib.blake2b(f"{seed}|{draw}|".encode() + pixels, digest_size=8).digest()
            found.append(torch.Generator().manual_seed(int.from_bytes(key, "big") >> 1))
    return found


def save(layers: Sequence[nn.Module]) -> State:
    """The states of torch's global generators and of those that `layers` draw from at the moment."""
    own = [generator for layer in layers for generator in getattr(layer, "generators", None) or ()]
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    every = {id(generator): generator for generator in (torch.default_generator, *cuda, *own)}
    return [(generator, generator.get_state()) for generator in every.values()]


def restore(state: State) -> None:
    """Put every generator back to where `save` found it."""
    for generator, saved in state:
        generator.set_state(saved)


@contextmanager
def of_no_row(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, `layers` draw from torch's global generators: for passes over other rows than generators were lent for."""
    lent = [getattr(layer, "generators", None) for layer in layers]
    for layer in layers:
        layer.generators = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer, generators in zip(layers, lent, strict=True):
            layer.generators = generators  # type: ignore[assignment]


def moved(state: State) -> bool:
    """Has anything been drawn since `save`?"""
    return any(not torch.equal(generator.get_state(), saved) for generator, saved in state)


def foreign() -> tuple[bytes, object]:
    """The states of numpy's and Python's global generators, to compare."""
    _, numbers, *position = np.random.get_state()
    return np.asarray(numbers).tobytes() + repr(position).encode(), random.getstate()
