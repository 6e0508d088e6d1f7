"""`torchvision:NAME`: a classifier of torchvision, with local weights or those that torchvision fetches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

from torchvision import models

from audit.errors import BadInput, UnknownName
from audit.models.own import Found, ModelDefense, foreign
from audit.models.preprocessing import Preprocessing
from audit.models.spec import Declared
from audit.models.weights import fill, outputs_of, state_of
from audit.protocols import Defense
from audit.registry import closest
from audit.versions import installed


def find(name: str, declared: Declared) -> Defense:
    """The defense of a torchvision classifier. Raises UnknownName."""
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName(f"torchvision has no classifier {name!r}: {closest(name, known)}")
    build = partial(_build, name, declared.download)
    summary = f"{name} of torchvision {installed('torchvision')}"
    return cast(Defense, ModelDefense(f"torchvision:{name}", build, summary=summary))


def _build(name: str, download: bool, weights: Path | None) -> Found:
    """Fetched weights bring their mean and std; of local ones torchvision knows nothing, so declare what they need."""
    about = {"library": f"torchvision {installed('torchvision')}"}
    if weights is not None:
        state = state_of(weights)
        module = models.get_model(name, weights=None, num_classes=outputs_of(state, weights))
        return Found(fill(module, weights, state), (weights,), about=about)
    if not download:
        raise BadInput(
            f"torchvision:{name} needs weights, got none; type --weights FILE (a state dict), or --download to let "
            "torchvision fetch them"
        )
    chosen = models.get_model_weights(name).DEFAULT
    module = foreign(
        partial(models.get_model, name, weights=chosen), f"torchvision, fetching {name},", "type --weights FILE"
    )
    shown = chosen.transforms()
    return Found(module, (), Preprocessing(tuple(shown.mean), tuple(shown.std)), about)
