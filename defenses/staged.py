"""A defense with a part that works at test time: images go through a purifier, then through the classifier."""

from __future__ import annotations

from torch import Tensor, nn


class Staged(nn.Module):
    """logits = network(purifier(x)): images (n, c, h, w) in [0,1] -> logits (n, k).

    `network` is the bare classifier, the one that a grey-box attack sees and whose weights a checkpoint holds;
    `purifier` maps images to images of the same shape. A purifier has no weights of its own, so a checkpoint of the
    network is a checkpoint of the defense.
    """

    def __init__(self, network: nn.Module, purifier: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.purifier = purifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.purifier(x))
        return logits


class Asking(nn.Module):
    """Base of the purifiers that ask the classifier: they refer to it and do not own it.

    Held in a tuple, the network is no submodule: its weights appear once in the state dict of a `Staged`, a cast or
    a move of the `Staged` reaches it through `Staged.network`, and a deep copy of the `Staged` refers to the copied
    network, since `copy.deepcopy` copies each object once.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network,)

    @property
    def network(self) -> nn.Module:
        """The classifier that is asked."""
        return self._network[0]
