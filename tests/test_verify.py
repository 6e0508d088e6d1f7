"""Verification counts what is missing and damaged, and takes no unit's word for what it does not prove."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from audit import registry
from audit.cli import main
from audit.datasets import FASHION_MNIST
from audit.ledger import Ledger
from audit.results import read_results
from audit.runner import run as audit_run
from audit.types import Step
from audit.verify import reverify, sound, verify_images
from defenses.base import ZOO
from tests.test_engine import PLANTED, grey, make_plan, run

pytestmark = pytest.mark.usefixtures("undrawn")

UNIT = "01-fine-0001"  # images 3, 4 and 5, all broken


@pytest.fixture(autouse=True)
def _planted_attacks(monkeypatch):
    for name, attribute in PLANTED.items():
        monkeypatch.setitem(registry.attacks._targets, name, f"tests.planted:{attribute}")


@pytest.fixture
def plan(tmp_path):
    made = make_plan([Step("fine", "good", "claimed", "all")])
    run(made, grey(), tmp_path)
    return made


def checked(plan, folder):
    return verify_images(plan, grey(), Ledger(folder, plan.fingerprint))


def test_a_whole_run_is_sound(plan, tmp_path):
    found = checked(plan, tmp_path)
    assert sound(found)
    assert found == {
        "verified": 3, "rejected": 0, "rejected_ids": [], "unproven_ids": [], "missing": 0, "damaged": 0, "failures": []
    }  # fmt: skip


def test_a_missing_and_a_damaged_unit_are_counted_and_named(plan, tmp_path):
    ledger = Ledger(tmp_path)
    ledger.remove("00-clean-0002")
    ledger.path(UNIT).write_bytes(b"torn")
    found = checked(plan, tmp_path)
    assert not sound(found)
    assert (found["missing"], found["damaged"], found["rejected"], found["verified"]) == (1, 1, 0, 0)
    assert found["failures"] == ["unit 00-clean-0002 is missing", f"unit {UNIT} is damaged or of another plan"]


def test_a_unit_of_another_plan_proves_nothing(plan, tmp_path):
    arrays, meta = Ledger(tmp_path).read(UNIT)
    Ledger(tmp_path, "another").write(UNIT, arrays, meta)
    assert checked(plan, tmp_path)["damaged"] == 1
    results = read_results(tmp_path)
    assert results.missing == 1
    assert not results.steps[0].broken.any()


@pytest.mark.parametrize("kept", [0, 2])
def test_broken_without_an_image_is_rejected(plan, tmp_path, kept):
    ledger = Ledger(tmp_path)
    arrays, meta = ledger.read(UNIT)
    ledger.write(UNIT, {**arrays, "x_adv": arrays["x_adv"][:kept]}, meta)
    found = checked(plan, tmp_path)
    assert found["rejected_ids"] == [3, 4, 5]
    assert f"image 3 of {UNIT} lacks its proof: {kept} images are stored for 3 broken ones" in found["failures"]
    assert not sound(found)


def test_a_rejected_image_is_named_by_its_id(plan, tmp_path):
    ledger = Ledger(tmp_path)
    arrays, meta = ledger.read(UNIT)
    x_adv = arrays["x_adv"].copy()
    x_adv[1] -= 0.05
    ledger.write(UNIT, {**arrays, "x_adv": x_adv}, meta)
    assert checked(plan, tmp_path)["rejected_ids"] == [4]


@pytest.mark.parametrize(("scope", "unproven"), [("all", []), ("control", [4])])
def test_another_image_that_stands_up_is_proof_enough_unless_it_is_a_controls(scope, unproven, tmp_path):
    made = make_plan([Step("fine", "good", "claimed", "all"), Step("again", "good", "claimed", scope)])
    run(made, grey(), tmp_path)
    ledger = Ledger(tmp_path, made.fingerprint)
    arrays, meta = ledger.read(UNIT)
    x_adv = arrays["x_adv"].copy()
    x_adv[1] -= 0.05
    ledger.write(UNIT, {**arrays, "x_adv": x_adv}, meta)
    found = checked(made, tmp_path)
    assert (found["rejected_ids"], found["unproven_ids"]) == ([4], unproven)
    assert not sound(found)


# --- a whole run, verified again with its own sources


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def npz(path, n=8):
    data = FASHION_MNIST.load().first(n)
    np.savez(path, x=data.x, y=data.y)
    return path


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A run of copied weights on an .npz file, both given by relative paths."""
    home = tmp_path_factory.mktemp("home")
    npz(home / "images.npz")
    shutil.copy(ZOO / "undefended-fashion_mnist-small.safetensors", home / "net.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        audit_run(
            "undefended",
            suite="quick",
            data=Path("images.npz"),
            weights=Path("net.safetensors"),
            batch_size=4,
            out="run",
        )
    return home


