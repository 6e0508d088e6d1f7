"""The shipped checkpoints: each loads, is what its manifest says, and measures what it records."""

from __future__ import annotations

import json

import pytest
import torch

from audit import registry
from audit.datasets import FASHION_MNIST
from audit.grey import JUDGE_SEED
from audit.oracle import Oracle
from audit.testing import check_defense
from defenses.base import ZOO

SHIPPED = [(name, dataset, None) for name in registry.defenses for dataset in registry.defenses.load(name).zoo] + [
    (name, "fashion_mnist", file) for name in registry.defenses for file in registry.defenses.load(name).further
]


def shipped(name, dataset, file):
    defense = registry.defenses.load(name)
    return defense, defense.checkpoint(dataset, ZOO / file if file else None)


@pytest.mark.parametrize(("name", "dataset", "file"), SHIPPED)
def test_a_shipped_checkpoint_is_what_its_manifest_says(name, dataset, file):
    defense, checkpoint = shipped(name, dataset, file)
    beside = json.loads(checkpoint.path.with_suffix(".json").read_text())
    recipe = beside["recipe"]["name"]
    assert beside["sha256"] == checkpoint.sha256
    assert (beside["defense"], beside["dataset"]) == (name, dataset)
    assert beside["command"] == f"python -m audit train --defense {name} --dataset {dataset} --recipe {recipe} --seed 0"
    assert beside["recipe"] == defense.recipes[recipe].describe()
    assert checkpoint.path.stem == f"{name}-{dataset}-{recipe}"
    assert checkpoint.path.stat().st_size < 4_000_000


@pytest.mark.parametrize(("name", "dataset", "file"), SHIPPED)
def test_a_shipped_checkpoint_keeps_the_contract_and_its_clean_accuracy(name, dataset, file):
    defense, checkpoint = shipped(name, dataset, file)
    data = FASHION_MNIST.load()
    if file is None:
        check_defense(defense, data)
    oracle = Oracle(defense.load(checkpoint), batch_size=250, seed=JUDGE_SEED)  # as it was measured
    right = int(oracle.judge(torch.from_numpy(data.x), torch.from_numpy(data.y)).correct.sum())
    # with another build of torch one image of a thousand may flip, and more where signs of gradients decide
    allowed = 0.005 if "test_time_optimisation" in defense.traits else 0.001
    assert abs(right / len(data.x) - checkpoint.measured["clean_accuracy"]) <= allowed


def test_nothing_in_the_zoo_is_unclaimed_or_large():
    files = {path.name for path in ZOO.iterdir() if path.suffix == ".safetensors"}
    known = [registry.defenses.load(name) for name in registry.defenses]
    assert files == {file for defense in known for file in (*defense.zoo.values(), *defense.further)}
    assert sum(path.stat().st_size for path in ZOO.iterdir() if path.is_file()) < 60_000_000
