"""Where tensors live."""

from __future__ import annotations

import torch

from audit.errors import BadInput


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" takes CUDA where there is one. Raises BadInput when it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(
            f"--device {name} cannot be used ({str(error).splitlines()[0]}); type --device cpu or cuda"
        ) from error
    return device


def exact(device: torch.device) -> torch.device:
    """The same device, with CUDA convolutions told to repeat themselves and to stay in float32.

    By default cuDNN picks among algorithms that sum in varying order, and rounds inputs to TensorFloat-32.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    return device
