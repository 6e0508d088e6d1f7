"""What a run accepts before its first attack: whole numbers, and a model that takes its images."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from audit.errors import AuditError, BadInput, BadModel


@contextmanager
def accepts(source: str, x: torch.Tensor) -> Iterator[None]:
    """The model's first passes: what it cannot compute on these images is the input's fault, in one sentence."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BadInput(
            f"the images of one batch do not fit into memory ({_line(error)}); type a smaller --batch-size"
        ) from error
    except AuditError:
        raise
    except Exception as error:  # a model is foreign code: it may raise anything, or answer with anything
        raise BadModel(
            f"the model cannot take images of {' x '.join(map(str, x.shape[1:]))} from {source} ({_line(error)}), expected "
            "logits for them; choose the --dataset it was trained on"
        ) from error


def numbers(n: int | None, seed: int, batch_size: int) -> tuple[int | None, int, int]:
    if (size := _whole("batch-size", batch_size)) < 1:
        raise BadInput(f"--batch-size is {size}, expected at least 1")
    return None if n is None else _whole("n", n), _whole("seed", seed), size


def _whole(name: str, value: Any) -> int:
    """A number typed in Python, where nothing has checked that it is one. Raises BadInput."""
    try:
        return operator.index(value)
    except TypeError:
        raise BadInput(f"--{name} is {value!r}, expected a whole number such as 5; leave out the quotes") from None


def _line(error: Exception) -> str:
    said = " ".join(str(error).split())[:160]
    return said if isinstance(error, RuntimeError) and said else f"{type(error).__name__}: {said}".removesuffix(": ")
