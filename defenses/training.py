"""The one training loop. A recipe is a loss, an adversary, a schedule and a size; the loop knows no method.

Every epoch's order is drawn from (seed, epoch), so a run that was killed and resumed from its last checkpoint gives
the same weights as one that was not.
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.errors import BadInput, BadModel
from audit.ledger import write_atomically

Loss = Callable[[Tensor, Tensor], Tensor]
Adversary = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint is made.

    loss: (logits (n, k), labels (n,)) -> scalar. adversary: (model in evaluation mode, x, y, seed) -> x to train on;
    None trains on clean images. epochs: per data set where the paper differs, else "default". images: how many of
    the training set (None: all). decay: "linear" lowers the learning rate to 0, "none" keeps it. source: where the
    numbers come from.
    """

    name: str
    loss: Loss
    network: str
    width: float
    epochs: int
    source: str
    lr: float = 1e-3
    batch_size: int = 128
    images: int | None = None
    decay: str = "none"
    adversary: Adversary | None = None
    eps: float | None = None

    def describe(self) -> dict[str, Any]:
        """The recipe as JSON; functions appear by name."""
        plain = {k: v for k, v in self.__dict__.items() if not callable(v)}
        return {**plain, "loss": self.loss.__name__, "adversary": getattr(self.adversary, "__name__", None)}


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of the training table. Accuracies are fractions over the images trained on."""

    epoch: int
    loss: float
    train_accuracy: float
    learning_rate: float
    seconds: float


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Eq. 7 of the super-fitting paper, averaged over the batch."""
    return F.cross_entropy(logits, y)


class Trainer:
    """Trains `network` on x (n, c, h, w) in [0,1] and y (n,), one epoch per step of `epochs()`.

    checkpoint: file from which a run resumes and to which each epoch is written, or None.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        x: Tensor,
        y: Tensor,
        *,
        seed: int,
        checkpoint: Path | None = None,
    ) -> None:
        if recipe.images is not None:
            x, y = x[: recipe.images], y[: recipe.images]
        self.network, self.recipe, self.x, self.y, self.seed = network, recipe, x, y, seed
        self.checkpoint = checkpoint
        self.table: list[Epoch] = []
        self.optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
        self.batches = max(len(x) // recipe.batch_size, 1)
        if checkpoint is not None and checkpoint.is_file():
            self._resume(checkpoint)

    def epochs(self, beat: Callable[[int], None] = lambda _: None) -> Iterator[Epoch]:
        """Run the epochs that remain. beat: called with the number of batches done in the epoch.

        Raises BadModel when the loss stops being finite.
        """
        for number in range(len(self.table), self.recipe.epochs):
            self.table.append(self._epoch(number, beat))
            if self.checkpoint is not None:
                self._save(self.checkpoint)
            yield self.table[-1]
        self.network.eval()

    def _epoch(self, number: int, beat: Callable[[int], None]) -> Epoch:
        started, total, right = time.perf_counter(), 0.0, 0
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        order = torch.randperm(len(self.x), generator=generator)
        for batch in range(self.batches):
            rows = order[batch * self.recipe.batch_size : (batch + 1) * self.recipe.batch_size]
            loss, correct = self._batch(self.x[rows], self.y[rows], number, batch)
            total, right = total + loss, right + correct
            beat(batch + 1)
        if not total < float("inf"):
            raise BadModel(
                f"the training loss became {total} in epoch {number + 1}; lower the learning rate, or choose another --recipe"
            )
        seen = min(self.batches * self.recipe.batch_size, len(self.x))
        seconds = time.perf_counter() - started
        return Epoch(number + 1, total / self.batches, right / seen, self._rate(number, self.batches - 1), seconds)

    def _batch(self, x: Tensor, y: Tensor, epoch: int, batch: int) -> tuple[float, int]:
        if self.recipe.adversary is not None:
            self.network.eval()
            x = self.recipe.adversary(self.network, x, y, self.seed + epoch * self.batches + batch)
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(epoch, batch)
        logits = self.network(x)
        loss = self.recipe.loss(logits, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach()), int((logits.argmax(1) == y).sum())

    def _rate(self, epoch: int, batch: int) -> float:
        if self.recipe.decay == "none":
            return self.recipe.lr
        done = (epoch * self.batches + batch) / (self.recipe.epochs * self.batches)
        return self.recipe.lr * (1 - done)

    def _identity(self) -> dict[str, Any]:
        return {"recipe": self.recipe.describe(), "seed": self.seed, "images": len(self.x)}

    def _save(self, path: Path) -> None:
        buffer = io.BytesIO()
        torch.save(
            {"identity": self._identity(), "table": [asdict(row) for row in self.table],
             "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()},
            buffer,
        )  # fmt: skip
        write_atomically(path, buffer.getvalue())

    def _resume(self, path: Path) -> None:
        try:
            state: Mapping[str, Any] = torch.load(path, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise BadInput(
                f"{path} is not a training checkpoint ({str(error).splitlines()[0]}); delete it to start anew"
            ) from error
        if state["identity"] != self._identity():
            raise BadInput(
                f"{path} belongs to another training run ({state['identity']}); choose another --out or delete it"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.table = [Epoch(**row) for row in state["table"]]
