"""Checkpoints and networks: what is whole loads bit by bit, all else is refused with what it is."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from audit.datasets import FASHION_MNIST
from audit.errors import BadInput, BadWeights, CannotWrite
from defenses.base import ZOO, architecture_for
from defenses.networks import NETWORKS, MiddleCNN, ResNet18, build
from defenses.super_fitting import SUPER_FITTING
from defenses.undefended import UNDEFENDED
from defenses.weights import StoredCheckpoint, inspect, load_network, read_safely, read_state, store

torch.set_num_threads(1)

TINY = {"name": "middle_cnn", "width": 0.0625, "channels": 1, "size": 8, "classes": 3}
MANIFEST = {"architecture": TINY, "dataset": "fashion_mnist", "measured": {"clean_accuracy": 0.5}}
HTML = "<!DOCTYPE html>\n<html><body>Sign in</body></html>"


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build(TINY).eval()


def equal(found: dict, wanted: dict) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


def assumed(path: Path) -> StoredCheckpoint:
    """A bare file, taken for the tiny network."""
    return inspect(path, {"architecture": TINY})


def test_stored_weights_come_back(network, tmp_path):
    path = tmp_path / "deep" / "net.safetensors"
    stored = store(path, network, MANIFEST)
    found = inspect(path)
    assert found == stored
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.architecture, found.dataset) == (TINY, "fashion_mnist")
    assert found.measured["clean_accuracy"] == 0.5
    assert equal(read_state(path), network.state_dict())
    loaded = load_network(found)
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert not loaded.training
    assert torch.equal(loaded(x), network(x))


def test_the_json_beside_the_weights_is_the_manifest(network, tmp_path):
    stored = store(tmp_path / "net.safetensors", network, MANIFEST)
    assert json.loads((tmp_path / "net.json").read_text()) == {**MANIFEST, "sha256": stored.sha256}


def test_storing_twice_makes_the_same_file(network, tmp_path):
    first = store(tmp_path / "a.safetensors", network, MANIFEST)
    assert store(tmp_path / "b.safetensors", network, MANIFEST).sha256 == first.sha256


def test_weights_cannot_be_stored_below_a_file(network, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="could not write"):
        store(tmp_path / "file" / "net.safetensors", network, MANIFEST)


def test_the_files_own_manifest_wins_over_the_assumed(network, tmp_path):
    store(tmp_path / "net.safetensors", network, MANIFEST)
    found = inspect(tmp_path / "net.safetensors", {"architecture": {"name": "resnet18"}, "recipe": "assumed"})
    assert found.architecture == TINY
    assert found.manifest["recipe"] == "assumed"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("inside", [False, True], ids=["bare", "under state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_published_state_dicts_load(network, tmp_path, prefix, inside, zipped):
    state = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    path = tmp_path / "net.pt"
    torch.save({"state_dict": state} if inside else state, path, _use_new_zipfile_serialization=zipped)
    assert equal(read_state(path), network.state_dict())
    assert equal(load_network(assumed(path)).state_dict(), network.state_dict())


def test_published_safetensors_with_a_prefix_load(network, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(
        save({f"module.{k}": v.contiguous() for k, v in network.state_dict().items()})
    )
    assert equal(read_state(tmp_path / "net.safetensors"), network.state_dict())
    assert assumed(tmp_path / "net.safetensors").manifest == {"architecture": TINY}


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors", "no/such/folder/net.pt"])
def test_a_missing_checkpoint(tmp_path, name):
    with pytest.raises(
        BadWeights, match=r"cannot be read \(No such file or directory\); type --weights FILE, or train"
    ):
        inspect(tmp_path / name)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(BadWeights, match=r"cannot be read \(Is a directory\)"):
        inspect(tmp_path)


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
@pytest.mark.parametrize(
    "text", [HTML, HTML.lower(), f"\n  {HTML}", "<html>", "<div>Sign in</div>", '<?xml version="1.0"?>']
)
def test_a_web_page_is_no_checkpoint(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadWeights, match=r"is a web page, not a checkpoint; the download link has expired"):
        inspect(tmp_path / name)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_safetensors(network, tmp_path, share):
    path = tmp_path / "net.safetensors"
    store(path, network, MANIFEST)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadWeights, match=r"is truncated or not a safetensors file .*fetch or train it anew"):
        inspect(path)
    with pytest.raises(BadWeights, match=r"is truncated or not a checkpoint .*fetch or train it anew"):
        read_state(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_pt(network, tmp_path, share):
    path = tmp_path / "net.pt"
    torch.save(network.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadWeights, match=r"is truncated or not a checkpoint .*fetch or train it anew"):
        load_network(assumed(path))


def test_a_small_pt_torn_at_any_place(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)  # the older format has no directory
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BadWeights):
            read_state(path)


class Bomb:
    """Fails the test if anything unpickles it."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle ran code",))


