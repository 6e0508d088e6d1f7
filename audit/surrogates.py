"""The model on which the attack `transfer` makes its images: any that --defense or --model takes, in the same words.

Attacks and the torch-free core reach it as `registry.tools.load("surrogate")`: they may not import what builds models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from audit import registry
from audit.accepted import accepts
from audit.errors import BadInput, BadModel
from audit.filled import WORDS, enough
from audit.models.own import answers
from audit.models.spec import Declared, resolve
from audit.oracle import check_logits
from audit.protocols import Checkpoint
from audit.sources import USUAL


def surrogate(
    name: str, *, shape: Sequence[int], dataset: str, weights: str = "", by: str = "apgd-margin",
    device: torch.device | str = "cpu",
) -> nn.Module:  # fmt: skip
    """The model that `name` stands for, on `device`, frozen, once it has answered an image of `shape` (c, h, w).

    name: a defense of the registry, SCHEME:NAME or module:factory. dataset: the one whose shipped weights a defense of the
    registry takes, and that a model of RobustBench must be for; empty for whichever it is for. weights: a file; empty for
    those that the model brings.
    by: the attack that is to make the images there.
    Raises UnknownName and MissingDependency as a run on that model would; BadInput for weights that are missing or do not
    fit, for images of another shape, and for an attack that needs more than the model answers.
    """
    known = resolve(name, Declared())
    try:
        checkpoint = known.checkpoint(
            dataset or getattr(known, "dataset", None) or USUAL, Path(weights) if weights else None
        )
        model = known.load(checkpoint).to(device).requires_grad_(False)
    except BadInput as error:
        raise BadInput(
            f"surrogate {name!r} cannot be built ({error}); for a surrogate the flags are --set transfer.weights=FILE and "
            "--set transfer.dataset=NAME"
        ) from error
    _same_shape(name, checkpoint, shape)
    given, needed = answers(model), registry.attacks.load(by).needs
    if not enough(needed, given):
        raise BadInput(
            f"surrogate {name!r} answers with {WORDS[given]}, attack {by!r} needs {WORDS[needed]}; "
            "type --set transfer.by=square, or rays where it names classes alone"
        )
    blank = torch.full((1, *shape), 0.5, device=device)
    try:
        with accepts("the run", blank), torch.no_grad():
            check_logits(model(blank), 1)
    except BadModel as error:
        raise BadInput(f"surrogate {name!r} does not fit: {error}, or name another one") from error
    return model


def _same_shape(name: str, checkpoint: Checkpoint, shape: Sequence[int]) -> None:
    channels, size = checkpoint.architecture.get("channels"), checkpoint.architecture.get("size")
    if channels is not None and size is not None and tuple(shape) != (channels, size, size):
        raise BadInput(
            f"surrogate {name!r} takes images of {channels} x {size} x {size}, got {' x '.join(map(str, shape))}; "
            "type --set transfer.dataset=NAME for weights of the same data set"
        )
