"""The shipped checkpoints: each loads, is what its manifest says, and measures what it records."""

from __future__ import annotations

import json

import pytest
import torch

from audit import registry
from audit.datasets import FASHION_MNIST
from audit.oracle import Oracle
from audit.testing import check_defense
from defenses.base import ZOO

SHIPPED = [(name, dataset) for name in registry.defenses for dataset in registry.defenses.load(name).zoo]


@pytest.mark.parametrize(("name", "dataset"), SHIPPED)
def test_a_shipped_checkpoint_is_what_its_manifest_says(name, dataset):
    defense = registry.defenses.load(name)
    checkpoint = defense.checkpoint(dataset)
    beside = json.loads(checkpoint.path.with_suffix(".json").read_text())
    assert beside["sha256"] == checkpoint.sha256
    assert beside["defense"] == name
    assert beside["dataset"] == dataset
    assert beside["command"] == f"python -m audit train --defense {name} --dataset {dataset} --recipe small --seed 0"
    assert beside["recipe"] == defense.recipes["small"].describe()
    assert checkpoint.path.stat().st_size < 4_000_000


@pytest.mark.parametrize(("name", "dataset"), SHIPPED)
def test_a_shipped_checkpoint_keeps_the_contract_and_its_clean_accuracy(name, dataset):
    defense = registry.defenses.load(name)
    data = FASHION_MNIST.load()
    check_defense(defense, data)
    checkpoint = defense.checkpoint(dataset)
    oracle = Oracle(defense.load(checkpoint), batch_size=250, seed=0)  # as it was measured: noise repeats with the seed
    right = int(oracle.judge(torch.from_numpy(data.x), torch.from_numpy(data.y)).correct.sum())
    # one image of a thousand may flip with another build of torch
    assert abs(right / len(data.x) - checkpoint.measured["clean_accuracy"]) <= 0.001


def test_nothing_in_the_zoo_is_unclaimed_or_large():
    files = {path.name for path in ZOO.iterdir() if path.suffix == ".safetensors"}
    assert files == {file for name in registry.defenses for file in registry.defenses.load(name).zoo.values()}
    assert sum(path.stat().st_size for path in ZOO.iterdir() if path.is_file()) < 60_000_000
