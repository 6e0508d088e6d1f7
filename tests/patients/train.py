"""Train the patients' own networks: python -m tests.patients.train [NAME ...]

Needs the 60,000 training images of Fashion-MNIST. Each takes less than two minutes on one core. How far "fgsm_overfitted" overfits differs
from CPU to CPU, since rounding decides it: the weights at hand are of one on which it did so in full, and were trained by `audit train`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.datasets import FASHION_MNIST
from audit.versions import versions
from defenses.adversaries import FGSM
from defenses.recipes import Batch, Recipe, cross_entropy, plain
from defenses.training import Trainer
from defenses.weights import store
from tests.patients.networks import ARCHITECTURES, TASKS, WEIGHTS, WIDTH

SEED = 0
CLASSES = {"two_class": TASKS[2], "three_class": TASKS[3]}
REJECT = 10


def chosen(x: Tensor, y: Tensor, classes: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
    """The images of `classes`, in their order, with labels 0, 1, ...; all as they are for None."""
    if classes is None:
        return x, y
    keep = torch.isin(y, torch.tensor(classes))
    return x[keep], (y[keep][:, None] == torch.tensor(classes)).int().argmax(1)


def one_step(batch: Batch) -> Tensor:
    """One signed step of 16/255 up the cross-entropy of the first ten logits."""
    x = batch.x.detach().requires_grad_()
    loss = F.cross_entropy(batch.network(x)[:, :REJECT], batch.y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return (batch.x + 16 / 255 * gradient.sign()).clamp(0, 1)


def tell_apart(batch: Batch) -> tuple[Tensor, Tensor]:
    """Clean images have their class, attacked ones the eleventh."""
    logits = batch.network(batch.x)
    attacked = F.cross_entropy(batch.network(batch.adv), torch.full_like(batch.y, REJECT))
    return F.cross_entropy(logits, batch.y) + attacked, logits


PLAIN = Recipe("patient", plain(cross_entropy), "middle_cnn", WIDTH, 6, "ours", lr=2e-3, decay="linear")
RECIPES = {
    "k_winners": replace(PLAIN, epochs=4, images=30_000),
    "detector": replace(PLAIN, loss=tell_apart, adversary=one_step, eps=16 / 255, epochs=4, images=20_000),
    "two_class": replace(PLAIN, epochs=12),
    "three_class": replace(PLAIN, epochs=12),
    "fgsm_overfitted": replace(
        PLAIN,
        width=2 * WIDTH,
        epochs=5,
        lr=0.1,
        optimizer="sgd",
        adversary=FGSM(0.2),
        adversary_mode="train",
        eps=0.2,
        images=20_000,
    ),
}


def fit(name: str) -> None:
    """Train `name` and write its weights, with the recipe, the seed and the clean accuracy on the 1,000 test images."""
    recipe, classes = RECIPES.get(name, PLAIN), CLASSES.get(name)
    data, test = FASHION_MNIST.load("train"), FASHION_MNIST.load()
    torch.manual_seed(SEED)
    network = ARCHITECTURES[name]()
    x, y = chosen(torch.from_numpy(data.x), torch.from_numpy(data.y), classes)
    for row in Trainer(network, recipe, x, y, seed=SEED).epochs():
        print(f"{name} epoch {row.epoch}: loss {row.loss:.3f}, train {row.train_accuracy:.1%}, {row.seconds:.0f} s")
    x, y = chosen(torch.from_numpy(test.x), torch.from_numpy(test.y), classes)
    with torch.no_grad():
        clean = float((network.eval()(x).argmax(1) == y).float().mean())
    print(f"{name}: clean {clean:.1%} of {len(x)}")
    store(WEIGHTS / f"{name}.safetensors", network, {
        "recipe": recipe.describe(), "seed": SEED, "command": f"python -m tests.patients.train {name}",
        "dataset": data.name, "data_digest": data.digest, "classes": classes, "versions": versions(),
        "measured": {"clean_accuracy": clean, "n": len(x)},
    })  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or (name for name in ARCHITECTURES if name != "fgsm_overfitted"):
        fit(wanted)
