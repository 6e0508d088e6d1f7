"""A defense that is a trained network: what most of the defenses here are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from audit.errors import BadInput, BadWeights, UnknownName
from audit.registry import closest
from audit.types import Claim
from defenses.inference import Variants
from defenses.networks import NETWORKS
from defenses.recipes import Recipe
from defenses.weights import ASSUMED, StoredCheckpoint, inspect, load_network

Images = tuple[Tensor, Tensor]
Examine = Callable[[nn.Module, Recipe, Images, Images], Mapping[str, Any]]
ZOO = Path(__file__).parent / "zoo"
SHAPES: Mapping[str, tuple[int, int, int]] = {  # channels, size, classes
    "fashion_mnist": (1, 28, 10), "mnist": (1, 28, 10), "cifar10": (3, 32, 10), "cifar100": (3, 32, 100),
    "svhn": (3, 32, 10),
}  # fmt: skip


def architecture_for(name: str, width: float, dataset: str) -> dict[str, Any]:
    """The architecture record of a network for a known data set. Raises BadInput for an unknown one."""
    if dataset not in SHAPES:
        raise BadInput(
            f"no image shape is known for dataset {dataset!r}, expected one of {', '.join(SHAPES)}; type --dataset"
        )
    channels, size, classes = SHAPES[dataset]
    return {"name": name, "width": width, "channels": channels, "size": size, "classes": classes}


@dataclass(frozen=True)
class NetworkDefense:
    """Implements `audit.protocols.Defense` for checkpoints of the zoo and of `audit train`.

    zoo: data set -> file of `defenses/zoo`; external: data set -> where a library ships weights, with the manifest
    to assume for them. further: other checkpoints of `defenses/zoo`, to be named with --weights. wrap: (bare network,
    parameters) -> the deployed module, for a defense with a test-time part; its parameters are those of the
    checkpoint's manifest (`inference`), and `inference` here where it has none; variants: what they can be set to. examine: a name and
    (network, recipe, training images, test images) -> what `audit train` records under it in `measured`. images: how many to audit unless told,
    where all of them would take more than minutes on two cores.
    """

    name: str
    summary: str
    recipes: Mapping[str, Recipe]
    zoo: Mapping[str, str] = field(default_factory=dict)
    external: Mapping[str, tuple[Callable[[], Path], Mapping[str, Any]]] = field(default_factory=dict)
    further: tuple[str, ...] = ()
    traits: frozenset[str] = frozenset()
    claims: tuple[Claim, ...] = ()
    wrap: Callable[[nn.Module, Mapping[str, Any]], nn.Module] | None = None
    inference: Mapping[str, Any] = field(default_factory=dict)
    variants: Variants | None = None
    examine: tuple[str, Examine] | None = None
    images: int | None = None

    def checkpoint(
        self, dataset: str, weights: Path | None = None, *, network: str | None = None, width: float | None = None
    ) -> StoredCheckpoint:
        """The weights to audit: `weights`, or those shipped for `dataset`.

        network, width: what a bare state dict was trained as; without either, as this defense's first recipe;
        a network without a width has width 1.
        Raises BadWeights when there are none, or the file says that it belongs to another data set or defense;
        BadInput when network or width are given for a file that names its own.
        """
        if weights is None and (network, width) != (None, None):
            raise BadInput("--network and --width describe a bare state dict, but none was given; type --weights FILE")
        if weights is not None:
            found = self._given(weights, dataset, network, width)
        elif dataset in self.zoo:
            found = inspect(ZOO / self.zoo[dataset])
        elif dataset in self.external:
            locate, manifest = self.external[dataset]
            found = inspect(locate(), manifest)
        else:
            have = ", ".join([*self.zoo, *self.external]) or "none"
            raise BadWeights(
                f"no weights of {self.name} are shipped for dataset {dataset!r} (there are: {have}); "
                f"type --weights FILE, or `audit train --defense {self.name} --dataset {dataset}`"
            )
        if found.dataset not in (None, dataset):
            raise BadWeights(
                f"{found.path} was trained on {found.dataset}, expected {dataset}; type --dataset {found.dataset}"
            )
        if found.defense not in (None, self.name):
            raise BadWeights(
                f"{found.path} is a checkpoint of {found.defense}, expected one of {self.name}; type --defense {found.defense}"
            )
        parameters = {**self.inference, **found.inference}
        return replace(found, manifest={**found.manifest, "inference": parameters}) if parameters else found

    def varied(self, checkpoint: StoredCheckpoint, settings: Sequence[str]) -> StoredCheckpoint:
        """The checkpoint with its test-time part set as `KEY=VALUE` settings say. Raises BadInput for wrong ones.

        The clean accuracy that was recorded is that of the stored part, and goes with it. The radius stays that of the stored
        part, unless another xi is typed.
        """
        if self.variants is None:
            raise BadInput(f"defense {self.name!r} has no test-time part to set; leave out --inference")
        parameters = self.variants.typed(settings, checkpoint.inference)
        if parameters == checkpoint.inference:
            return checkpoint
        measured = {name: value for name, value in checkpoint.measured.items() if name != "clean_accuracy"}
        changed = {"inference": parameters, "measured": measured, "meant_for_eps": checkpoint.meant_for_eps}
        return replace(checkpoint, manifest={**checkpoint.manifest, **changed})

    def as_set(self, checkpoint: StoredCheckpoint, declared: frozenset[str] = frozenset()) -> NetworkDefense:
        """This defense, without the traits of its test-time part where the checkpoint says that it is switched off.

        declared: traits that the user declares, which stay in any case.
        """
        if self.variants is None or not self.variants.off(checkpoint.inference):
            return self
        return replace(self, traits=self.traits - self.variants.traits | declared)

    def load(self, checkpoint: StoredCheckpoint) -> nn.Module:
        """The deployed module, in evaluation mode."""
        return self.deploy(load_network(checkpoint), checkpoint.inference)

    def deploy(self, network: nn.Module, parameters: Mapping[str, Any]) -> nn.Module:
        """A bare network inside this defense's test-time part, if it has one."""
        return network if self.wrap is None else self.wrap(network, {**self.inference, **parameters}).eval()

    def _given(self, path: Path, dataset: str, network: str | None, width: float | None) -> StoredCheckpoint:
        """A file that the user names, with an architecture assumed for it where it is bare."""
        found = inspect(path)
        asked = (network, width) != (None, None)
        if found.architecture:
            if asked:
                raise BadInput(
                    f"{path} says that it is {dict(found.architecture)}, expected a bare state dict; "
                    "leave out --network and --width"
                )
            return found
        if not asked and dataset not in SHAPES:
            return found
        recipe = next(iter(self.recipes.values()))
        if network is not None and network not in NETWORKS:
            raise UnknownName(f"unknown network {network!r}: {closest(network, sorted(NETWORKS))}")
        if width is not None and not 0 < width < math.inf:
            raise BadInput(f"--width is {width}, expected a positive factor such as 0.5")
        name = network or recipe.network
        factor = width or (1.0 if network else recipe.width)
        architecture = architecture_for(name, factor, dataset)
        return replace(found, manifest={**found.manifest, "architecture": architecture, ASSUMED: True})
