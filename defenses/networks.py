"""The networks of the papers. Images (n, c, h, w) in [0,1] in, logits (n, classes) out; no normalisation layer.

`channels_last` is set where a network is built: on CPUs its convolutions run 1.4 to 1.8 times faster that way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.errors import BadWeights


class MiddleCNN(nn.Sequential):
    """MiddleCNN of the super-fitting paper, Sec. 3.1.

    Three 3x3 convolutions of 64, 128 and 256 channels, each followed by batch normalisation, LeakyReLU and 2x2 max
    pooling, then fully connected layers of 1024 and `classes` units. `width` multiplies all but the last. The paper
    gives neither kernel size nor the activation between the linear layers: 3 and LeakyReLU are ours.
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10, width: float = 1.0) -> None:
        layers: list[nn.Module] = []
        previous = channels
        for planes in (64, 128, 256):
            out = round(planes * width)
            layers += [
                nn.Conv2d(previous, out, 3, padding=1),
                nn.BatchNorm2d(out),
                nn.LeakyReLU(),
                nn.MaxPool2d(2),
            ]
            previous = out
        hidden = round(1024 * width)
        flat = previous * (size // 8) ** 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(flat, hidden), nn.LeakyReLU(), nn.Linear(hidden, classes))


class LeNet(nn.Sequential):
    """LeNet-5 of LeCun et al. 1998, Fig. 2: two 5x5 convolutions of 6 and 16 channels, then 120, 84 and `classes` units.

    The first convolution pads by 2, so 28x28 images keep their size (the original pads them to 32x32). ReLU and 2x2
    max pooling stand for the original's tanh and trainable averaging, and all 16 channels see all 6. The SIM-Adv paper
    cites the network without widths, kernels or activation, so all of this is ours. `width` multiplies all but the last.
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10, width: float = 1.0) -> None:
        first, second, wide, narrow = (max(round(units * width), 1) for units in (6, 16, 120, 84))
        side = (size // 2 - 4) // 2
        super().__init__(
            nn.Conv2d(channels, first, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),  # the same as ReLU first, on a quarter
            nn.Conv2d(first, second, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
            nn.Linear(second * side**2, wide), nn.ReLU(), nn.Linear(wide, narrow), nn.ReLU(), nn.Linear(narrow, classes),
        )  # fmt: skip


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 for small images: a 3x3 first convolution, no max pooling, global average pooling.

    Parameter names are those in common use for CIFAR, so published state dicts load.
    """

    def __init__(self, channels: int = 3, size: int = 32, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        planes = [round(p * width) for p in (64, 128, 256, 512)]
        self.conv1 = nn.Conv2d(channels, planes[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.layer1 = self._stage(planes[0], planes[0], 1)
        self.layer2 = self._stage(planes[0], planes[1], 2)
        self.layer3 = self._stage(planes[1], planes[2], 2)
        self.layer4 = self._stage(planes[2], planes[3], 2)
        self.linear = nn.Linear(planes[3], classes)

    @staticmethod
    def _stage(inputs: int, planes: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(inputs, planes, stride), BasicBlock(planes, planes, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = stage(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {"middle_cnn": MiddleCNN, "resnet18": ResNet18, "lenet": LeNet}


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """The network of an architecture record such as `{"name": "middle_cnn", "width": 0.5, "channels": 1, ...}`.

    Raises BadWeights for a name or an option that no network here has.
    """
    options = dict(architecture)
    name = options.pop("name", None)
    if name not in NETWORKS:
        raise BadWeights(f"architecture {name!r} is unknown, expected one of {', '.join(NETWORKS)}; check the manifest")
    try:
        network = NETWORKS[name](**options)
    except TypeError as error:
        detail = " ".join(str(error).split())[:160]
        raise BadWeights(f"architecture {name!r} does not take these options ({detail}); check the manifest") from error
    except (RuntimeError, MemoryError, ArithmeticError, ValueError) as error:  # no room, or no such number of channels
        detail = " ".join(str(error).split())[:160]
        raise BadWeights(
            f"architecture {dict(architecture)} cannot be built ({detail}), expected a width such as 1; check --width or the manifest"
        ) from error
    # Module.to(memory_format=...) has no overload in torch's stubs.
    return network.to(memory_format=torch.channels_last)
