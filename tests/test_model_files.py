"""Models from libraries and files: each answers as the original does, has its gradient, and says what is wrong with it."""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from adapters.float64 import Float64
from audit.errors import BadInput, BadWeights, MissingDependency, UnknownName
from audit.models.own import answers
from audit.models.preprocessing import Preprocessing
from audit.models.spec import Declared, resolve
from audit.preparation import prepare
from tests.own_models import save_images
from tests.planted import TinyCNN, images

pytestmark = pytest.mark.usefixtures("undrawn")


def load(name: str, weights: Path | None = None):
    known = resolve(name, Declared())
    return known.load(known.checkpoint("own_images", weights))


def rgb(n: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, str]:
    """TinyCNN in each format, by scheme."""
    place, model, (x, _) = tmp_path_factory.mktemp("files"), TinyCNN(), images(TinyCNN())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, x), place / "m.ts")
        batch = {0: torch.export.Dim("n", min=1)}
        torch.export.save(torch.export.export(model, (x,), dynamic_shapes=(batch,)), place / "m.pt2")
    return {"torchscript": str(place / "m.ts"), "export": str(place / "m.pt2")}


@pytest.mark.parametrize("scheme", ["torchscript", "export"])
def test_a_saved_program_answers_as_the_model_does(saved, scheme):
    x, _ = images(TinyCNN(), 5)
    model = load(f"{scheme}:{saved[scheme]}")
    assert not any(part.training for part in model.modules())
    assert torch.allclose(model(x), TinyCNN()(x), atol=1e-6)
    assert Float64(model)(x).dtype == torch.float64
    grad = torch.autograd.grad(model(x.requires_grad_()).sum(), x)[0]
    assert torch.allclose(grad, torch.autograd.grad(TinyCNN()(x).sum(), x)[0], atol=1e-5)
    assert answers(model) == "gradient"


@pytest.mark.parametrize("scheme", ["torchscript", "export"])
def test_a_saved_program_can_be_audited(saved, scheme, tmp_path):
    import audit

    data = save_images(tmp_path / "x.npz")
    found = audit.run(model=f"{scheme}:{saved[scheme]}", data=data, eps=32 / 255, suite="quick", out=tmp_path / "run")
    assert found.clean.accuracy == 1.0
    assert found.adaptive.accuracy < 0.5
    assert found.results.checks["forward_mismatch"] == {"rescaled-ce": 0.0}
    assert not [message for step in found.results.steps for message in step.messages]


@pytest.mark.parametrize("scheme", ["torchscript", "export"])
def test_a_damaged_file_is_one_sentence(saved, scheme, tmp_path):
    (tmp_path / "torn").write_bytes(Path(saved[scheme]).read_bytes()[:500])
    with pytest.raises(BadWeights, match=r"torn cannot be read .*save the model anew"):
        load(f"{scheme}:{tmp_path / 'torn'}")
    (tmp_path / "page").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(BadWeights, match="is a web page, not a checkpoint"):
        load(f"{scheme}:{tmp_path / 'page'}")
    with pytest.raises(BadWeights, match="cannot be read"):
        load(f"{scheme}:{tmp_path / 'none'}")
    with pytest.raises(BadInput, match=f"{scheme}: names no file"):
        resolve(f"{scheme}:", Declared())


def test_torchvision_takes_local_weights_for_any_number_of_classes(tmp_path):
    torch.manual_seed(0)
    original = models.resnet18(num_classes=7).eval()
    torch.save(original.state_dict(), tmp_path / "seven.pt")
    assert torch.equal(load("torchvision:resnet18", tmp_path / "seven.pt")(rgb()), original(rgb()))
    with pytest.raises(BadWeights, match="does not fit ResNet"):
        load("torchvision:resnet34", tmp_path / "seven.pt")
    with pytest.raises(BadInput, match="torchvision:resnet18 needs weights, got none; type --weights FILE"):
        load("torchvision:resnet18")
    with pytest.raises(UnknownName, match="torchvision has no classifier 'resnet19': did you mean 'resnet18'"):
        resolve("torchvision:resnet19", Declared())
    torch.save({"bias": torch.zeros(3)}, tmp_path / "flat.pt")
    with pytest.raises(BadWeights, match="holds no weight matrix"):
        load("torchvision:resnet18", tmp_path / "flat.pt")


