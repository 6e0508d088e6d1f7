"""A model to ask in place of the original, so that measuring it changes nothing that a run will meet later."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from adapters.structure import mirror, reachable

NO_COPY = (
    TypeError,
    RuntimeError,
    AttributeError,
    copy.Error,
    pickle.PicklingError,
)  # what deepcopy meets in odd models


@contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """A mirror of `model`: module objects of its own, so counters, caches and hooks stay there; the tensors are shared.

    On leaving, every tensor that the model reaches (parameters, buffers, attributes, and their `.grad`) has its values
    back. A model that cannot be copied is lent itself; files, globals and closures are beyond reach either way.
    """
    _, tensors = reachable(model)
    saved = [(tensor, tensor.detach().clone(), _gradient(tensor)) for tensor in tensors]
    try:
        yield _twin(model)
    finally:
        for tensor, value, gradient in saved:
            _put_back(tensor, value, gradient)


def _twin(model: nn.Module) -> nn.Module:
    try:
        return mirror(model)
    except NO_COPY:
        return model


def _gradient(tensor: Tensor) -> Tensor | None:
    return tensor.grad.clone() if tensor.is_leaf and tensor.grad is not None else None


@torch.no_grad()
def _put_back(tensor: Tensor, value: Tensor, gradient: Tensor | None) -> None:
    if not torch.equal(tensor, value):
        tensor.copy_(value)
    if tensor.is_leaf:
        tensor.grad = gradient
