"""`onnx:FILE`: converted to torch by onnx2torch, so that attacks have its gradient; else asked through onnxruntime."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

from adapters.black_box import BlackBox
from audit.errors import BadInput, BadWeights, MissingDependency
from audit.models.own import Found, ModelDefense
from audit.protocols import Defense
from audit.versions import installed
from defenses.weights import inspect


def find(name: str, _: object) -> Defense:
    """The defense of an ONNX file. Raises BadInput without a file name."""
    if not name:
        raise BadInput("onnx: names no file; type onnx:FILE")
    found = ModelDefense(f"onnx:{name}", partial(_build, Path(name)), summary="an ONNX graph")
    return cast(Defense, found)


def _build(path: Path, weights: Path | None) -> Found:
    """Raises BadWeights for a file that is no ONNX graph, MissingDependency where nothing here reads it."""
    path = weights or path  # where the file lies now: `verify --weights FILE`
    inspect(path)
    converter, runtime = installed("onnx2torch"), installed("onnxruntime")
    if converter is None and runtime is None:
        raise MissingDependency(f"onnx:{path} needs onnx2torch, which is not installed; type pip install onnx2torch")
    if converter is not None:
        try:
            return Found(_converted(path), (path,), about={"library": f"onnx2torch {converter}"})
        except NotImplementedError as error:  # an operation that it does not know
            if runtime is None:
                raise BadWeights(
                    f"{path} cannot be converted ({error}), so there is no gradient; type pip install onnxruntime to audit "
                    "it as a black box, or bring the model as torch.export writes it"
                ) from error
    about = {"library": f"onnxruntime {runtime}", "gradient": "none: asked as a black box"}
    return Found(_asked(path), (path,), about=about)


def _converted(path: Path) -> Any:
    import onnx
    import onnx2torch

    try:
        graph = onnx.load(str(path))
        onnx.checker.check_model(graph)
    except Exception as error:  # protobuf raises its own kinds for a torn file
        raise _not_onnx(path, error) from error
    return onnx2torch.convert(graph)


def _asked(path: Path) -> BlackBox:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own kinds for a torn file
        raise _not_onnx(path, error) from error
    entry = session.get_inputs()[0].name
    return BlackBox(lambda x: session.run(None, {entry: x})[0])


def _not_onnx(path: Path, error: Exception) -> BadWeights:
    said = " ".join(str(error).split())[:160]
    return BadWeights(f"{path} is truncated or not an ONNX graph ({type(error).__name__}: {said}); export it anew")
