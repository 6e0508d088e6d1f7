"""`audit train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from audit import options as o
from audit.commands.common import resumable, typed_command

# The record is part of the checkpoint, whose bytes must not depend on where things lie.
PLACES = ("--out", "--data-dir")


def train(
    defense: o.Defense,
    dataset: o.Dataset = "fashion_mnist",
    recipe: Annotated[str, typer.Option(help="Name of the recipe: see `list defenses`.")] = "small",
    data_dir: o.DataDir = None,
    download: o.Download = False,
    seed: o.Seed = 0,
    out: Annotated[Path, typer.Option(help="Where the checkpoint and its manifest go.")] = Path("training"),
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    images: Annotated[int | None, typer.Option(help="Train on the first so many images.")] = None,
    width: Annotated[float | None, typer.Option(help="Width factor of the network, instead of the recipe's.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="bf16 for mixed precision, faster where the device computes in it; else float32.")
    ] = None,
    device: o.Device = "auto",
    threads: Annotated[
        int,
        typer.Option(
            help="On a CPU. With one the zoo's commands give the zoo's weights; more are faster, and give others."
        ),
    ] = 1,
    quiet: o.Quiet = False,
) -> None:
    """Train a defense by a recipe; resumes where a killed run stopped."""
    from audit import registry, training
    from audit.device import find_device

    known, data = registry.defenses.load(defense), registry.datasets.load(dataset)
    chosen = training.adjusted(
        training.get_recipe(known, recipe), epochs=epochs, images=images, width=width, precision=precision
    )
    place = find_device(device)
    pair = [data.load(split, data_dir=data_dir, download=download) for split in ("train", "test")]
    with (
        resumable(f"finished epochs are kept in {out}, run the same command again to resume"),
        training.threads_of_cpu(threads),
        training.progress_bar(Console(quiet=quiet), chosen) as progress,
    ):
        stored = training.train(
            known,
            chosen,
            *pair,
            seed=seed,
            out=out,
            command=typed_command(without=PLACES),
            device=place,
            progress=progress,
        )
    if not quiet:
        print(f"{stored.path}\n{training.summary(stored)}")
