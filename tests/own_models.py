"""A package of somebody's own, as `--defense tests.own_models:build` names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from audit.datasets import make_dataset
from audit.models.own import Found, ModelDefense
from defenses.undefended import UNDEFENDED
from tests.planted import Quantise, Staged, TinyCNN, images

DEFENSE = ModelDefense("mine", lambda weights: Found(TinyCNN()), traits=frozenset({"stateful"}))
NUMBER = 3


def build() -> nn.Module:
    return TinyCNN().train()


def with_weights(weights: Path | None = None) -> nn.Module:
    model = TinyCNN(seed=1)
    if weights is not None:
        model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def shipped():
    return UNDEFENDED


def rounded() -> nn.Module:
    """A purifier through which no gradient leads, without a smooth version of itself."""
    purifier = Quantise()
    purifier.forward = lambda x: (8 * x.detach()).round() / 8
    return Staged(TinyCNN(), purifier)


def scores():
    model = TinyCNN()
    return lambda x: model(torch.from_numpy(x)).detach().numpy()


def broken():
    raise ValueError("no\nweights here")


def save_images(path: Path, n: int = 12, *, model: nn.Module | None = None) -> Path:
    """An .npz of n images of 8 x 8, all of which TinyCNN (or `model`) classifies correctly."""
    x, y = images(TinyCNN() if model is None else model, n)
    np.savez(path, x=x.numpy(), y=y.numpy())
    assert make_dataset("d", x.numpy(), y.numpy(), (), "s").x.shape == (n, 1, 8, 8)
    return path
