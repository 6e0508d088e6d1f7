"""`audit train`: recipe in, measured checkpoint out. The loop itself is `defenses.training`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from torch import Tensor, nn

from audit import __version__, registry
from audit.datasets import Dataset
from audit.errors import BadInput, UnknownName
from audit.gates import profile
from audit.grey import grey_box
from audit.ledger import write_atomically
from audit.oracle import Oracle
from audit.registry import closest
from audit.types import ThreatModel, show_eps
from audit.versions import versions
from defenses.base import NetworkDefense, architecture_for
from defenses.networks import build
from defenses.recipes import Epoch, Recipe
from defenses.training import Trainer
from defenses.weights import StoredCheckpoint, store

MEASURED_EPS = 8 / 255
MEASURED_IMAGES = 1000
Progress = Callable[[int, int, int, list[Epoch]], None]


def get_recipe(defense: NetworkDefense, name: str) -> Recipe:
    """Raises UnknownName."""
    if name not in defense.recipes:
        raise UnknownName(f"unknown recipe {name!r} of {defense.name}: {closest(name, sorted(defense.recipes))}")
    return defense.recipes[name]


def adjusted(
    recipe: Recipe, *, epochs: int | None, images: int | None, width: float | None = None, precision: str | None = None
) -> Recipe:
    """The recipe with another length, size or precision; its name then says so, and its teacher follows.

    Raises BadInput for epochs and images below 1, a width that is no positive factor, and an unknown precision.
    """
    for key, value in (("epochs", epochs), ("images", images)):
        if value is not None and value < 1:
            raise BadInput(f"--{key} is {value}, expected at least 1")
    if width is not None and not 0 < width < math.inf:
        raise BadInput(f"--width is {width}, expected a positive factor such as 0.5")
    asked = {"epochs": epochs, "images": images, "width": width, "precision": precision}
    changes = {key: value for key, value in asked.items() if value is not None}
    suffix = "".join(f"-{key}{value}" for key, value in changes.items())
    teacher = recipe.teacher and adjusted(
        recipe.teacher, epochs=epochs, images=images, width=width, precision=precision
    )
    return replace(recipe, name=recipe.name + suffix, teacher=teacher, **changes)  # type: ignore[arg-type]


@contextmanager
def progress_bar(console: Console, recipe: Recipe) -> Iterator[Progress]:
    """A bar with the time that is left, and one line per finished epoch."""
    columns = (*RichProgress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=console) as bar:
        task = bar.add_task("epochs", total=recipe.epochs)

        def show(epoch: int, batch: int, batches: int, table: list[Epoch]) -> None:
            if batch == 0 and table:
                row = table[-1]
                bar.console.print(
                    f"epoch {row.epoch}: loss {row.loss:.4g}, train accuracy {row.train_accuracy:.1%}, {row.seconds:.0f} s"
                )
            bar.update(task, completed=epoch + batch / batches if batch else epoch)

        yield show


@contextmanager
def threads_of_cpu(number: int) -> Iterator[None]:
    """Train with so many: how many there are decides in which order sums are taken. One recipe, data, seed and number
    give one network, bit for bit, on one kind of machine with one set of library versions. Raises BadInput below 1.
    """
    if number < 1:
        raise BadInput(f"--threads is {number}, expected at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(
    defense: NetworkDefense, recipe: Recipe, data: Dataset, test: Dataset, *, seed: int, out: Path, command: str,
    device: torch.device, progress: Progress = lambda *_: None,
) -> StoredCheckpoint:  # fmt: skip
    """Train, measure on the first 1,000 images of `test`, and write NAME.safetensors and NAME.json into `out`.

    Resumes from `out/NAME.training.pt` and writes the training table to `out/NAME.csv`. progress is called with
    (epoch, batch, batches per epoch, rows so far). Raises BadInput when `test` has other classes than `data`.
    """
    if data.classes != test.classes:
        raise BadInput(
            f"training images have {len(data.classes)} classes, test images {len(test.classes)}; choose one --dataset"
        )
    name = f"{defense.name}-{data.name}-{recipe.name}"
    x, y = torch.from_numpy(data.x).to(device), torch.from_numpy(data.y).to(device)
    memory, leftovers = {}, [out / f"{name}.training.pt"]
    if recipe.teacher is not None:
        leftovers.append(out / f"{name}.teacher.training.pt")
        teacher = _fit(recipe.teacher, data.name, x, y, test, seed=seed + 1, checkpoint=leftovers[1], progress=progress)
        memory["teacher"] = _logits(teacher.network, teacher.x)
    trainer = _fit(recipe, data.name, x, y, test, seed=seed, checkpoint=leftovers[0], progress=progress, memory=memory)
    network = trainer.network
    _write_table(out / f"{name}.csv", trainer.table)
    manifest: dict[str, Any] = {
        "defense": defense.name, "dataset": data.name, "recipe": recipe.describe(),
        "architecture": architecture_for(recipe.network, recipe.width, data.name),
        "images": len(trainer.x), "seed": seed, "command": command, "tool": __version__, "versions": versions(),
        "data_digest": data.digest, "measured": measure(network, test, device),
    }  # fmt: skip
    if defense.examine is not None:
        key, examine = defense.examine
        seen = trainer.x[:MEASURED_IMAGES], trainer.y[:MEASURED_IMAGES]
        manifest["measured"][key] = examine(network, recipe, seen, trainer.sample)
    if defense.wrap is not None:
        manifest |= _staged(defense, recipe, network, test, manifest["measured"], device)
    stored = store(out / f"{name}.safetensors", network, manifest)
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return stored


def _fit(
    recipe: Recipe, dataset: str, x: Tensor, y: Tensor, test: Dataset, *, seed: int, checkpoint: Path,
    progress: Progress, memory: Mapping[str, Tensor] | None = None,
) -> Trainer:  # fmt: skip
    """A network of the recipe, trained to the end; the recipe's probe looks at the first images of `test`."""
    torch.manual_seed(seed)
    network = build(architecture_for(recipe.network, recipe.width, dataset)).to(x.device)
    seen = test.first(min(MEASURED_IMAGES, len(test.x)))
    sample = torch.from_numpy(seen.x).to(x.device), torch.from_numpy(seen.y).to(x.device)
    trainer = Trainer(network, recipe, x, y, seed=seed, checkpoint=checkpoint, memory=memory, sample=sample)

    def beat(batch: int) -> None:
        progress(len(trainer.table), batch, trainer.batches, trainer.table)

    for row in trainer.epochs(beat):
        progress(row.epoch, 0, trainer.batches, trainer.table)
    network.eval()
    return trainer


