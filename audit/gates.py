"""What is measured before any attack: can this model be judged, and does its loss have a gradient?

The result is plain JSON (a *profile*), stored in the plan. Diagnoses read it; the suite's "auto" temperature is
its median logit gap.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.parts import last_network
from audit import registry
from audit.errors import BadModel
from audit.examination import borrowed, examine
from audit.examination.structure import gradient_at
from audit.oracle import check_logits, check_mode
from audit.rng import Stream
from audit.types import BARE, AdapterSpec, Step, ThreatModel

SAMPLE = 1000
log = logging.getLogger("audit")
REPEATS = 3
OTHERWISE = frozenset({BARE, "inner", "smooth"})  # adapters that answer otherwise than the defense on purpose
WATCHED = 16  # images on which the parts of the model are looked for


def adapt(model: nn.Module, adapters: Iterable[AdapterSpec]) -> nn.Module:
    """`model` inside each adapter in turn, in evaluation mode."""
    for spec in adapters:
        model = registry.adapters.load(spec.name)(model, **spec.params)
    return model.eval()


def bare_network(model: nn.Module) -> nn.Module:
    """The classifier inside a defense with a test-time part. Raises BadModel where there is none."""
    return adapt(model, [AdapterSpec(BARE)])


def staged(model: nn.Module) -> bool:
    """Has the defense a test-time part in front of a bare network, by the convention of `audit.protocols.Defense`?"""
    return all(isinstance(getattr(model, part, None), nn.Module) for part in ("purifier", "network"))


def profile(
    model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int, seed: int, threat: ThreatModel | None = None
) -> dict[str, Any]:
    """Measure the model on up to 1,000 images x (n, c, h, w) in [0,1] with labels y (n,), and leave it as it was.

    Keys: n; clean_correct; classes; logit_gap (median of largest minus second, at least 1e-6); zero_gradient
    (share of correctly classified images whose float32 CE gradient is exactly zero); saturated (share whose
    softmax gives every other class exactly zero); max_draw_difference (largest change of normalised logits over 3
    passes; more passes over fewer images: `audit.examination.draws`, and all of it together: `audit.randomness`); last_network (see `adapters.parts`); softmax_output (bool); gradient_cut (bool: no gradient leads from the
    logits to the images, because a part in between is not differentiable).
    threat: with it, the keys of `audit.examination.examine` join them, and gradient_cut is also true where the gradient
    of the logits is there and exactly zero everywhere, as behind a rounding.
    Raises BadModel when the model cannot be judged.
    """
    check_mode(model)
    with borrowed(model) as twin:
        found = _measured(twin, x[:SAMPLE], y[:SAMPLE], batch_size, seed)
    if threat is None:
        return found
    examined = examine(model, x, y, threat, seed=seed)
    return {**found, **examined, "gradient_cut": found["gradient_cut"] or examined["gradient_cut"]}


def _measured(model: nn.Module, x: Tensor, y: Tensor, batch_size: int, seed: int) -> dict[str, Any]:
    stream = Stream(seed)
    parts = [_measure(model, a, b, stream) for a, b in zip(x.split(batch_size), y.split(batch_size), strict=True)]
    cut = any(part[-1] for part in parts)
    logits, size, drift = (torch.cat(column) for column in zip(*(part[:-1] for part in parts), strict=True))
    check_labels(logits.shape[1], y)
    top = logits.topk(2).values
    right = logits.argmax(1) == y
    softmax = F.softmax(logits.float(), 1)
    others = softmax.scatter(1, logits.argmax(1, keepdim=True), 0.0).amax(1)
    return {
        "n": len(x),
        "clean_correct": int(right.sum()),
        "classes": logits.shape[1],
        "logit_gap": max(float((top[:, 0] - top[:, 1]).median()), 1e-6),
        "zero_gradient": _share(size[right] == 0),
        "saturated": _share(others[right] == 0),
        "max_draw_difference": float(drift.max()),
        "softmax_output": _looks_like_softmax(logits),
        "gradient_cut": cut,
        "last_network": _last_network(model, x[:WATCHED], stream),
    }


def _last_network(model: nn.Module, x: Tensor, stream: Stream) -> str | None:
    with stream:
        return last_network(model, x)


def _measure(model: nn.Module, x: Tensor, y: Tensor, stream: Stream) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Logits (n, k), largest CE gradient entry (n,), largest change of normalised logits over repeats (n,), and
    whether no gradient leads to the images.
    """
    images = x.clone().requires_grad_()
    with stream, torch.enable_grad():
        logits = model(images).float()
        check_logits(logits.detach(), len(x))
        check_labels(logits.shape[1], y)
        gradient = gradient_at(F.cross_entropy(logits, y, reduction="sum"), images)
        size = torch.zeros(len(x), device=x.device) if gradient is None else gradient.flatten(1).abs().amax(1)
    with stream, torch.no_grad():
        repeats = torch.stack([F.normalize(model(x).float(), dim=1) for _ in range(REPEATS)])
    drift = (repeats - repeats[0]).norm(dim=2).amax(0)
    return logits.detach(), size, drift, gradient is None


