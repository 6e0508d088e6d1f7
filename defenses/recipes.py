"""What a recipe is made of. The loop that follows it is `defenses.training`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from audit.errors import BadInput

Loss = Callable[[Tensor, Tensor], Tensor]
Optimizer = Literal["adam", "sgd"]
Decay = Literal["none", "linear", "milestones", "one-cycle"]
Augment = Literal["none", "crop-flip"]
Mode = Literal["eval", "train"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What the parts of a recipe see in one step of the optimizer.

    x: clean images (b, c, h, w) in [0,1], after augmentation; y: labels (b,); rows: their places in the training
    set (b,); epoch, step, replay: counted from 0; seed: another one in every step; memory: tensors that live as long
    as the training, by name, to be changed in place or replaced; adv: what the adversary returned, x without one.
    """

    network: nn.Module
    x: Tensor
    y: Tensor
    rows: Tensor
    epoch: int
    step: int
    seed: int
    memory: dict[str, Tensor]
    adv: Tensor
    replay: int = 0


Adversary = Callable[[Batch], Tensor]
Objective = Callable[[Batch], tuple[Tensor, Tensor]]
Buffers = Callable[[Tensor], dict[str, Tensor]]
After = Callable[[Batch], None]
EpochProbe = Callable[[nn.Module, Tensor, Tensor], dict[str, float]]

CHOICES = {"optimizer": Optimizer, "decay": Decay, "augment": Augment, "adversary_mode": Mode, "precision": Precision}
# A manifest always names these, and of the other parts those that are not at their default.
ALWAYS = ("name", "loss", "network", "width", "epochs", "source", "lr", "batch_size", "images", "decay", "adversary", "eps")  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint is made.

    loss: Batch -> (scalar, logits (b, k) for the train accuracy). adversary: Batch -> images (b, c, h, w) to train
    on, made with the network in `adversary_mode`; None trains on clean images. An adversary that returns a leaf with
    requires_grad finds the gradient of the loss in `batch.adv.grad` in `after`, which is called after each step of
    the optimizer. buffers: all training images -> the first `Batch.memory`. replays: steps on each batch (Free-Adv).
    teacher: a recipe trained first, whose logits on the training images become `memory["teacher"]` (n, k).
    probe: (network in evaluation mode, x, y of a fixed sample) -> further columns of the training table.
    inference: parameters of the defense's test-time part, for checkpoints of this recipe.

    images: how many of the training set (None: all). decay: the learning rate falls linearly to 0 ("linear"), is
    multiplied by `factor` at the start of each epoch of `milestones`, or rises linearly to `lr` over the first
    `peak` of the training and falls linearly to 0 ("one-cycle"). momentum: of "sgd". source: where the numbers come
    from. precision: "bf16" runs network, loss and adversary under autocast; weights and images stay float32. No recipe
    here asks for it, since none was measured with it: `audit train --precision bf16` does.
    Raises BadInput for a choice that does not exist.
    """

    name: str
    loss: Objective
    network: str
    width: float
    epochs: int
    source: str
    lr: float = 1e-3
    batch_size: int = 128
    images: int | None = None
    decay: Decay = "none"
    adversary: Adversary | None = None
    eps: float | None = None
    adversary_mode: Mode = "eval"
    buffers: Buffers | None = None
    after: After | None = None
    replays: int = 1
    optimizer: Optimizer = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    peak: float = 0.4
    augment: Augment = "none"
    precision: Precision = "float32"
    teacher: Recipe | None = None
    probe: EpochProbe | None = None
    inference: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, kind in CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise BadInput(f"{name} of recipe {self.name!r} is {getattr(self, name)!r}, expected one of {known}")

    def describe(self) -> dict[str, Any]:
        """The recipe as JSON. A function appears by its name, a configured part by its name and numbers."""
        chosen = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {
            name: _plain(value)
            for name, (value, default) in chosen.items()
            if name in ALWAYS or default is MISSING or value != default
        }

    def rate(self, done: float, epoch: int) -> float:
        """The learning rate when `done` in [0,1] of the training lies behind, in epoch `epoch` (from 0)."""
        if self.decay == "linear":
            return self.lr * (1 - done)
        if self.decay == "milestones":
            return self.lr * self.factor ** sum(epoch >= m for m in self.milestones)
        if self.decay == "one-cycle":
            return self.lr * (done / self.peak if done < self.peak else (1 - done) / (1 - self.peak))
        return self.lr


def _plain(value: Any) -> Any:
    if isinstance(value, Recipe):
        return value.describe()
    if isinstance(value, tuple):
        return list(value)
    return getattr(value, "__name__", repr(value)) if callable(value) else value


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of the training table. Accuracies are fractions over the images trained on; `extra` is the probe's."""

    epoch: int
    loss: float
    train_accuracy: float
    learning_rate: float
    seconds: float
    extra: Mapping[str, float] = field(default_factory=dict)

    def columns(self) -> dict[str, float]:
        """Every number by its column, the probe's last."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        return {**own, **self.extra}


def plain(loss: Loss) -> Objective:
    """The objective `loss(logits of batch.adv, y)`, under the name of `loss`."""

    def objective(batch: Batch) -> tuple[Tensor, Tensor]:
        logits = batch.network(batch.adv)
        return loss(logits, batch.y), logits

    objective.__name__ = getattr(loss, "__name__", repr(loss))
    return objective


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy averaged over the batch: logits (n, k), labels (n,) -> scalar."""
    return F.cross_entropy(logits, y)


def clean_and_adversarial(batch: Batch) -> tuple[Tensor, Tensor]:
    """Half the cross-entropy on x and half that on batch.adv (Goodfellow et al. 2015, Sec. 6, alpha = 0.5)."""
    logits = batch.network(batch.x)
    return 0.5 * (F.cross_entropy(logits, batch.y) + F.cross_entropy(batch.network(batch.adv), batch.y)), logits