@torch.no_grad()
def _logits(network: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([network(part) for part in x.split(1000)])


def measure(network: nn.Module, test: Dataset, device: torch.device) -> dict[str, Any]:
    """What the manifest records: clean accuracy, PGD-20 (CE) accuracy at 8/255, share of zero CE gradients."""
    data = test.first(min(MEASURED_IMAGES, len(test.x)))
    x, y = torch.from_numpy(data.x).to(device), torch.from_numpy(data.y).to(device)
    seen = profile(network, x, y, batch_size=250, seed=0)
    oracle = Oracle(network, batch_size=250, seed=0)
    threat = ThreatModel("Linf", MEASURED_EPS)
    pgd = registry.attacks.load("pgd")
    candidates = [
        pgd(network, a, b, threat, seed=i) for i, (a, b) in enumerate(zip(x.split(250), y.split(250), strict=True))
    ]
    return {
        "n": len(x), "images": test.source, "clean_accuracy": float(oracle.judge(x, y).correct.float().mean()),
        "pgd_20_accuracy": float(oracle.judge(torch.cat(candidates), y).correct.float().mean()),
        "pgd_20": {"eps": MEASURED_EPS, "steps": 20, "rel_stepsize": 0.1, "loss": "CE"},
        "zero_gradient": seen["zero_gradient"], "logit_gap": seen["logit_gap"],
    }  # fmt: skip


def _staged(
    defense: NetworkDefense, recipe: Recipe, network: nn.Module, test: Dataset, bare: Mapping[str, Any],
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """For a defense with a test-time part: its parameters, and the accuracies of the deployed module.

    `measured.clean_accuracy` becomes that of the deployed module. `measured.trained_for_eps` is the radius that the
    recipe trains against; `measured.grey` holds one row for it, one for half of it, one for 8/255, and one for the
    radius that a purifier moves by. The rest of `measured` stays that of the bare network.
    """
    inference = {**defense.inference, **(recipe.inference or {})}
    deployed, shown = defense.deploy(network, inference), test.first(min(MEASURED_IMAGES, len(test.x)))
    eps = recipe.eps or MEASURED_EPS
    radii = {MEASURED_EPS, eps / 2, eps, float(inference.get("xi", eps))}
    grey = [grey_box(network, deployed, shown, eps=e, device=device) for e in sorted(radii)]
    measured = {**bare, "clean_accuracy": grey[0]["deployed_clean"], "trained_for_eps": eps, "grey": grey}
    return {"inference": inference, "measured": measured}


def _write_table(path: Path, table: list[Epoch]) -> None:
    if table:
        lines = [",".join(table[0].columns()), *(",".join(f"{v:.6g}" for v in row.columns().values()) for row in table)]
        write_atomically(path, ("\n".join(lines) + "\n").encode())


def summary(stored: StoredCheckpoint) -> str:
    """The numbers that `audit train` prints."""
    m = stored.measured
    if "grey" in m:
        g = next(row for row in m["grey"] if row["eps"] == m["trained_for_eps"])
        return (
            f"clean {g['deployed_clean']:.1%} ({g['network_clean']:.1%} without the test-time part), on PGD-20 images of "
            f"the bare network (CE, eps {show_eps(g['eps'])}) {g['deployed_pgd_20']:.1%} ({g['network_pgd_20']:.1%} without) "
            f"(n = {g['n']}, {m['images']})"
        )
    return (
        f"clean {m['clean_accuracy']:.1%}, PGD-20 (CE, 8/255) {m['pgd_20_accuracy']:.1%}, CE gradient exactly zero on "
        f"{m['zero_gradient']:.1%} of the correct ones (n = {m['n']}, {m['images']})"
    )