@pytest.mark.parametrize("what", ["module", "code", "code beside tensors"])
def test_a_pickle_that_holds_code_is_refused(network, tmp_path, what):
    held = {"module": network, "code": Bomb(), "code beside tensors": {"a": torch.ones(1), "b": Bomb()}}[what]
    torch.save(held, tmp_path / "net.pt")
    with pytest.raises(BadWeights, match=r"is a pickle that would run code when loaded, .*save model.state_dict\(\)"):
        read_state(tmp_path / "net.pt")


@pytest.mark.parametrize("text", [b"hello", b"(garbage", b"c", b"{}"])
def test_what_is_no_pickle_is_not_called_one(tmp_path, text):
    (tmp_path / "net.pt").write_bytes(text)
    with pytest.raises(BadWeights, match=r"net.pt is truncated or not a checkpoint \("):
        read_state(tmp_path / "net.pt")


def test_torch_prints_no_warning_of_what_it_reads(tmp_path, monkeypatch):
    def load(*args, **kwargs):
        warnings.warn("read with care", UserWarning, stacklevel=1)
        return {"a": torch.ones(1)}

    monkeypatch.setattr(torch, "load", load)
    assert equal(read_state(tmp_path / "net.pt"), {"a": torch.ones(1)})


def test_a_safetensors_header_of_60_bytes_is_no_web_page(tmp_path):
    content = save({"a": torch.ones(1)})
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].rstrip()
    assert len(header) <= 60 + 256
    length = 60 if len(header) <= 60 else 60 + 256
    (tmp_path / "net.safetensors").write_bytes(
        length.to_bytes(8, "little") + header.ljust(length) + content[8 + size :]
    )
    assert (tmp_path / "net.safetensors").read_bytes().startswith(b"<")
    assert inspect(tmp_path / "net.safetensors").manifest == {}


