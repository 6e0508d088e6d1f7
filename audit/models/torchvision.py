"""`torchvision:NAME`: a classifier of torchvision, with local weights or those that torchvision fetches."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import cast

from torchvision import models
from torchvision.models import WeightsEnum

from audit.errors import BadInput, UnknownName
from audit.models.own import Found, ModelDefense, foreign
from audit.models.preprocessing import Preprocessing
from audit.models.spec import Declared
from audit.models.weights import fill, outputs_of, state_of
from audit.protocols import Defense
from audit.registry import closest
from audit.versions import installed
from defenses.weights import inspect

HASH = re.compile(r"-([0-9a-f]{8,})\.pth$")
UNNORMALISED = (
    "{file} is none of torchvision's own weights of {name}, so the images are not normalised; if it was trained on normalised "
    "ones, type --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 or what it was trained with"
)


def find(name: str, declared: Declared) -> Defense:
    """The defense of a torchvision classifier. Raises UnknownName."""
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName(f"torchvision has no classifier {name!r}: {closest(name, known)}")
    build = partial(_build, name, declared.download)
    summary = f"{name} of torchvision {installed('torchvision')}"
    return cast(Defense, ModelDefense(f"torchvision:{name}", build, summary=summary))


def _build(name: str, download: bool, weights: Path | None) -> Found:
    """torchvision's own weights bring their mean, std and accuracy on ImageNet, fetched or from a file; others bring nothing."""
    about = {"library": f"torchvision {installed('torchvision')}"}
    if weights is not None:
        state = state_of(weights)
        module = fill(models.get_model(name, weights=None, num_classes=outputs_of(state, weights)), weights, state)
        own = _published(name, weights)
        if own is None:
            note = UNNORMALISED.format(file=weights, name=name)
            return Found(module, (weights,), about=about, note=note)
        return Found(module, (weights,), _normalisation(own), about, _accuracy(own))
    if not download:
        raise BadInput(
            f"torchvision:{name} needs weights, got none; type --weights FILE (a state dict), or --download to let "
            "torchvision fetch them"
        )
    chosen = models.get_model_weights(name).DEFAULT
    module = foreign(
        partial(models.get_model, name, weights=chosen), f"torchvision, fetching {name},", "type --weights FILE"
    )
    return Found(module, (), _normalisation(chosen), about, _accuracy(chosen))


def _published(name: str, file: Path) -> WeightsEnum | None:
    """Which of torchvision's own weights a file is, by the start of its sha256, with which torchvision names it."""
    found = inspect(file).sha256
    for weights in models.get_model_weights(name):
        named = HASH.search(weights.url)
        if named and found.startswith(named[1]):
            return cast(WeightsEnum, weights)
    return None


def _normalisation(weights: WeightsEnum) -> Preprocessing:
    shown = weights.transforms()
    return Preprocessing(tuple(shown.mean), tuple(shown.std))


def _accuracy(weights: WeightsEnum) -> dict[str, float]:
    """Top-1 on ImageNet's validation images, resized and cropped as torchvision does; of other images it says nothing."""
    found = weights.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
    return {} if found is None else {"imagenet": found / 100}
