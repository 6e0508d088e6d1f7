"""The one training loop; it knows no method.

Every epoch's order and every step's seed are drawn from (seed, epoch, step), and the memory of a method lies in the
checkpoint, so a run that was killed and resumed gives the same weights as one that was not.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audit.errors import BadInput, BadModel
from audit.ledger import write_atomically
from defenses.augmentation import crop_flip
from defenses.recipes import Batch, Epoch, Recipe

APART = 2_654_435_761  # 2^32 over the golden ratio: so far apart that no step of a seed draws what one of another does
STATE = {"identity", "table", "network", "optimizer", "memory"}


class Trainer:
    """Trains `network` on x (n, c, h, w) in [0,1] and y (n,), one epoch per step of `epochs()`.

    checkpoint: file from which a run resumes and to which each epoch is written, or None. memory: tensors to start
    `Batch.memory` with, beside the recipe's own buffers. sample: the images (m, c, h, w) and labels (m,) that the
    recipe's probe looks at; the first 1,000 training images where none is given.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, x: Tensor, y: Tensor, *, seed: int, checkpoint: Path | None = None,
        memory: Mapping[str, Tensor] | None = None, sample: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        if recipe.images is not None:
            x, y = x[: recipe.images], y[: recipe.images]
        self.network, self.recipe, self.x, self.y, self.seed = network, recipe, x, y, seed
        self._data = _digest(x, y) if checkpoint is not None else ""
        self.checkpoint, self.sample = checkpoint, sample or (x[:1000], y[:1000])
        self.memory = {**(recipe.buffers(x) if recipe.buffers else {}), **(memory or {})}
        self.table: list[Epoch] = []
        self.optimizer = _optimizer(network, recipe)
        self.batches = max(len(x) // recipe.batch_size, 1)
        if checkpoint is not None and checkpoint.is_file():
            self._resume(checkpoint)

    def epochs(self, beat: Callable[[int], None] = lambda _: None) -> Iterator[Epoch]:
        """Run the epochs that remain. beat: called with the number of batches done in the epoch.

        Raises BadModel when the loss stops being finite.
        """
        for number in range(len(self.table), self.recipe.epochs):
            row = self._epoch(number, beat)
            if self.recipe.probe is not None:
                row = replace(row, extra=self.recipe.probe(self.network.eval(), *self.sample))
            self.table.append(row)
            if self.checkpoint is not None:
                self._save(self.checkpoint)
            yield row
        self.network.eval()

    def _epoch(self, number: int, beat: Callable[[int], None]) -> Epoch:
        started, total, right = time.perf_counter(), 0.0, 0
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        order = torch.randperm(len(self.x), generator=generator)
        with _own_randomness(self.x.device, self.seed * 100_003 + number):
            for step in range(self.batches):
                rows = order[step * self.recipe.batch_size : (step + 1) * self.recipe.batch_size].to(self.x.device)
                for replay in range(self.recipe.replays):
                    loss, correct = self._step(rows, number, step, replay)
                    total, right = total + loss, right + correct
                beat(step + 1)
        if not abs(total) < float("inf"):
            raise BadModel(
                f"the training loss became {total} in epoch {number + 1}; lower the learning rate, or choose another --recipe"
            )
        steps = self.batches * self.recipe.replays
        seen = min(self.batches * self.recipe.batch_size, len(self.x)) * self.recipe.replays
        seconds = time.perf_counter() - started
        return Epoch(number + 1, total / steps, right / seen, self._rate(number, self.batches - 1), seconds)

    def _step(self, rows: Tensor, epoch: int, step: int, replay: int) -> tuple[float, int]:
        recipe, network = self.recipe, self.network
        count = epoch * self.batches + step
        x, y = self.x[rows], self.y[rows]
        if recipe.augment == "crop-flip":
            x = crop_flip(x, self.seed * 100_003 + count)  # the same picture in every replay
        seed = (self.seed * APART + count * recipe.replays + replay) % 2**32
        batch = Batch(network, x, y, rows, epoch, step, seed, self.memory, x, replay)
        with self._precision():
            if recipe.adversary is not None:
                network.train(recipe.adversary_mode == "train")
                batch = replace(batch, adv=recipe.adversary(batch))
            network.train()
            loss, logits = recipe.loss(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(epoch, step)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if recipe.after is not None:
            recipe.after(batch)
        return float(loss.detach()), int((logits.argmax(1) == y).sum())

    def _precision(self) -> AbstractContextManager[None]:
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.x.device.type, dtype=torch.bfloat16)

    def _rate(self, epoch: int, step: int) -> float:
        return self.recipe.rate((epoch * self.batches + step) / (self.recipe.epochs * self.batches), epoch)

    def _identity(self) -> dict[str, Any]:
        return {"recipe": self.recipe.describe(), "seed": self.seed, "images": len(self.x), "data": self._data}

    def _save(self, path: Path) -> None:
        buffer = io.BytesIO()
        torch.save(
            {"identity": self._identity(), "table": [asdict(row) for row in self.table], "memory": self.memory,
             "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()},
            buffer,
        )  # fmt: skip
        write_atomically(path, buffer.getvalue())

    def _resume(self, path: Path) -> None:
        state = _read(path, self.x.device)
        if state["identity"] != self._identity():
            raise BadInput(
                f"{path} belongs to another training run ({state['identity']}); choose another --out or delete it"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.memory = state["memory"]
        self.table = [Epoch(**row) for row in state["table"]]


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        network.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Dropout and its kin draw from (seed, epoch), and leave the caller's global generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """The state in a training checkpoint. Raises BadInput for a torn file and for any other kind of file."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BadInput(
            f"{path} is not a training checkpoint ({str(error).splitlines()[0]}); delete it to start anew"
        ) from error
    if not isinstance(state, dict) or not state.keys() >= STATE:
        raise BadInput(
            f"{path} is not a training checkpoint (it lacks {', '.join(sorted(STATE))}); choose another --out"
        )
    return state
