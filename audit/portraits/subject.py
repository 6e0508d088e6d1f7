"""The model that sits for the portraits: the whole defense, its network, and what stands in front of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audit.examination.borrowed import borrowed
from audit.rng import Stream

BATCH = 64
Part = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """`model` as deployed; `network`: what classifies in it (the model itself without a test-time part); `purifier`:
    what stands in front of that, or None. Every pass starts from the same `seed`. draws: passes that an answer of the
    model is averaged over, 1 unless it is random.
    """

    model: nn.Module
    network: nn.Module
    purifier: nn.Module | None
    seed: int
    draws: int

    @torch.no_grad()
    def each(self, part: Part, x: Tensor) -> Tensor:
        """A part of the model on images x (n, c, h, w), in batches, on the subject's own random numbers."""
        with Stream(self.seed):
            return torch.cat([part(rows).detach() for rows in x.split(BATCH)])

    def answer(self, part: Part, x: Tensor, draws: int = 1) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The class and its softmax probability, a mean over draws: (n,) each."""
        with Stream(self.seed), torch.no_grad():
            mean = torch.stack([_probabilities(part, x) for _ in range(draws)]).mean(0)
        top = mean.max(1)
        return top.indices.cpu().numpy(), top.values.float().cpu().numpy()

    def views(self, clean: Tensor, x_adv: Tensor) -> list[tuple[str, Tensor]]:
        """What the network is shown, by name: images as they are, and what the part in front makes of them."""
        shown = [("clean", clean), ("adversarial", x_adv)]
        if self.purifier is not None:
            behind = "noised" if self.draws > 1 else "purified"
            made = [(f"{name}, {behind}", self.each(self.purifier, images)) for name, images in shown]
            shown += [(name, images) for name, images in made if images.shape == clean.shape]
        return shown


@contextmanager
def sitting(model: nn.Module, *, seed: int, draws: int) -> Iterator[Subject]:
    """A subject that shares the model's tensors and none of its modules; the model is left as it was."""
    with borrowed(model) as twin:
        parts = [getattr(twin, name, None) for name in ("network", "purifier")]
        network, purifier = parts if all(isinstance(part, nn.Module) for part in parts) else (twin, None)
        assert isinstance(network, nn.Module)
        yield Subject(twin, network, purifier if isinstance(purifier, nn.Module) else None, seed, draws)


def _probabilities(part: Part, x: Tensor) -> Tensor:
    return torch.cat([part(rows).double().softmax(1) for rows in x.split(BATCH)])
