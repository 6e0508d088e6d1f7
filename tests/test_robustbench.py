"""RobustBench's zoo, offline: its own architectures with weights that the tests lay down in its own layout."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import audit
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


def lay_down(model_dir: Path, name: str = NAME, dataset: str = "cifar10", *, wrap: bool = False) -> nn.Module:
    """A model of the zoo with random weights, saved as RobustBench keeps it; wrap: as its authors often did."""
    torch.manual_seed(0)
    model = robustbench.zoo(dataset, "Linf")[name]["model"]().eval()
    path = model_dir / dataset / "Linf" / f"{name}.pt"
    path.parent.mkdir(parents=True)
    state = model.state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}} if wrap else state, path)
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


def test_a_wrapped_state_dict_is_unwrapped_as_robustbench_does(tmp_path):
    model = lay_down(tmp_path, wrap=True)
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
    with pytest.raises(BadWeights, match="are torchvision's; type --download"):
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

    model = lay_down(tmp_path / "models", "Carmon2019Unlabeled")
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
