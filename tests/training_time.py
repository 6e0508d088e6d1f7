"""What an epoch of SIM-Adv and of the methods beside it costs: `python -m tests.training_time`, a quarter of an hour.

The methods take turns in one process, so that what else the machine does falls on all alike; the median turn counts,
after one to warm up, in seconds of processor time of one thread, scaled to an epoch of 468 batches of 128. Images are
the embedded ones, repeated: what they show has no say in the time. Prints the table of docs/papers/sim_adv.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch
from torch import Tensor

from audit.datasets import FASHION_MNIST
from defenses.networks import LeNet
from defenses.recipes import Recipe
from defenses.sim_adv import RECIPES
from defenses.training import Trainer

BATCHES = 468
METHODS = {  # images a turn
    "vanilla": 6400, "free": 1024, "atda": 6400, "sim": 6400, "sim-adv-only": 6400, "bim": 1024, "madry": 1024,
}  # fmt: skip


def turn(recipe: Recipe, x: Tensor, y: Tensor) -> float:
    """Seconds of processor time of an epoch, judged by one over x (n, c, h, w) and y (n,)."""
    torch.manual_seed(0)
    trainer = Trainer(LeNet(), replace(recipe, images=None, epochs=1), x, y, seed=0)
    started = time.process_time()
    next(trainer.epochs())
    return (time.process_time() - started) / trainer.batches * BATCHES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="of each method, after one to warm up (default: 5)")
    parser.add_argument("--share", type=float, default=1.0, help="of the images of a turn (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = FASHION_MNIST.load()
    x, y = torch.from_numpy(data.x).repeat(7, 1, 1, 1), torch.from_numpy(data.y).repeat(7)
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(options.turns + 1):
        for name, images in METHODS.items():
            n = max(int(images * options.share), RECIPES[name].batch_size)
            seconds[name].append(turn(RECIPES[name], x[:n], y[:n]))
    median = {name: statistics.median(found[1:]) for name, found in seconds.items()}
    whole = {name: each * RECIPES[name].epochs for name, each in median.items()}
    print("| | " + " | ".join(METHODS) + " |")
    print("| seconds per epoch | " + " | ".join(f"{each:.1f}" for each in median.values()) + " |")
    for kind, found in (("an epoch", median), ("a whole training", whole)):
        print(
            f"| {kind}, relative to sim | " + " | ".join(f"{each / found['sim']:.2f}" for each in found.values()) + " |"
        )


if __name__ == "__main__":
    main()