def test_checks_name_the_rejected_images(moved):
    found = json.loads((moved / "run" / "checks.json").read_text())
    assert (found["rejected_ids"], found["missing"], found["damaged"]) == ([], 0, 0)


def test_relative_paths_are_found_from_another_directory(moved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sound(reverify(moved / "run"))


def test_a_run_whose_files_were_moved_is_verified_with_flags(moved, tmp_path, capsys):
    copy = tmp_path / "elsewhere"
    shutil.copytree(moved, copy)
    plan = json.loads((copy / "run" / "plan.json").read_text())
    plan["runtime"]["sources"] |= {"weights": "/gone/net.safetensors", "data": "/gone/images.npz"}
    (copy / "run" / "plan.json").write_text(json.dumps(plan))
    assert call("verify", copy / "run") == 2
    assert "type --weights FILE" in capsys.readouterr().err
    assert call("verify", copy / "run", "--weights", copy / "net.safetensors") == 2
    assert "--data /gone/images.npz does not exist" in capsys.readouterr().err
    assert call("verify", copy / "run", "--weights", copy / "net.safetensors", "--data", copy / "images.npz") == 0
    assert "0 units missing, 0 damaged" in capsys.readouterr().out


def test_other_weights_and_other_images_are_refused(moved, tmp_path, capsys):
    other = tmp_path / "net.safetensors"
    content = bytearray((ZOO / "undefended-fashion_mnist-small.safetensors").read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    assert call("verify", moved / "run", "--weights", other) == 2
    assert "is not the checkpoint that was audited (sha256 differs); restore it, or type" in capsys.readouterr().err
    assert call("verify", moved / "run", "--data", npz(tmp_path / "images.npz", 9)) == 0  # the first 8 are the same
    np.savez(tmp_path / "grey.npz", x=np.full((8, 28, 28), 0.5, np.float32), y=np.zeros(8, np.int64))
    assert call("verify", moved / "run", "--data", tmp_path / "grey.npz") == 2
    assert "are not the images that were audited (digest differs); type --data PATH" in capsys.readouterr().err


def test_fewer_images_than_the_run_audited_are_refused(moved, tmp_path, capsys):
    assert call("verify", moved / "run", "--data", npz(tmp_path / "few.npz", 5)) == 2
    assert "few.npz has 5 images, the run audited 8; type --data PATH" in capsys.readouterr().err


def test_the_command_line_ends_with_1_when_a_unit_is_missing(moved, tmp_path, capsys):
    shutil.copytree(moved / "run", tmp_path / "run")
    (tmp_path / "run" / "units" / "03-pgd-20-0000.npz").unlink()
    assert call("verify", tmp_path / "run") == 1
    printed = capsys.readouterr().out
    assert "0 rejected; 1 units missing, 0 damaged" in printed
    assert "unit 03-pgd-20-0000 is missing" in printed


@pytest.mark.slow
def test_bundled_weights_and_downloaded_images_are_found_again(tmp_path, monkeypatch):
    """The ResNet-18 is a library's file; torchvision's folder is remembered, so nothing is fetched again."""
    asked = []

    class Fake:
        def __init__(self, root, download, train):
            asked.append((root, download))
            dice = np.random.default_rng(0)
            self.data, self.targets = dice.integers(0, 256, (6, 32, 32, 3), np.uint8), list(range(6))

    monkeypatch.setattr(datasets, "CIFAR10", Fake)
    monkeypatch.chdir(tmp_path)
    audit_run(
        "undefended", suite="quick", dataset="cifar10", download=True, n=2, out="run", seed=1,
        settings=("rescaled-ce.n_iter=1", "apgd-margin.n_iter=1", "unbounded.n_iter=1", "bim-20.steps=1", "pgd-20.steps=1"),
    )  # fmt: skip
    monkeypatch.chdir("/")
    assert sound(reverify(tmp_path / "run"))
    assert asked == [("data", True), (str(tmp_path / "data"), False)]
