"""What holds for all tests: one thread, and the examination of a known network on known images is made once. And for
those that ask for it: finished audits of shipped defenses, and pages without their drawings."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TextIO

import pytest
import torch
from torch import Tensor, nn

from audit import gates, run
from audit.examination import examine
from audit.summary import Audit, load_run
from audit.types import ThreatModel
from reports import figures

torch.set_num_threads(1)  # the tests' tensors are tiny, and a busy machine would only pass them around


@pytest.fixture(autouse=True, scope="session")
def _examined_once() -> Iterator[None]:
    """Audits of one network on the same images are examined alike, and that is most of a small audit's time.

    Networks of this project alone are remembered, by all that they hold; what tests build is examined each time. The
    tests of the examination itself call it directly.
    """
    known: dict[str, dict[str, Any]] = {}

    def once(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> dict[str, Any]:
        if not all(_ours(part) for part in model.modules()):
            return examine(model, x, y, threat, seed=seed)
        key = _key(model, x, y, threat, seed)
        if key not in known:
            known[key] = examine(model, x, y, threat, seed=seed)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "examine", once)
        yield


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Audit]:
    """A defense's name to its finished audit (suite quick, 20 images), in a directory of the caller's own; each is run once."""
    kept, numbers = tmp_path_factory.mktemp("audited"), count()

    def one(defense: str) -> Audit:
        if not (kept / defense).exists():
            run(defense, suite="quick", n=20, out=kept / defense)
        return load_run(shutil.copytree(kept / defense, kept / str(next(numbers)) / defense))

    return one


class _Blank:
    def __init__(self, figure: object) -> None: ...

    def print_svg(self, file: TextIO, **options: object) -> None:
        file.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>')


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Reports have empty figures, for modules whose subject is anything else: drawing takes half of a report's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FigureCanvasSVG", _Blank)
        yield


@pytest.fixture
def undrawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `undrawn`, for one test."""
    monkeypatch.setattr(figures, "FigureCanvasSVG", _Blank)


def _ours(part: nn.Module) -> bool:
    hooked = part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)
    return type(part).__module__.split(".")[0] in ("torch", "defenses", "adapters") and not hooked


def _key(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> str:
    plain = [
        {name: value for name, value in vars(part).items() if isinstance(value, str | int | float | tuple | None)}
        for part in model.modules()
    ]
    digest = hashlib.sha256(repr((model, plain, threat, seed)).encode())
    for tensor in (*model.state_dict().values(), x, y):
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