def test_weights_that_torchvision_fetches_bring_their_normalisation(monkeypatch):
    fetched = []

    def fake(name, *, weights, **options):
        fetched.append(weights)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    monkeypatch.setattr(models, "get_model", fake)
    known = resolve("torchvision:resnet18", Declared(download=True))
    checkpoint = known.checkpoint("own_images", None)
    assert fetched == [models.ResNet18_Weights.DEFAULT]
    assert checkpoint.architecture["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    mean, std = (torch.tensor(v).view(1, 3) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.allclose(known.load(checkpoint)(rgb()), (rgb().mean((2, 3)) - mean) / std, atol=1e-5)
    monkeypatch.setattr(models, "get_model", lambda name, **options: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(BadInput, match="torchvision, fetching resnet18, raised OSError: no route; type --weights FILE"):
        known.checkpoint("own_images", None)


@pytest.mark.slow
def test_a_file_that_torchvision_published_is_known_by_its_hash(tmp_path, monkeypatch):
    torch.manual_seed(0)
    original, path = models.resnet18().eval(), tmp_path / "any_name.pth"
    torch.save(original.state_dict(), path)
    known, data = resolve("torchvision:resnet18", Declared()), (rgb(2, 64), torch.zeros(2, dtype=torch.long))
    options = {"model": "torchvision:resnet18", "weights": path, "data": data, "dataset": "imagenet", "suite": "quick"}
    plain = prepare(**options).plan
    note = r"any_name.pth is none of torchvision's own weights of resnet18, so the images are not normalised; if it was"
    assert re.search(note, plain.runtime["unsupported"][0])
    assert plain.identity["expected_clean_acc"] is None
    told = prepare(**options, preprocessing=Preprocessing(mean=(0.5,))).plan
    assert not any("normalised" in said for said in told.runtime["unsupported"])
    weights, sha = models.ResNet18_Weights.IMAGENET1K_V1, hashlib.sha256(path.read_bytes()).hexdigest()
    published = replace(weights.value, url=f"https://download.pytorch.org/models/resnet18-{sha[:8]}.pth")
    monkeypatch.setattr(weights, "_value_", published)
    checkpoint = known.checkpoint("imagenet", path)
    assert checkpoint.architecture["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert (checkpoint.note, checkpoint.measured) == ("", {"clean_accuracy": 0.69758})
    assert known.checkpoint("cifar10", path).measured == {}  # what it states of ImageNet says nothing of others


def test_timm_takes_local_weights_and_its_own_normalisation(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    original = timm.create_model("resnet10t", num_classes=5).eval()
    torch.save(original.state_dict(), tmp_path / "five.pt")
    model = load("timm:resnet10t.c3_in1k", tmp_path / "five.pt")
    about = timm.get_pretrained_cfg("resnet10t.c3_in1k")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (about.mean, about.std))
    assert torch.allclose(model(rgb()), original((rgb() - mean) / std), atol=1e-5)
    with pytest.raises(BadInput, match=r"timm:resnet10t.c3_in1k needs weights, got none; type --weights FILE"):
        load("timm:resnet10t.c3_in1k")
    with pytest.raises(UnknownName, match="timm has no model 'resnet10': did you mean 'resnet"):
        resolve("timm:resnet10", Declared())


def test_without_timm_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependency, match=r"timm:resnet18 needs timm .*type pip install timm"):
        resolve("timm:resnet18", Declared())


def graph(path: Path, operation: str = "Relu") -> tuple[Path, np.ndarray]:
    """An ONNX graph on 8 x 8 images with a dynamic batch, and its one matrix."""
    onnx = pytest.importorskip("onnx", reason="onnx2torch is not installed")
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    matrix = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    nodes = [
        make.make_node("Flatten", ["x"], ["flat"]), make.make_node(operation, ["flat"], ["bent"]),
        make.make_node("Gemm", ["bent", "w"], ["y"], transB=1),
    ]  # fmt: skip
    ends = [make.make_tensor_value_info(name, kind, ["n", *shape]) for name, shape in (("x", (1, 8, 8)), ("y", (4,)))]
    whole = make.make_graph(nodes, "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(matrix, "w")])
    onnx.save(make.make_model(whole, opset_imports=[make.make_opsetid("", 13)], ir_version=8), path)
    return path, matrix


def test_an_onnx_graph_is_converted_with_its_gradient(tmp_path):
    pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
    path, matrix = graph(tmp_path / "m.onnx")
    x, _ = images(TinyCNN(), 5)
    known = resolve(f"onnx:{path}", Declared())
    checkpoint = known.checkpoint("own_images", None)
    model = known.load(checkpoint)
    assert "onnx2torch" in checkpoint.architecture["library"]
    assert torch.allclose(model(x), x.flatten(1).relu() @ torch.from_numpy(matrix).T, atol=1e-5)
    assert torch.autograd.grad(model(x.requires_grad_()).sum(), x)[0].abs().sum() > 0
    assert answers(model) == "gradient"
    plan = prepare(model=f"onnx:{path}", data=save_images(tmp_path / "x.npz"), eps=0.1, suite="quick").plan
    assert "apgd-margin" in [step.name for step in plan.steps]


def test_an_onnx_graph_that_cannot_be_converted_is_a_black_box_or_refused(tmp_path, monkeypatch):
    pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
    path, matrix = graph(tmp_path / "m.onnx", "Hardmax")
    x, _ = images(TinyCNN(), 5)

    monkeypatch.setattr("audit.models.onnx.installed", {"onnx2torch": "1"}.get)
    with pytest.raises(
        BadWeights, match=r"cannot be converted .*so there is no gradient; type pip install onnxruntime"
    ):
        load(f"onnx:{path}")
    monkeypatch.setattr("audit.models.onnx.installed", {"onnx2torch": "1", "onnxruntime": "2"}.get)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime(path, lambda flat: flat @ matrix.T))
    known = resolve(f"onnx:{path}", Declared())
    checkpoint = known.checkpoint("own_images", None)
    assert checkpoint.architecture["gradient"] == "none: asked as a black box"
    assert answers(known.load(checkpoint)) == "scores"
    assert torch.allclose(known.load(checkpoint)(x), x.flatten(1) @ torch.from_numpy(matrix).T, atol=1e-5)


def runtime(path: Path, answer) -> type:
    """A stand-in for the module onnxruntime, whose session answers flattened images by `answer`."""

    class Session:
        def __init__(self, file, providers):
            assert Path(file) == path

        def get_inputs(self):
            return [type("Entry", (), {"name": "x", "shape": ["n", 1, 8, 8]})]

        def run(self, outputs, given):
            return [answer(given["x"].reshape(len(given["x"]), -1))]

    return type("Runtime", (), {"InferenceSession": Session})


def test_a_conversion_that_answers_otherwise_than_the_graph_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
    path, matrix = graph(tmp_path / "m.onnx")
    monkeypatch.setattr("audit.models.onnx.installed", {"onnx2torch": "1", "onnxruntime": "2"}.get)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime(path, lambda flat: flat.clip(0) @ matrix.T))
    assert answers(load(f"onnx:{path}")) == "gradient"
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime(path, lambda flat: 1.01 * flat @ matrix.T))
    with pytest.raises(
        BadWeights, match=r"onnx2torch converts .*m.onnx wrongly: its answers differ by up to .*uninstall"
    ):
        load(f"onnx:{path}")
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime(path, lambda flat: flat @ matrix))
    with pytest.raises(BadInput, match="answering a batch"):
        load(f"onnx:{path}")
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime(path, lambda flat: flat @ matrix[:3].T))
    with pytest.raises(BadInput, match=r"answering a batch, .*m.onnx raised RuntimeError.*export it anew"):
        load(f"onnx:{path}")


