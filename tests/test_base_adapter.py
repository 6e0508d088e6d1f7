"""Base: the network without its purifier."""

import pytest
import torch

from adapters.base import Base
from audit import registry
from audit.errors import BadInput
from audit.gates import fingerprint_model
from tests.planted import Quantise, Staged, TinyCNN, images


def test_it_answers_like_the_bare_network():
    network = TinyCNN()
    model = Staged(network, Quantise(2))
    x, _ = images(network)
    before = fingerprint_model(model)
    assert torch.equal(Base(model)(x), network(x))
    assert not torch.equal(model(x), network(x))
    assert fingerprint_model(model) == before


def test_a_model_of_one_stage_is_refused():
    with pytest.raises(BadInput, match=r"TinyCNN has no bare network, expected a module named 'network'"):
        Base(TinyCNN())


def test_a_network_that_is_no_module_is_refused():
    model = TinyCNN()
    model.network = "resnet"
    with pytest.raises(BadInput, match="no bare network"):
        Base(model)


@pytest.mark.parametrize("name", ["base", "bpda", "unroll", "eot"])
def test_it_loads_by_name(name):
    assert issubclass(registry.adapters.load(name), torch.nn.Module)
