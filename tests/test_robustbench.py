"""RobustBench's zoo, offline: its own architectures with weights that the tests lay down in its own layout."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

import audit
from audit.budget import Budget
from audit.errors import BadInput, BadWeights, MissingDependency, UnknownName
from audit.models import robustbench
from audit.models.spec import Declared, resolve
from audit.preparation import prepare
from audit.versions import installed
from tests.planted import TinyCNN

pytestmark = pytest.mark.skipif(installed("robustbench") is None, reason="robustbench is not installed")
NAME = "Wong2020Fast"
SPEC = f"robustbench:cifar10/Linf/{NAME}"


PICTURE = '<svg role="img" aria-label="The defense among RobustBench&#x27;s models"'


class Pooled(nn.Module):
    """A model for 8 x 8 images on 32 x 32 ones."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(nn.functional.avg_pool2d(x, 4))


def pooled() -> nn.Module:
    return Pooled(TinyCNN(channels=3, classes=10))


def lay_down(model_dir: Path, spec: str = f"cifar10/Linf/{NAME}", *, beside: dict | None = None) -> nn.Module:
    """A model of the zoo with random weights, saved as RobustBench keeps it.

    beside: what its authors saved with it; the state dict is then wrapped, as theirs often are.
    """
    torch.manual_seed(0)
    dataset, norm, name = spec.split("/")
    record = robustbench.zoo(dataset, norm)[name]
    model = record["model"]().eval()
    for number, part in enumerate(model.models) if isinstance(record["gdrive_id"], list) else [("", model)]:
        path = model_dir / dataset / norm / (f"{name}.pt" if number == "" else f"{name}.pt_m{number}.pt")
        path.parent.mkdir(parents=True, exist_ok=True)
        state = (part.model if dataset == "imagenet" else part).state_dict()  # without the layer that normalises
        if beside is not None:
            state = {"state_dict": {f"module.{key}": value for key, value in state.items()}, **beside}
        torch.save(state, path)
    return model


@pytest.fixture(scope="module")
def laid(tmp_path_factory) -> tuple[Path, nn.Module]:
    place = tmp_path_factory.mktemp("zoo")
    return place, lay_down(place)