def check_labels(classes: int, y: Tensor) -> None:
    """Raise BadModel when a label has no logit."""
    if int(y.max()) >= classes:
        raise BadModel(
            f"the labels go up to {int(y.max())} but the model has {classes} classes; choose the --dataset it was trained on"
        )


def _share(mask: Tensor) -> float:
    return float(mask.float().mean()) if len(mask) else math.nan


def _looks_like_softmax(logits: Tensor) -> bool:
    """AutoAttack's range check: every value in [0,1] and every row summing to 1, to 1e-5."""
    in_range = bool((logits.min() >= -1e-5) & (logits.max() <= 1 + 1e-5))
    return in_range and bool(((logits.sum(1) - 1).abs() <= 1e-5).all())


def forward_mismatch(model: nn.Module, steps: Iterable[Step], x: Tensor, *, seed: int) -> dict[str, float]:
    """Share of images that a step's adapted model classifies otherwise than the defense, per adapted step.

    The same random stream is used on both sides, so a stochastic defense is compared draw by draw. An average over
    draws (EOT) is left out. Steps on the network inside, or on a smoothed model, are meant to answer otherwise.
    """
    result: dict[str, float] = {}
    for step in steps:
        exact = [adapter for adapter in step.adapters if adapter.name != "eot"]
        if exact and step.scope != "trial" and not any(adapter.name in OTHERWISE for adapter in exact):
            try:
                result[step.name] = _differing(model, exact, x, seed)
            except Exception:  # an adapter that this model cannot take answers nothing
                log.exception("the forward pass of step %s failed", step.name)
                result[step.name] = 1.0
    return result


@torch.no_grad()
def _differing(model: nn.Module, adapters: Iterable[AdapterSpec], x: Tensor, seed: int) -> float:
    """Share of images x (n, c, h, w) that the adapted model classifies otherwise, on the same random numbers."""
    adapted = adapt(model, adapters)
    with Stream(seed):
        expected = model(x).argmax(1)
    with Stream(seed):
        got = adapted(x).argmax(1)
    return float((expected != got).float().mean())


def fingerprint_model(model: nn.Module) -> str:
    """sha256 over every parameter and buffer and every module's mode: equal before and after, or the run is void.

    Buffers that are not saved count too: they are what a model remembers from one pass to the next.
    """
    import hashlib

    seen, saved = hashlib.sha256(), model.state_dict()
    unsaved = ((name, buffer) for name, buffer in model.named_buffers() if name not in saved)
    for name, tensor in (*saved.items(), *unsaved):
        seen.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        seen.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    seen.update("".join("01"[part.training] for part in model.modules()).encode())
    return seen.hexdigest()
