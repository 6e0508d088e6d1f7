"""Which channels an attack excites: feature activation differences and channel masks (Sec. 3 of the paper).

Features are (n, N, h, w) or (n, N): N channels of h * w positions (or of one). All functions of features are pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from audit.errors import BadInput
from defenses.networks import ResNet18

ALPHA = 100.0
PART = 250
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU)


def node_difference(clean: Tensor, adversarial: Tensor) -> Tensor:
    """V_act of a node, Eq. 5: the 2-norm of the difference of an image's features, averaged over images. Scalar."""
    lengths: Tensor = torch.linalg.vector_norm((clean - adversarial).flatten(1), dim=1)
    return lengths.mean()


def channel_difference(clean: Tensor, adversarial: Tensor) -> Tensor:
    """V_act of each channel, Eq. 6: the squared 2-norm of its difference, for each image: (n, N)."""
    delta = clean - adversarial
    return delta.reshape(*delta.shape[:2], -1).square().sum(2)


def positions(features: Tensor) -> int:
    """H * W of features."""
    return features[0, 0].numel()


def t_act(difference: Tensor, positions: int, alpha: float = ALPHA) -> Tensor:
    """T_act, Eq. 6: tanh(alpha * sum over images of V_act / (N * H * W)), in [0,1]: (n, N) -> (N,).

    The paper sums over the test set and does not average, so T_act grows with the number of images. In float32 it is 1
    where the tanh has an argument above 9: with the paper's alpha and hundreds of images that may be every channel.
    """
    return (alpha * difference.sum(0) / (difference.shape[1] * positions)).tanh()


def salient(t: Tensor, threshold: float) -> Tensor:
    """The channels that Eq. 7 masks: T_act above the threshold (the paper's alpha_2), bool (N,)."""
    return t > threshold


def top_channels(v_act: Tensor, percent: float) -> Tensor:
    """The channels of C_p%, Sec. 3.2: the largest `percent` % of T_act, bool (N,), told by V_act (N,).

    T_act grows with V_act, so both rank channels alike, but where T_act is rounded to 1 it ranks none. The number is
    rounded up, so that there is always one (1 % of 64 channels is less than one).
    """
    count = math.ceil(len(v_act) * percent / 100)
    chosen = torch.zeros_like(v_act, dtype=torch.bool)
    chosen[v_act.topk(count).indices] = True
    return chosen


def without(features: Tensor, masked: Tensor) -> Tensor:
    """Eq. 7: features with the channels of `masked` (bool (N,)) set to zero."""
    return features.masked_fill(masked.view(1, -1, *[1] * (features.ndim - 2)), 0.0)


def nodes(network: nn.Module) -> dict[str, tuple[nn.Module, bool]]:
    """The activation nodes A, B, ... of a network: (module, whether its input and not its output is the node).

    ResNet-18: A after the first convolution's ReLU, B to E after the four stages (Fig. 2; the paper's text only says
    "after a ReLU", the places are those of the public re-implementation, where B is the output of layer1). A network
    that is a sequence: the outputs of its activation layers. Raises BadInput for any other.
    """
    if isinstance(network, ResNet18):
        stages = [network.layer1, network.layer2, network.layer3, network.layer4]
        places: list[tuple[nn.Module, bool]] = [(network.layer1, True), *((stage, False) for stage in stages)]
    elif isinstance(network, nn.Sequential):
        places = [(part, False) for part in network if isinstance(part, ACTIVATIONS)]
    else:
        raise BadInput(f"{type(network).__name__} has no known activation nodes, expected ResNet18 or a sequence")
    return dict(zip("ABCDEFGHIJ", places, strict=False))


@contextmanager
def tapped(network: nn.Module, node: str, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """While the block runs, show the features at `node` to `change`, and go on with what it returns unless None.

    Raises BadInput for a node that the network does not have.
    """
    known = nodes(network)
    if node not in known:
        raise BadInput(f"node {node!r} does not exist, expected one of {', '.join(known)}")
    module, before = known[node]

    def on_input(_: nn.Module, inputs: tuple[Any, ...]) -> Any:
        return change(inputs[0])

    def on_output(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        return change(output)

    handle = module.register_forward_pre_hook(on_input) if before else module.register_forward_hook(on_output)
    try:
        yield
    finally:
        handle.remove()


def features_and_logits(network: nn.Module, node: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The features at `node` and the logits (n, k) of images x (n, c, h, w), from one pass."""
    seen: list[Tensor] = []
    with tapped(network, node, lambda features: seen.append(features)):
        logits = network(x)
    return seen[0], logits


def masked_logits(network: nn.Module, node: str, masked: Tensor, x: Tensor) -> Tensor:
    """The logits (n, k) of images x when the channels of `masked` (bool (N,)) are silenced at `node` (Eq. 7)."""
    with tapped(network, node, lambda features: without(features, masked)):
        logits: Tensor = network(x)
    return logits


@dataclass(frozen=True)
class Excitation:
    """What an attack moves at one node. v_node: Eq. 5; v_act: each channel's V_act, averaged over images, (N,); t_act: (N,).

    All are float32, v_node and v_act in the units of the features, t_act in [0,1].
    """

    node: str
    v_node: Tensor
    v_act: Tensor
    t_act: Tensor


@torch.no_grad()
def excitations(
    network: nn.Module, clean: Tensor, adversarial: Tensor, *, alpha: float = ALPHA
) -> tuple[Excitation, ...]:
    """Every node's differences between pairs of images (n, c, h, w), in passes of 250: what Fig. 1 and 3 draw.

    network: the bare one, in evaluation mode. T_act sums over images, so compare it for equal n only. Raises BadInput for
    a network whose nodes are not known.
    """
    lengths: dict[str, list[Tensor]] = {node: [] for node in nodes(network)}
    squares: dict[str, list[Tensor]] = {node: [] for node in lengths}
    spread: dict[str, int] = {}
    for a, b in zip(clean.split(PART), adversarial.split(PART), strict=True):
        before, after = features(network, a), features(network, b)
        for node, first in before.items():
            squares[node].append(channel_difference(first, after[node]))
            lengths[node].append(squares[node][-1].sum(1).sqrt())
            spread[node] = positions(first)
    found = {node: torch.cat(parts) for node, parts in squares.items()}
    return tuple(
        Excitation(node, torch.cat(lengths[node]).mean(), each.mean(0), t_act(each, spread[node], alpha))
        for node, each in found.items()
    )


def features(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The features at every node for images x (n, c, h, w), from one pass."""
    seen: dict[str, Tensor] = {}
    with ExitStack() as taps:
        for node in nodes(network):
            taps.enter_context(tapped(network, node, partial(seen.__setitem__, node)))
        network(x)
    return {node: seen[node] for node in sorted(seen)}


def excitation(network: nn.Module, node: str, clean: Tensor, adversarial: Tensor, *, alpha: float = ALPHA) -> Tensor:
    """T_act (N,) of one node over all pairs of images (n, c, h, w): see `excitations`. Raises BadInput for no such node."""
    found = {each.node: each.t_act for each in excitations(network, clean, adversarial, alpha=alpha)}
    if node not in found:
        raise BadInput(f"node {node!r} does not exist, expected one of {', '.join(found)}")
    return found[node]