def cifar(model: nn.Module, n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Images of 3 x 32 x 32 and the labels that the model gives them."""
    x = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x.numpy(), model(x).argmax(1).numpy()


def test_a_laid_down_checkpoint_loads_as_robustbench_loads_it(laid):
    place, model = laid
    known = resolve(SPEC, Declared(model_dir=place))
    checkpoint = known.checkpoint("cifar10", None)
    x = torch.from_numpy(cifar(model)[0])
    assert torch.equal(known.load(checkpoint)(x), model(x))
    assert checkpoint.path == place / "cifar10" / "Linf" / f"{NAME}.pt"
    assert checkpoint.meant_for_eps == 8 / 255
    assert checkpoint.measured == {"clean_accuracy": 0.8334}
    assert checkpoint.architecture["name"] == "PreActResNet-18"


@pytest.mark.slow
def test_the_leaderboards_figure_is_the_claim_and_its_clean_accuracy_the_handshake(laid, tmp_path):
    place, model = laid
    x, y = cifar(model, 6)
    wrong = (y + 1) % 10
    found = audit.run(model=SPEC, model_dir=place, data=(x, wrong), suite="standard", out=tmp_path / "run")
    plan = found.results.plan
    assert (plan.identity["dataset"], plan.identity["eps"]) == ("cifar10", 8 / 255)
    assert plan.identity["expected_clean_acc"] == 0.8334
    assert plan.runtime["paper_claims"][0]["robust_acc"] == 0.4321
    assert found.clean.accuracy == 0.0  # so no attack has anything to do
    assert {d.name: d.status for d in found.diagnoses}["clean_accuracy_handshake"] == "flagged"
    assert found.to_dict()["leaderboard"]["itself"]["name"] == NAME


BOARDS = {  # one of each leaderboard, the smallest networks there are; classes and pixels
    "cifar10/L2/Ding2020MMA": (10, 32),
    "cifar100/Linf/Rice2020Overfitting": (100, 32),
    "imagenet/Linf/Salman2020Do_R18": (1000, 64),
    "cifar10/Linf/Chen2020Adversarial": (10, 32),  # three networks
}


@pytest.mark.parametrize("spec", [pytest.param(s, marks=pytest.mark.slow if "Chen" in s else ()) for s in BOARDS])
def test_every_board_and_an_ensemble_load_as_robustbench_loads_them(spec, tmp_path):
    model, (dataset, norm, name), (classes, size) = lay_down(tmp_path, spec), spec.split("/"), BOARDS[spec]
    known = resolve(f"robustbench:{spec}", Declared(model_dir=tmp_path))
    checkpoint = known.checkpoint(dataset, None)
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = known.load(checkpoint)(x)
        assert torch.equal(found, model(x))
    assert found.shape == (2, classes)
    entry = audit.leaderboard.find(dataset, norm, name)
    assert (known.dataset, checkpoint.meant_for_eps) == (dataset, entry.eps)
    assert checkpoint.measured == {"clean_accuracy": entry.clean}
    assert known.claims[0].threat.norm == norm


@pytest.mark.slow
def test_the_clean_accuracy_of_the_leaderboard_can_be_met(laid, tmp_path):
    place, model = laid
    x, y = cifar(model, 6)
    y[0] = (y[0] + 1) % 10  # five of six, expected 83.34 %
    budget = Budget(passes=1)  # the clean pass, and no attack
    found = audit.run(model=SPEC, model_dir=place, data=(x, y), suite="standard", budget=budget, out=tmp_path / "run")
    handshake = {d.name: d for d in found.diagnoses}["clean_accuracy_handshake"]
    assert handshake.status == "clear"
    assert handshake.sentence == "clean accuracy is 83.3% (n = 6, 95 % [35.9%, 99.6%]), expected is 83.3%"


def test_a_network_of_torchvision_may_lie_in_the_layout_too(tmp_path):
    torch.manual_seed(0)
    inner = models.resnet50().eval()
    path = tmp_path / "imagenet" / "Linf" / "Standard_R50.pt"
    path.parent.mkdir(parents=True)
    torch.save(inner.state_dict(), path)
    known = resolve("robustbench:imagenet/Linf/Standard_R50", Declared(model_dir=tmp_path))
    checkpoint = known.checkpoint("imagenet", None)
    x, mean, std = torch.rand(1, 3, 64, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    with torch.no_grad():
        assert torch.allclose(known.load(checkpoint)(x), inner((x - mean) / std), atol=1e-5)
    assert checkpoint.path == path


def test_a_damaged_file_of_torchs_hub_is_said_before_a_library_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    url = models.ResNet50_Weights.IMAGENET1K_V1.url
    (tmp_path / "checkpoints" / url.rpartition("/")[2]).write_text("<html>proxy</html>")
    with pytest.raises(BadWeights, match="is a web page"):
        resolve("robustbench:imagenet/Linf/Standard_R50", Declared(download=True)).checkpoint("imagenet", None)


def test_a_wrapped_state_dict_is_unwrapped_as_robustbench_does(tmp_path):
    extras = {"epoch": 3, "best": np.float64(0.5), "lr": np.arange(3.0), "args": Namespace(lr=0.1)}
    model = lay_down(tmp_path, beside=extras)
    known = resolve(SPEC, Declared(model_dir=tmp_path))
    x = torch.from_numpy(cifar(model)[0])
    assert torch.equal(known.load(known.checkpoint("cifar10", None))(x), model(x))


def test_files_that_are_no_checkpoint_are_one_sentence(tmp_path, laid):
    place = tmp_path / "cifar10" / "Linf"
    place.mkdir(parents=True)
    path = place / f"{NAME}.pt"

    def load():
        resolve(SPEC, Declared(model_dir=tmp_path)).checkpoint("cifar10", None)

    with pytest.raises(BadWeights, match=rf"checkpoint of {NAME} is not at .*type --model-dir DIR, or --download"):
        load()
    path.write_text("<!DOCTYPE html><title>Google Drive - Quota exceeded</title>")
    with pytest.raises(BadWeights, match="is a web page, not a checkpoint"):
        load()
    whole = (laid[0] / "cifar10" / "Linf" / f"{NAME}.pt").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadWeights, match="is truncated or not a checkpoint"):
        load()
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(BadWeights, match="is a pickle that would run code when loaded"):
        load()
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(BadWeights, match=rf"does not fit RobustBench's {NAME} \(RuntimeError: .*fetch it anew"):
        load()


def test_a_download_takes_its_name_only_when_it_can_be_read(tmp_path, laid, monkeypatch):
    utils = robustbench.library("robustbench.utils")
    whole = (laid[0] / "cifar10" / "Linf" / f"{NAME}.pt").read_bytes()
    sent, place = [b"<html>quota</html>", whole], tmp_path / "cifar10" / "Linf" / f"{NAME}.pt"

    def fetch(gdrive, path):
        assert gdrive == robustbench.zoo("cifar10", "Linf")[NAME]["gdrive_id"]
        Path(path).write_bytes(sent.pop(0))

    monkeypatch.setattr(utils, "download_gdrive_new", fetch)
    known = resolve(SPEC, Declared(model_dir=tmp_path, download=True))
    with pytest.raises(BadWeights, match="is a web page"):
        known.checkpoint("cifar10", None)
    assert not place.exists()
    known.checkpoint("cifar10", None)
    assert place.read_bytes() == whole
    place.unlink()
    monkeypatch.setattr(utils, "download_gdrive_new", lambda gdrive, path: None)
    with pytest.raises(BadWeights, match="Google Drive gave no file"):
        known.checkpoint("cifar10", None)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "Carmon2019Unlabeled",
            "names no data set, norm .* and model; type robustbench:cifar10/Linf/Carmon2019Unlabeled",
        ),
        ("cifar10/corruptions/Standard", "names no data set, norm"),
        ("cifar10/Linf/Carmon2019Unlabelled", "did you mean 'Carmon2019Unlabeled'"),
        (
            "cifar10/Linf/Madry2018Towards",
            "is on the leaderboard, but RobustBench's zoo for cifar10, Linf has no weights",
        ),
        ("cifar100/L2/Standard", "for cifar100, L2 has no weights of it"),
    ],
)
def test_a_name_that_the_zoo_has_not_is_one_sentence(name, sentence):
    with pytest.raises(UnknownName, match=sentence):
        resolve(f"robustbench:{name}", Declared())


def test_an_ensemble_has_a_file_for_each_part(tmp_path):
    wanted = robustbench.Wanted("cifar10", "Linf", "Chen2020Adversarial", tmp_path, False)
    gdrive = robustbench.zoo("cifar10", "Linf")["Chen2020Adversarial"]["gdrive_id"]
    found = [path.name for path, _ in robustbench._parts(wanted, gdrive)]
    assert found == [f"Chen2020Adversarial.pt_m{i}.pt" for i in range(3)]


def test_a_model_that_timm_keeps_may_lie_in_the_layout_too(tmp_path):
    name, make = "Debenedetti2022Light_XCiT-S12", robustbench.library("timm").create_model
    wanted = robustbench.Wanted("cifar10", "Linf", name, tmp_path, False)
    torch.manual_seed(0)
    model = make(wanted.timm_name, num_classes=10, pretrained=False).eval()
    wanted.folder.mkdir(parents=True)
    torch.save(model.model.state_dict(), wanted.folder / f"{name}.pt")
    found = robustbench._of_timm(wanted)[0]
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(found(x), model(x))
    with pytest.raises(BadWeights, match=r"are not at .*cifar100.* put them there, or type --download"):
        robustbench._of_timm(robustbench.Wanted("cifar100", "Linf", name, tmp_path, False))


def test_what_does_not_fit_a_model_of_the_zoo_is_refused(laid):
    with pytest.raises(BadInput, match="expected its own layout of files; type --model-dir"):
        prepare(model=SPEC, model_dir=laid[0], weights="w.pt", data=cifar(laid[1]))
    with pytest.raises(BadWeights, match="was trained on cifar10, expected cifar100; type --dataset cifar10"):
        prepare(model=SPEC, model_dir=laid[0], dataset="cifar100", data=cifar(laid[1]))
    with pytest.raises(
        BadWeights, match=r"are torchvision's and not at .*Standard_R50.pt; put its state dict there, or"
    ):
        resolve("robustbench:imagenet/Linf/Standard_R50", Declared()).checkpoint("imagenet", None)


def test_an_import_that_fails_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "robustbench.model_zoo.enums", None)
    with pytest.raises(MissingDependency, match=r"robustbench does not import .*type pip install robustbench==1.1.1"):
        resolve(SPEC, Declared())

    def without(name):
        if name == "pyautoattack":
            return sys.modules["autoattack"]
        raise ModuleNotFoundError("No module named 'pkg_resources'", name="pkg_resources")

    monkeypatch.setattr(robustbench.importlib, "import_module", without)
    with pytest.raises(MissingDependency, match=r"type pip install 'setuptools<81'$"):
        robustbench.library("robustbench")


@pytest.mark.slow
def test_the_second_command_of_the_readme(tmp_path, monkeypatch):
    from audit.cli import main

    model = lay_down(tmp_path / "models", "cifar10/Linf/Carmon2019Unlabeled")
    x, y = cifar(model, 2)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    monkeypatch.chdir(tmp_path)
    short = "--set apgd-ce.n_iter=2 --set apgd-t.n_iter=2 --set fab-t.n_iter=2 --set square.n_queries=4"
    command = (
        f"run --model robustbench:cifar10/Linf/Carmon2019Unlabeled --suite standard --data x.npz {short} --out run"
    )
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 0
    data = audit.load_run("run").to_dict()
    assert data["leaderboard"]["itself"]["name"] == "Carmon2019Unlabeled"
    assert PICTURE in Path("run/report.html").read_text()


@pytest.mark.slow
def test_a_model_of_ones_own_beside_one_of_the_zoo(tmp_path, monkeypatch):
    """The paired table and the picture of the leaderboard in one report, from one command."""
    from audit.cli import main

    theirs = lay_down(tmp_path / "zoo")
    x, right = cifar(theirs, 2)
    with torch.no_grad():
        own = pooled()(torch.from_numpy(x)).argmax(1).numpy()
    np.savez(tmp_path / "x.npz", x=x, y=[right[0], own[1]])
    monkeypatch.chdir(tmp_path)
    command = (
        f"run --defense tests.test_robustbench:pooled --dataset cifar10 --data x.npz --suite standard --eps 8/255 --reference {SPEC} "
        "--model-dir zoo --set apgd-ce.n_iter=2 --set apgd-t.n_iter=1 --set fab-t.n_iter=1 --set square.n_queries=2 --out run --quiet"
    )
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 0
    data = audit.load_run("run").to_dict()
    (entry,) = data["references"]
    assert entry["name"] == "robustbench-cifar10-Linf-Wong2020Fast"
    assert entry["clean"]["accuracy"] == 0.5 + 0.5 * (own[1] == right[1])
    assert data["clean"]["accuracy"] == 0.5 + 0.5 * (own[0] == right[0])
    page = Path("run/report.html").read_text()
    assert "Beside its references, image by image" in page
    assert entry["name"] in page
    assert PICTURE in page
    assert "model_dir" not in str(audit.load_run("run").results.plan.runtime["sources"])