@pytest.mark.parametrize(
    ("manifest", "part"),
    [
        ([1], "manifest"),
        ({"architecture": "lenet"}, "architecture"),
        ({"measured": [1]}, "measured"),
        ({"inference": 2}, "inference"),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path, manifest, part):
    (tmp_path / "net.safetensors").write_bytes(save({"a": torch.ones(1)}, metadata={"manifest": json.dumps(manifest)}))
    with pytest.raises(BadWeights, match=rf"the {part} of .*net.safetensors is \w+, expected a JSON object"):
        inspect(tmp_path / "net.safetensors")


@pytest.mark.parametrize("width", [1e9, float("inf"), float("nan"), -1.0])
def test_a_width_that_cannot_be_built(width):
    with pytest.raises(BadWeights, match=r"architecture \{'name': 'middle_cnn'.* cannot be built \(.*check --width"):
        build({**TINY, "width": width})


def test_a_bare_file_of_another_width_names_the_flags(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "net.pt")
    with pytest.raises(BadWeights, match=r"for, or its network, for example --network middle_cnn --width 0.5$"):
        UNDEFENDED.load(UNDEFENDED.checkpoint("fashion_mnist", tmp_path / "net.pt"))
    store(tmp_path / "net.safetensors", network, {"architecture": {**TINY, "width": 0.125}})
    with pytest.raises(BadWeights, match=r"choose the --dataset and --defense it was trained for$"):
        UNDEFENDED.load(UNDEFENDED.checkpoint("fashion_mnist", tmp_path / "net.safetensors"))


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "net.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadWeights, match=r"net.pt is "):
        read_state(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        ([1, 2], "list"),
        (torch.ones(2), "Tensor"),
        ({"epoch": 3}, "dict"),
        ({0: torch.ones(1)}, "dict"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, held, kind):
    torch.save(held, tmp_path / "net.pt")
    with pytest.raises(BadWeights, match=rf"holds {kind}, expected a state dict of tensors; save model.state_dict"):
        read_state(tmp_path / "net.pt")


@pytest.mark.parametrize(
    "changes", [{"width": 0.125}, {"classes": 4}, {"channels": 3}, {"size": 16}, {"name": "resnet18"}]
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_of_another_architecture(network, tmp_path, changes, suffix):
    path = tmp_path / f"net.{suffix}"
    if suffix == "pt":
        torch.save(network.state_dict(), path)
    else:
        path.write_bytes(save({k: v.contiguous() for k, v in network.state_dict().items()}))
    message = r"net\.\w+ does not fit architecture .*; choose the --dataset and --defense it was trained for"
    with pytest.raises(BadWeights, match=message):
        load_network(inspect(path, {"architecture": {**TINY, **changes}}))


@pytest.mark.parametrize("name", ["wide_resnet", None, ""])
def test_an_unknown_architecture(name):
    message = rf"architecture {name!r} is unknown, expected one of {', '.join(NETWORKS)}; check the manifest"
    with pytest.raises(BadWeights, match=message):
        build({**TINY, "name": name})


def test_an_unknown_option():
    with pytest.raises(
        BadWeights, match=r"architecture 'middle_cnn' does not take these options .*depth.*check the manif"
    ):
        build({**TINY, "depth": 3})


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def middle_cnn_parameters(channels: int, side: int, classes: int, width: float) -> int:
    """Convolutions with bias, two batch normalisation vectors each, two linear layers."""
    a, b, c, hidden = (round(p * width) for p in (64, 128, 256, 1024))
    convolutions = sum(9 * i * o + o + 2 * o for i, o in ((channels, a), (a, b), (b, c)))
    return convolutions + c * side * side * hidden + hidden + hidden * classes + classes


@pytest.mark.parametrize(
    ("channels", "size", "classes", "width", "side"), [(1, 28, 10, 0.5, 3), (3, 32, 100, 0.25, 4), (1, 8, 3, 0.0625, 1)]
)
def test_middle_cnn_has_the_layers_of_the_paper(channels, size, classes, width, side):
    network = MiddleCNN(channels, size, classes, width).eval()
    assert parameters(network) == middle_cnn_parameters(channels, side, classes, width)
    with torch.no_grad():
        assert network(torch.rand(2, channels, size, size)).shape == (2, classes)


def test_resnet18_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = ResNet18()
    assert parameters(network) == 11_173_962
    assert {"conv1.weight", "layer4.1.bn2.running_var", "layer2.0.shortcut.0.weight"} <= set(network.state_dict())


def test_resnet18_halves_the_image_three_times():
    network = ResNet18(1, 16, 7, 0.0625).eval()
    seen = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        getattr(network, name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.shape[2]}))
    with torch.no_grad():
        assert network(torch.rand(2, 1, 16, 16)).shape == (2, 7)
    assert seen == {"layer1": 16, "layer2": 8, "layer3": 4, "layer4": 2}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks_judge_each_image_alone(name):
    torch.manual_seed(0)
    network = build({"name": name, "width": 0.0625, "channels": 1, "size": 16, "classes": 5}).eval()
    x = torch.rand(4, 1, 16, 16)
    with torch.no_grad():
        together, alone = network(x), torch.cat([network(one[None]) for one in x])
    assert together == pytest.approx(alone, abs=1e-5)
    assert torch.isfinite(together).all()


def test_architecture_for():
    wanted = {"name": "middle_cnn", "width": 0.5, "channels": 3, "size": 32, "classes": 100}
    assert architecture_for("middle_cnn", 0.5, "cifar100") == wanted
    with pytest.raises(
        BadInput, match=r"no image shape is known for dataset 'imagenet', expected one of fashion_mnist"
    ):
        architecture_for("middle_cnn", 0.5, "imagenet")


@pytest.mark.parametrize("path", sorted(ZOO.glob("*.safetensors")), ids=lambda path: path.stem)
def test_shipped_weights_are_those_of_their_manifest(path):
    beside = json.loads(path.with_suffix(".json").read_text())
    found = inspect(path)
    assert found.sha256 == beside.pop("sha256")
    assert dict(found.manifest) == beside
    assert found.dataset == "fashion_mnist"


@pytest.mark.parametrize("defense", [SUPER_FITTING, UNDEFENDED], ids=lambda defense: defense.name)
def test_shipped_weights_reach_the_recorded_clean_accuracy(defense):
    checkpoint = defense.checkpoint("fashion_mnist")
    images = FASHION_MNIST.load()
    x, y = torch.from_numpy(images.x), torch.from_numpy(images.y)
    with torch.no_grad():
        right = (defense.load(checkpoint)(x).argmax(1) == y).float().mean()
    assert checkpoint.measured["n"] == 1000
    assert float(right) == pytest.approx(checkpoint.measured["clean_accuracy"], abs=0.002)  # last bits differ by CPU


def test_the_bundled_resnet18_loads():
    checkpoint = UNDEFENDED.checkpoint("cifar10")
    network = UNDEFENDED.load(checkpoint)
    assert isinstance(network, ResNet18)
    assert not network.training
    assert parameters(network) == 11_173_962


def test_no_weights_for_a_data_set():
    message = (
        r"no weights of super_fitting are shipped for dataset 'svhn' \(there are: fashion_mnist\); type --weights FILE"
    )
    with pytest.raises(BadWeights, match=message):
        SUPER_FITTING.checkpoint("svhn")


def test_weights_trained_on_another_data_set(network, tmp_path):
    store(tmp_path / "net.safetensors", network, MANIFEST)
    with pytest.raises(BadWeights, match=r"was trained on fashion_mnist, expected mnist; type --dataset fashion_mnist"):
        SUPER_FITTING.checkpoint("mnist", tmp_path / "net.safetensors")


def test_a_bare_state_dict_is_taken_for_the_first_recipe(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "net.pt")
    recipe = next(iter(SUPER_FITTING.recipes.values()))
    found = SUPER_FITTING.checkpoint("cifar10", tmp_path / "net.pt")
    assert found.architecture == architecture_for(recipe.network, recipe.width, "cifar10")
    assert SUPER_FITTING.checkpoint("mine", tmp_path / "net.pt").architecture == {}


def test_numbers_and_options_beside_the_weights_are_read(network, tmp_path):
    beside = {"best": np.float64(0.5), "seen": np.arange(3), "epoch": np.int32(4), "args": Namespace(lr=0.1, deep=[1])}
    torch.save({"state_dict": network.state_dict(), **beside}, tmp_path / "net.pt")
    found = read_safely(tmp_path / "net.pt")
    assert (found["best"], found["epoch"], found["args"]) == (0.5, 4, Namespace(lr=0.1, deep=[1]))
    assert list(found["seen"]) == [0, 1, 2]
    assert set(read_state(tmp_path / "net.pt")) == set(network.state_dict())
    with pytest.raises(pickle.UnpicklingError):  # nobody else's reading is changed
        torch.load(tmp_path / "net.pt", weights_only=True)


@pytest.mark.parametrize("hide", [lambda bomb: Namespace(a=bomb), lambda bomb: np.array([bomb], dtype=object)])
def test_code_inside_what_is_harmless_is_refused_all_the_same(network, tmp_path, hide):
    torch.save({"state_dict": network.state_dict(), "args": hide(Bomb())}, tmp_path / "net.pt")
    with pytest.raises(BadWeights, match="is a pickle that would run code when loaded"):
        read_safely(tmp_path / "net.pt")
