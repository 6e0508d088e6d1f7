"""`timm:NAME`: a model of PyTorch Image Models, with local weights or those that timm fetches."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path
from typing import Any, cast

from audit.errors import BadInput, MissingDependency, UnknownName
from audit.models.own import Found, ModelDefense, foreign
from audit.models.preprocessing import Preprocessing
from audit.models.spec import Declared
from audit.models.weights import fill, outputs_of, state_of
from audit.protocols import Defense
from audit.versions import installed


def find(name: str, declared: Declared) -> Defense:
    """The defense of a timm model. Raises MissingDependency, UnknownName."""
    try:
        import timm
    except ImportError as error:
        raise MissingDependency(f"timm:{name} needs timm ({error}); type pip install timm") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1) or ["resnet18"]
        raise UnknownName(f"timm has no model {name!r}: did you mean {near[0]!r}? timm.list_models() has all of them")
    build = partial(_build, name, declared.download)
    return cast(Defense, ModelDefense(f"timm:{name}", build, summary=f"{name} of timm {installed('timm')}"))


def _build(name: str, download: bool, weights: Path | None) -> Found:
    """mean and std are those of timm's configuration of the model."""
    import timm

    if weights is None and not download:
        raise BadInput(
            f"timm:{name} needs weights, got none; type --weights FILE (a state dict), or --download to let timm fetch them"
        )
    if weights is None:
        module = foreign(
            partial(timm.create_model, name, pretrained=True), f"timm, fetching {name},", "type --weights FILE"
        )
    else:
        state = state_of(weights)
        module = timm.create_model(name, pretrained=False, **_sizes(name, state, weights))
        fill(module, weights, state)
    about = module.pretrained_cfg
    declared = Preprocessing(tuple(about.get("mean", ())), tuple(about.get("std", ())))
    return Found(module, () if weights is None else (weights,), declared, {"library": f"timm {installed('timm')}"})


def _sizes(name: str, state: dict[str, Any], weights: Path) -> dict[str, int]:
    """The classes of a state dict, by the layer that timm says is the last one."""
    import timm

    last = timm.get_pretrained_cfg_value(name, "classifier")
    tensor = state.get(f"{last}.weight") if isinstance(last, str) else None
    return {"num_classes": outputs_of(state, weights) if tensor is None else int(tensor.shape[0])}
