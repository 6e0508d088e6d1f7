"""Weights from a file into a model that a library or a factory has built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from audit.errors import BadWeights
from defenses.weights import inspect, read_state


def state_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, read without running code. Raises BadWeights for a web page, a torn file or a pickle."""
    inspect(path)
    return read_state(path)


def fill(module: nn.Module, path: Path, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """`module` with the tensors of `path` (or those already read from it), every one of them fitting.

    Raises BadWeights where one is missing, left over or of another shape.
    """
    try:
        module.load_state_dict(state_of(path) if state is None else dict(state))
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:160]
        raise BadWeights(
            f"{path} does not fit {type(module).__name__} ({detail}); expected the state dict of this very model"
        ) from error
    return module


def outputs_of(state: Mapping[str, Tensor], path: Path) -> int:
    """How many classes a state dict is for: the rows of its last matrix. Raises BadWeights where it has none."""
    found = [tensor for name, tensor in state.items() if name.endswith("weight") and tensor.ndim >= 2]
    if not found:
        raise BadWeights(f"{path} holds no weight matrix, expected the state dict of a classifier")
    return int(found[-1].shape[0])
