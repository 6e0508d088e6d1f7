"""`audit train` for every recipe of every defense, on 2,000 images, at a sixteenth of the width. Slow."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from audit import registry, training
from audit.commands.common import typed_command
from audit.commands.train import PLACES
from audit.datasets import FASHION_MNIST
from audit.errors import BadInput
from audit.training import adjusted
from defenses.networks import build
from defenses.weights import load_network
from tests.test_cli import call

IMAGES, TESTED, WIDTH = 2000, 50, 0.0625
METHODS = [(name, recipe) for name in registry.defenses for recipe in registry.defenses.load(name).recipes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The embedded images and their mirror images to train on, the first 50 to measure on, as idx files."""
    data, place = FASHION_MNIST.load(), tmp_path_factory.mktemp("data")
    x, y = np.concatenate([data.x, data.x[..., ::-1]]), np.concatenate([data.y, data.y])
    for stem, n in (("train", IMAGES), ("t10k", TESTED)):
        (place / f"{stem}-images-idx3-ubyte").write_bytes(bytes(16) + (x[:n] * 255).round().astype(np.uint8).tobytes())
        (place / f"{stem}-labels-idx1-ubyte").write_bytes(bytes(8) + y[:n].astype(np.uint8).tobytes())
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("name", "recipe"), METHODS)
def test_every_recipe_trains_from_the_command_line(name, recipe, folder, tmp_path):
    started = time.process_time()
    flags = ["--images", IMAGES, "--epochs", 1, "--width", WIDTH, "--data-dir", folder, "--out", tmp_path, "--quiet"]
    assert call("train", "--defense", name, "--recipe", recipe, *flags) == 0
    print(f"{name} {recipe}: {time.process_time() - started:.1f} s of processor time")
    (weights,) = tmp_path.glob("*.safetensors")
    manifest = json.loads(weights.with_suffix(".json").read_text())
    assert manifest["images"] == IMAGES
    assert manifest["architecture"]["width"] == manifest["recipe"]["width"] == WIDTH
    assert manifest["measured"]["n"] == TESTED
    (row,) = weights.with_suffix(".csv").read_text().splitlines()[1:]
    assert all(np.isfinite(float(value)) for value in row.split(","))
    known = registry.defenses.load(name)
    checkpoint = known.checkpoint("fashion_mnist", weights)
    torch.manual_seed(0)
    start, end = build(checkpoint.architecture).state_dict(), load_network(checkpoint).state_dict()
    assert all(not torch.equal(start[key], end[key]) for key in start if key.endswith("weight") and start[key].ndim > 1)
    x = torch.from_numpy(FASHION_MNIST.load().x[:4])
    assert known.load(checkpoint)(x).shape == (4, 10)


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), float("inf")])
def test_a_width_that_is_no_factor_is_refused(width):
    recipe = registry.defenses.load("undefended").recipes["small"]
    with pytest.raises(BadInput, match="expected a positive factor"):
        adjusted(recipe, epochs=None, images=None, width=width)


@pytest.mark.parametrize("places", [["--out", "a b", "--data-dir", "c"], ["--out=a b", "--data-dir=c"], []])
def test_where_things_lie_is_no_part_of_the_recorded_command(places, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["audit", "train", *places, "--seed", "0"])
    assert typed_command(without=PLACES) == "python -m audit train --seed 0"
    assert typed_command() == f"python -m audit {shlex.join(sys.argv[1:])}"


def test_mixed_precision_is_chosen_on_the_command_line_and_told_in_the_manifest(folder, tmp_path, capsys):
    flags = ["--images", 256, "--epochs", 1, "--width", WIDTH, "--data-dir", folder, "--out", tmp_path, "--quiet"]
    assert call("train", "--defense", "undefended", "--precision", "bf16", *flags) == 0
    (weights,) = tmp_path.glob("*precisionbf16.safetensors")
    checkpoint = registry.defenses.load("undefended").checkpoint("fashion_mnist", weights)
    assert checkpoint.manifest["recipe"]["precision"] == "bf16"
    assert all(value.dtype != torch.bfloat16 for value in load_network(checkpoint).state_dict().values())
    assert call("train", "--defense", "undefended", "--precision", "fp16", *flags) == 2
    assert "expected one of float32, bf16" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "expected"), [([], 1), (["--threads", 3], 3)])
def test_the_weights_do_not_hang_on_how_many_cores_a_machine_has(flags, expected, folder, tmp_path, monkeypatch):
    seen, train = [], training.train

    def watched(*args, **kwargs):
        seen.append(torch.get_num_threads())
        return train(*args, **kwargs)

    monkeypatch.setattr(training, "train", watched)
    place = ["--data-dir", folder, "--out", tmp_path, "--quiet"]
    torch.set_num_threads(2)
    try:
        code = call(
            "train", "--defense", "undefended", "--images", 256, "--epochs", 1, "--width", WIDTH, *place, *flags
        )
        assert (code, seen, torch.get_num_threads()) == (0, [expected], 2)
    finally:
        torch.set_num_threads(1)  # as for all tests


def test_less_than_one_thread_is_refused(folder, tmp_path, capsys):
    flags = ["--data-dir", folder, "--out", tmp_path]
    assert call("train", "--defense", "undefended", "--threads", 0, *flags) == 2
    assert "--threads is 0, expected at least 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_width_is_another_name_and_the_teachers_too():
    found = adjusted(registry.defenses.load("distillation").recipes["small"], epochs=None, images=None, width=0.25)
    assert (found.name, found.width, found.teacher.width) == ("small-width0.25", 0.25, 0.25)
