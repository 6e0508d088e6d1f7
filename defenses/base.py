"""A defense that is a trained network: what most of the defenses here are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from audit.errors import BadInput, BadWeights
from audit.types import Claim
from defenses.recipes import Recipe
from defenses.weights import StoredCheckpoint, inspect, load_network

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
    checkpoint's manifest (`inference`), and `inference` here where it has none.
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

    def checkpoint(self, dataset: str, weights: Path | None = None) -> StoredCheckpoint:
        """The weights to audit: `weights`, or those shipped for `dataset`.

        Raises BadWeights when there are none, or the file says that it belongs to another data set or defense.
        """
        if weights is not None:
            found = inspect(weights, self._assumed(dataset))
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
        parameters = {**self.inference, **found.inference}
        return replace(found, manifest={**found.manifest, "inference": parameters}) if parameters else found

    def load(self, checkpoint: StoredCheckpoint) -> nn.Module:
        """The deployed module, in evaluation mode."""
        return self.deploy(load_network(checkpoint), checkpoint.inference)

    def deploy(self, network: nn.Module, parameters: Mapping[str, Any]) -> nn.Module:
        """A bare network inside this defense's test-time part, if it has one."""
        return network if self.wrap is None else self.wrap(network, {**self.inference, **parameters}).eval()

    def _assumed(self, dataset: str) -> Mapping[str, Any]:
        """For a bare state dict: the architecture of this defense's first recipe."""
        recipe = next(iter(self.recipes.values()))
        return {"architecture": architecture_for(recipe.network, recipe.width, dataset)} if dataset in SHAPES else {}
