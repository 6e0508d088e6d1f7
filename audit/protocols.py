"""What a defense and an attack must look like. Structural: nothing has to be subclassed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from audit.types import Claim, Norm, ThreatModel

if TYPE_CHECKING:
    import torch


class Checkpoint(Protocol):
    """Trained weights and what is known of them."""

    @property
    def path(self) -> Path: ...
    @property
    def sha256(self) -> str: ...
    @property
    def dataset(self) -> str | None: ...
    @property
    def architecture(self) -> Mapping[str, Any]:
        """`{"name": "middle_cnn", "width": 0.5, ...}`"""
        ...

    @property
    def inference(self) -> Mapping[str, Any]:
        """The parameters of the test-time part, all filled in: `{"purify": "fgsm", "xi": 0.0314}`; empty without one."""
        ...

    @property
    def meant_for_eps(self) -> float | None:
        """The radius to audit unless another is typed; None where nothing says so."""
        ...

    @property
    def measured(self) -> Mapping[str, Any]:
        """Numbers recorded after training; `clean_accuracy` is the one that the handshake uses."""
        ...


@runtime_checkable
class Defense(Protocol):
    """A trained classifier plus its inference-time parts.

    `load` returns a module in evaluation mode that maps float32 images (n, c, h, w) in [0,1] to logits (n, k);
    normalisation lives inside it. `traits` are those of `audit.types.TRAITS`. A defense with a test-time part is a
    module with two submodules: `purifier` (images -> images) and `network` (the bare classifier, images -> logits);
    its audit then shows attacks on the bare network, their images judged by the whole, and attacks on the whole.
    """

    name: str
    summary: str
    traits: frozenset[str]
    claims: tuple[Claim, ...]

    def checkpoint(self, dataset: str, weights: Path | None) -> Checkpoint: ...
    def load(self, checkpoint: Checkpoint) -> torch.nn.Module: ...


@runtime_checkable
class Attack(Protocol):
    """A seeded function from images to adversarial candidates of the same shape.

    `kind` "budget" maximises a loss inside the ball, "minimal" looks for the nearest adversarial image. What an
    attack does not support it refuses with `audit.errors.Unsupported`; it never quietly returns its input.
    """

    name: str
    library: str
    kind: Literal["budget", "minimal"]
    norms: tuple[Norm, ...]
    needs: Literal["gradient", "scores", "decision"]
    reference: str

    @property
    def defaults(self) -> Mapping[str, Any]: ...
    def cost(self, params: Mapping[str, Any]) -> tuple[int, int]:
        """Forward and backward passes of one image that survives the whole attack."""
        ...

    def __call__(
        self,
        model: torch.nn.Module,
        x: torch.Tensor,
        y: torch.Tensor,
        threat: ThreatModel,
        *,
        seed: int,
        **options: Any,
    ) -> torch.Tensor: ...
