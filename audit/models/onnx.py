"""`onnx:FILE`: converted to torch by onnx2torch, so that attacks have its gradient; else asked through onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from adapters.black_box import BlackBox
from audit.errors import BadInput, BadWeights, MissingDependency
from audit.models.own import Found, ModelDefense, foreign
from audit.protocols import Defense
from audit.versions import installed
from defenses.weights import inspect

AS_BLACK_BOX = "type pip uninstall onnx2torch to audit it as a black box through onnxruntime"
AGREE = 1e-3  # of the largest answer; float32 in another order of operations stays below 1e-5
BATCH = 4


def find(name: str, _: object) -> Defense:
    """The defense of an ONNX file. Raises BadInput without a file name."""
    if not name:
        raise BadInput("onnx: names no file; type onnx:FILE")
    found = ModelDefense(f"onnx:{name}", partial(_build, Path(name)), summary="an ONNX graph")
    return cast(Defense, found)


class Untranslated(BadWeights):
    """The converter does not know an operation of the graph."""


def _build(path: Path, weights: Path | None) -> Found:
    """Raises BadWeights for a file that is no ONNX graph or that is converted wrongly, MissingDependency where nothing here
    reads it, BadInput for what else the converter says.
    """
    path = weights or path  # where the file lies now: `verify --weights FILE`
    inspect(path)
    converter, runtime = installed("onnx2torch"), installed("onnxruntime")
    if converter is None and runtime is None:
        raise MissingDependency(f"onnx:{path} needs onnx2torch, which is not installed; type pip install onnx2torch")
    if converter is not None:
        try:
            return Found(
                _agreeing(_converted(path), path, runtime), (path,), about={"library": f"onnx2torch {converter}"}
            )
        except Untranslated:
            if runtime is None:
                raise
    about = {"library": f"onnxruntime {runtime}", "gradient": "none: asked as a black box"}
    return Found(_asked(path), (path,), about=about)


def _converted(path: Path) -> nn.Module:
    import onnx
    import onnx2torch

    try:
        graph = onnx.load(str(path))
        onnx.checker.check_model(graph)
    except Exception as error:  # protobuf raises its own kinds for a torn file
        raise _not_onnx(path, error) from error
    advice = f"export it anew, or {AS_BLACK_BOX}"
    found: nn.Module = foreign(
        partial(_translated, onnx2torch.convert, graph, path), f"onnx2torch, converting {path},", advice
    )
    return found.eval()


def _translated(convert: Callable[[Any], nn.Module], graph: Any, path: Path) -> nn.Module:
    try:
        return convert(graph)
    except NotImplementedError as error:
        raise Untranslated(
            f"{path} cannot be converted ({error}), so there is no gradient; type pip install onnxruntime to audit it as a black "
            "box, or bring the model as torch.export writes it"
        ) from error


def _agreeing(network: nn.Module, path: Path, runtime: str | None) -> nn.Module:
    """The converted network, held against the graph on one batch of noise where onnxruntime is there and the graph names its
    size. Raises BadWeights where they answer otherwise.
    """
    session = None if runtime is None else _session(path)
    shape = [] if session is None else session.get_inputs()[0].shape
    if session is None or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        return network
    n = shape[0] if isinstance(shape[0], int) else BATCH
    x = torch.rand(n, *shape[1:], generator=torch.Generator().manual_seed(0))

    def both() -> tuple[float, float]:
        with torch.no_grad():
            ours: Tensor = network(x)
        theirs = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
        return (ours - theirs).abs().max().item(), theirs.abs().max().item()

    apart, size = foreign(both, f"answering a batch, {path}", "expected a graph of float32 images; export it anew")
    if not apart <= AGREE * max(1.0, size):
        raise BadWeights(
            f"onnx2torch converts {path} wrongly: its answers differ by up to {apart:.2g} from the graph's, which reach {size:.2g}; "
            f"export it anew, or {AS_BLACK_BOX}"
        )
    return network


def _session(path: Path) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own kinds for a torn file
        raise _not_onnx(path, error) from error


def _asked(path: Path) -> BlackBox:
    session = _session(path)
    entry = session.get_inputs()[0].name
    return BlackBox(lambda x: session.run(None, {entry: x})[0])


def _not_onnx(path: Path, error: Exception) -> BadWeights:
    said = " ".join(str(error).split())[:160]
    return BadWeights(f"{path} is truncated or not an ONNX graph ({type(error).__name__}: {said}); export it anew")
