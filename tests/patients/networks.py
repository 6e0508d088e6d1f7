"""The patients' own small networks: how they are built, and how their weights are read.

All but one are MiddleCNN at an eighth of its width (43,000 weights) with one part exchanged. `train.py` trains them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from defenses.networks import MiddleCNN
from defenses.weights import load_network, read_state
from defenses.zoo import __file__ as zoo

WEIGHTS = Path(__file__).parent / "weights"
ZOO = Path(zoo).parent
WIDTH = 0.125
MEAN, SPREAD = 0.286, 0.353  # of Fashion-MNIST's training pixels
TASKS = {2: (0, 6), 3: (2, 4, 6)}  # T-shirt or shirt; pullover, coat or shirt: pairs that lie near each other


class Normalise(nn.Module):
    """Images (n, 1, h, w) in [0,1] -> the same with mean 0 and deviation 1 over Fashion-MNIST's training pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - MEAN) / SPREAD


class Thermometer(nn.Module):
    """One-channel images (n, 1, h, w) -> (n, levels, h, w): channel i says whether a pixel exceeds (i + 0.5) / levels.

    Buckman, Roy, Raffel and Goodfellow 2018.
    """

    def __init__(self, levels: int = 10) -> None:
        super().__init__()
        marks = (torch.arange(levels) + 0.5) / levels
        self.register_buffer("marks", marks.view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.marks).to(x.dtype)


class Winners(nn.Module):
    """Keeps the largest `share` of each image's units and sets the others to zero (Xiao, Zhong and Zheng 2020)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor) -> Tensor:
        flat = h.flatten(1)
        count = max(round(self.share * flat.shape[1]), 1)
        least = flat.topk(count, dim=1, sorted=False).values.amin(1).view(-1, *[1] * (h.ndim - 1))
        return h * (h >= least)


def _swapped(network: nn.Sequential, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(make(part) if isinstance(part, kind) else part for part in network))


def _middle(classes: int = 10, channels: int = 1) -> MiddleCNN:
    return MiddleCNN(channels=channels, classes=classes, width=WIDTH)


def k_winners(share: float = 0.1) -> nn.Sequential:
    """The small network with k-winners-take-all for every activation."""
    return _swapped(_middle(), nn.LeakyReLU, lambda _: Winners(share))


def batch_norms(network: nn.Sequential) -> nn.Sequential:
    """`network` normalising by each batch's own statistics, in evaluation mode as well."""
    return _swapped(network, nn.BatchNorm2d, lambda part: nn.BatchNorm2d(part.num_features, track_running_stats=False))


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "normalised": lambda: nn.Sequential(Normalise(), _middle()),
    "batch_statistics": lambda: batch_norms(_middle()),
    "thermometer": lambda: nn.Sequential(Thermometer(), _middle(channels=10)),
    "k_winners": k_winners,
    "detector": lambda: _middle(classes=11),
    "two_class": lambda: _middle(classes=2),
    "three_class": lambda: _middle(classes=3),
    "fgsm_overfitted": lambda: MiddleCNN(width=2 * WIDTH),
}


def trained(name: str) -> nn.Module:
    """One of `ARCHITECTURES` with its weights, in evaluation mode."""
    network = ARCHITECTURES[name]()
    network.load_state_dict(read_state(WEIGHTS / f"{name}.safetensors"))
    return network.eval()


def from_zoo(name: str) -> nn.Module:
    """The bare network of a file of the zoo, for example "undefended-fashion_mnist-small"."""
    from defenses.weights import inspect

    return load_network(inspect(ZOO / f"{name}.safetensors"))
