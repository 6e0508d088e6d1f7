"""Where in a model the gradient is lost, and which part of it is the bare network. No declaration is needed.

A part *cuts* when the gradient of a random combination of its outputs is missing or exactly zero at its input, on every
image. Its answer is then replaced by a leaf of the graph, so that what comes after it can be judged too, and so that
the gradient of the logits at that leaf tells whether the part has a say in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audit.examination.calls import Call, followed
from audit.rng import Stream

IMAGES = 8


def gradient_at(answer: Tensor, given: Tensor, weight: Tensor | None = None) -> Tensor | None:
    """The gradient of sum(weight * answer) at `given`; None where there is none, or the backward pass fails."""
    if not answer.requires_grad or not given.requires_grad:
        return None
    weight = torch.ones_like(answer) if weight is None else weight
    try:
        return torch.autograd.grad(answer, given, weight, retain_graph=True, allow_unused=True)[0]
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError):  # Pintor et al. 2022, indicator 1: the backward pass raises
        return None


def cuts(model: nn.Module, x: Tensor, y: Tensor, *, seed: int, passes: int = 1) -> dict[str, Any]:
    """Find the cuts of a borrowed `model` on up to 8 images x (n, c, h, w) in [0,1] with labels y (n,).

    passes: more than one for a random model: an ensemble picked at random calls another member each time.
    Keys: gradient_cut (bool: nothing of the logits' gradient reaches the images, in any pass); gradient_cut_at (dotted
    paths of the innermost submodules that cut and have a say in the logits; empty where the model's own code cuts);
    gradient_cut_shapes ({path: {"in", "out": shape of one row, "same": bool}}: an identity can stand in only where they
    are the same); front_at (outermost submodules that turn images into other images of the same shape);
    bare_network_at (the innermost submodule that classifies images by itself, or None; see `_bare`).
    """
    x, y = x[:IMAGES], y[:IMAGES]
    found: list[Call] = []
    every, roots = [], []
    stream = Stream(seed)
    for _ in range(passes):
        root, cut, severed = _pass(model, x, stream)
        every.append(root)
        roots.append(cut)
        found += severed
    shapes = {call.path: _shapes(call) for call in found if call.path}
    bare = _bare(model, x, y, every, stream)
    return {
        "gradient_cut": all(roots),
        "gradient_cut_at": sorted(shapes),
        "gradient_cut_shapes": dict(sorted(shapes.items())),
        "front_at": sorted({path for root in every for path in _fronts(root, x, bare)}),
        "bare_network_at": bare,
    }


def _pass(model: nn.Module, x: Tensor, stream: Stream) -> tuple[Call, bool, list[Call]]:
    """The tree of calls, whether the whole is cut, and the cuts that the logits depend on."""
    severed: list[Call] = []

    def answered(call: Call) -> Tensor | None:
        if not call.path or not _severs(call):
            return None
        within = [inner for inner in call.everyone() if inner in severed]
        if any(_reaches(call.answer, inner.answer) for inner in within):
            return None  # a part inside it cuts, and a stand-in for that part mends this one
        for inner in within:
            severed.remove(inner)
        severed.append(call)
        assert call.answer is not None
        call.answer = call.answer.detach().requires_grad_()
        return call.answer.clone()  # what follows may work in place, which a leaf forbids

    images = x.clone().requires_grad_()
    with stream, torch.enable_grad(), followed(model, answered) as calls:
        model(images)
    root = calls.root
    assert root is not None
    return root, _severs(root), _with_a_say(root, severed)


def _severs(call: Call) -> bool:
    """Does no gradient lead from the answer to what was given, although both may have one?"""
    given, answer = call.given, call.answer
    if not (call.grad and torch.is_grad_enabled()) or given is None or answer is None or answer is given:
        return False
    if not given.requires_grad or not answer.is_floating_point():
        return False
    gradient = gradient_at(answer, given, torch.randn_like(answer))
    return gradient is None or not bool(gradient.any())


def _with_a_say(root: Call, severed: Sequence[Call]) -> list[Call]:
    """Walks back from the logits: a cut counts when they, or the input of a later cut that counts, depend on it."""
    ends = [
        root,
        *root.inner[-1:],
    ]  # where the model's own code cuts after its last part, that part stands for the logits
    for end in ends:
        targets, kept = [end.answer], []
        for call in reversed(severed):
            if any(target is call.answer or _reaches(target, call.answer) for target in targets):
                kept.append(call)
                targets.append(call.given)
        if kept:
            return kept
    return []


def _reaches(target: Tensor | None, leaf: Tensor | None) -> bool:
    if target is None or leaf is None:
        return False
    gradient = gradient_at(target, leaf, torch.randn_like(target))
    return gradient is not None and bool(gradient.any())


def _shapes(call: Call) -> dict[str, Any]:
    assert call.given is not None
    assert call.answer is not None
    before, after = list(call.given.shape[1:]), list(call.answer.shape[1:])
    return {"in": before, "out": after, "same": before == after}


def _fronts(root: Call, x: Tensor, bare: str | None) -> Iterator[str]:
    """Paths of the outermost calls, outside the bare network, that turn images into other ones of the same shape."""
    for call in root.inner:
        if bare is not None and (call.path == bare or call.path.startswith(f"{bare}.")):
            continue
        if _turns(call, x):
            yield call.path
        else:
            yield from _fronts(call, x, bare)


def _turns(call: Call, x: Tensor) -> bool:
    given, answer = call.given, call.answer
    if given is None or answer is None or not given.shape == answer.shape == x.shape:
        return False
    return not torch.equal(given, answer)


def _bare(model: nn.Module, x: Tensor, y: Tensor, roots: Sequence[Call], stream: Stream) -> str | None:
    """The path of the innermost part that takes images and gives logits; None where there is none but the whole.

    It must have been called with something like an image (same channels, nearly all values within half a unit of
    [0,1]; an input that was normalised before is none), have answered with one row of logits per image, and, asked about
    the images directly, be right on at least half as many as the whole is.
    """
    names = dict(model.named_modules())
    right = right_answers(model, x, y, stream)
    candidates = [call for root in roots for call in root.everyone() if call.path and _classifies(call, x, y)]
    for path in dict.fromkeys(call.path for call in candidates):
        if 2 * right_answers(names[path], x, y, stream) >= right:
            return path
    return None


def _classifies(call: Call, x: Tensor, y: Tensor) -> bool:
    given, answer = call.given, call.answer
    if given is None or answer is None or given.ndim != x.ndim or given.shape[:2] != x.shape[:2]:
        return False
    if answer.ndim != 2 or len(answer) != len(x) or answer.shape[1] <= int(y.max()):
        return False
    return bool(((given < -0.5) | (given > 1.5)).float().mean() < 0.05)


def right_answers(model: nn.Module, x: Tensor, y: Tensor, stream: Stream) -> int:
    """How many images `model` classifies rightly; -1 where it cannot take them."""
    try:
        with stream, torch.no_grad():
            return int((model(x).argmax(1) == y).sum())
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, AssertionError):
        return -1
