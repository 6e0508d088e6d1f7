"""Devices: one that cannot be used is refused; on CUDA the convolutions repeat themselves, in float32."""

from __future__ import annotations

import pytest
import torch

from audit.device import exact, find_device
from audit.errors import BadInput

FLAGS = ("deterministic", "benchmark", "allow_tf32")


@pytest.fixture
def loose():
    """cuDNN as it could be found: fast and inexact; put back afterwards."""
    cudnn = torch.backends.cudnn
    before = {name: getattr(cudnn, name) for name in FLAGS}
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = False, True, True
    yield lambda: tuple(getattr(cudnn, name) for name in FLAGS)
    for name, value in before.items():
        setattr(cudnn, name, value)


def test_cuda_is_made_exact(loose):
    assert exact(torch.device("cuda:1")) == torch.device("cuda:1")
    assert loose() == (True, False, False)


def test_a_cpu_leaves_cudnn_alone(loose):
    exact(torch.device("cpu"))
    assert loose() == (False, True, True)


def test_the_plan_is_made_on_an_exact_device(monkeypatch):
    from audit import preparation

    asked = []
    monkeypatch.setattr(preparation, "exact", lambda device: asked.append(device) or device)
    preparation.prepare("undefended", suite="quick", n=2, device="cpu")
    assert asked == [torch.device("cpu")]


@pytest.mark.parametrize("name", ["quantum", "cuda:99", "meta:x"])
def test_a_device_that_cannot_be_used(name):
    with pytest.raises(BadInput, match=f"--device {name} cannot be used .*type --device cpu or cuda"):
        find_device(name)
