"""Copies that share every tensor, and parts replaced without touching the model."""

import pytest
import torch
from torch import nn

from adapters import structure
from audit.errors import BadInput
from audit.gates import fingerprint_model
from tests.planted import Counting, Quantise, SignStep, Staged, TinyCNN, images


def staged():
    network = TinyCNN()
    network.register_buffer("mean", torch.zeros(3))
    return Staged(network, SignStep(network))


def test_a_mirror_has_its_own_modules_and_the_same_tensors():
    model = staged()
    twin = structure.mirror(model)
    assert not set(map(id, model.modules())) & set(map(id, twin.modules()))
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert all(a is b for a, b in zip(model.buffers(), twin.buffers(), strict=True))


def test_a_hidden_reference_leads_into_the_mirror():
    twin = structure.mirror(staged())
    assert twin.purifier.held[0] is twin.network


def test_tensors_of_a_hidden_module_are_shared_too():
    purifier = SignStep(TinyCNN())
    twin = structure.mirror(purifier)
    assert list(purifier.parameters()) == []
    assert twin.held[0] is not purifier.held[0]
    assert twin.held[0].head.weight is purifier.held[0].head.weight


def test_a_tensor_in_a_graph_can_be_mirrored():
    model = TinyCNN()
    model.derived = model.head.weight * 2  # deepcopy alone refuses it
    assert structure.mirror(model).derived is model.derived


def test_replacing_leaves_the_model_and_other_references_alone():
    model = staged()
    x, _ = images(model)
    expected, before, names = model(x), fingerprint_model(model), [name for name, _ in model.named_modules()]
    changed = structure.replace(model, "network.body.0", nn.Conv2d(1, 6, 3, padding=1))
    assert not torch.equal(changed(x), expected)
    assert torch.equal(model(x), expected)
    assert changed.purifier.held[0] is model.network
    assert [name for name, _ in model.named_modules()] == names
    assert fingerprint_model(model) == before


def test_names_are_found_inside_wrappers():
    assert structure.find(Counting(Counting(staged())), "network.head") == "model.model.network.head"
    assert structure.find(Counting(staged()), "model.purifier") == "model.purifier"


def test_an_alias_is_a_name():
    model = Staged(Quantise(), nn.Identity())
    model.second = model.network
    assert structure.find(model, "second") == "second"


@pytest.mark.parametrize(
    ("name", "hint"), [("purifer", r"did you mean 'purifier'\?"), ("", "known are"), ("xyz", r"known are network, ")]
)
def test_an_unknown_name_lists_what_there_is(name, hint):
    with pytest.raises(BadInput, match=rf"no submodule '{name}' \(its own are: network, purifier\): .*{hint}"):
        structure.find(staged(), name)


def test_a_model_without_parts_says_so():
    with pytest.raises(BadInput, match=r"no submodule 'purifier' \(its own are: none\)$"):
        structure.find(nn.Identity(), "purifier")