def test_what_else_the_converter_raises_is_one_sentence(tmp_path, monkeypatch):
    onnx2torch = pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
    path, _ = graph(tmp_path / "m.onnx")

    def convert(found):
        raise KeyError("axes")

    monkeypatch.setattr(onnx2torch, "convert", convert)
    with pytest.raises(
        BadInput, match=r"onnx2torch, converting .*m.onnx, raised KeyError: 'axes'; export it anew, or type"
    ):
        load(f"onnx:{path}")


def test_onnxruntime_itself_is_asked(tmp_path, monkeypatch):
    """A real file through the real library: as the check of a conversion, and as a black box."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
    x, _ = images(TinyCNN(), 5)
    (path, _), (odd, matrix) = graph(tmp_path / "m.onnx"), graph(tmp_path / "odd.onnx", "Hardmax")
    assert answers(load(f"onnx:{path}")) == "gradient"
    model = load(f"onnx:{odd}")
    assert answers(model) == "scores"
    hot = nn.functional.one_hot(x.flatten(1).argmax(1), 64).float()
    assert torch.allclose(model(x), hot @ torch.from_numpy(matrix).T, atol=1e-5)
    data = (x, model(x).argmax(1))
    plan = prepare(model=f"onnx:{odd}", data=data, eps=0.3, suite="quick").plan
    assert {"rays", "random-search"} <= {step.attack for step in plan.steps}
    assert "apgd-margin" not in {step.attack for step in plan.steps}
    (tmp_path / "torn.onnx").write_bytes(odd.read_bytes()[:40])
    monkeypatch.setattr("audit.models.onnx.installed", {"onnxruntime": "1"}.get)
    with pytest.raises(BadWeights, match="is truncated or not an ONNX graph"):
        load(f"onnx:{tmp_path / 'torn.onnx'}")


def test_a_file_that_is_no_onnx_graph_is_refused(tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07nonsense")
    monkeypatch.setattr("audit.models.onnx.installed", lambda name: None)
    with pytest.raises(
        MissingDependency, match="needs onnx2torch, which is not installed; type pip install onnx2torch"
    ):
        load(f"onnx:{tmp_path / 'm.onnx'}")
    monkeypatch.undo()
    pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
    with pytest.raises(BadWeights, match="is truncated or not an ONNX graph"):
        load(f"onnx:{tmp_path / 'm.onnx'}")
