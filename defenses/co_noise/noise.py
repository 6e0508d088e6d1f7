"""Random noise at inference (Zhao et al., arXiv 2402.18211, Sec. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audit.errors import BadInput, BadWeights
from defenses.inference import OFF, Variants, pixels
from defenses.staged import Staged

AMPLITUDE = 16 / 255
KINDS = ("uniform", "gaussian")
VARIANTS = Variants(
    "noise", {**dict.fromkeys(KINDS, ("amplitude",)), OFF: ()}, {"amplitude": pixels}, frozenset({"stochastic"})
)


class Noise(nn.Module):
    """Images x (n, c, h, w) in [0,1] -> x + noise, in [0,1]; drawn anew in each pass.

    kind: "uniform" on [-amplitude, amplitude], or "gaussian" with standard deviation `amplitude` (Table 4). The
    paper does not say whether it clips the noisy image; it is clipped here, so that every stage sees an image.

    generators: one per row, or None. With them a row's noise is the next draw of its own generator, whatever batch
    the row comes in; without, noise comes from torch's global generator. Draws are float32 whatever the type of x.
    Gradients pass through the addition, and stop where the clip acts. Raises BadInput for an unknown kind, and when
    the number of generators is not the number of rows.
    """

    def __init__(self, amplitude: float = AMPLITUDE, kind: str = "uniform") -> None:
        super().__init__()
        if kind not in KINDS:
            raise BadInput(f"noise is {kind!r}, expected one of {', '.join(KINDS)}")
        self.amplitude, self.kind = amplitude, kind
        self.generators: Sequence[torch.Generator] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.amplitude * self._draw(x).to(x)).clamp(0, 1)

    def _draw(self, x: Tensor) -> Tensor:
        """Uniform on [-1, 1) or standard normal, float32 (n, c, h, w)."""
        if self.generators is None:
            return self._unit(x.shape, x.device, None)
        if len(self.generators) != len(x):
            raise BadInput(
                f"{len(self.generators)} generators for {len(x)} images, expected one per image; set them before each pass"
            )
        return torch.stack([self._unit(x.shape[1:], g.device, g).to(x.device) for g in self.generators])

    def _unit(self, shape: torch.Size, device: torch.device, generator: torch.Generator | None) -> Tensor:
        if self.kind == "gaussian":
            return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        return 2 * torch.rand(shape, generator=generator, device=device, dtype=torch.float32) - 1


def noised_by(network: nn.Module, inference: Mapping[str, Any]) -> nn.Module:
    """The deployed defense: `network` behind the noise that `inference` names.

    noise: "uniform", "gaussian" or "none", which is the network itself; amplitude: half-width or standard deviation. Raises BadWeights for
    another noise.
    """
    kind = inference["noise"]
    if kind == OFF:
        return network
    if kind not in KINDS:
        raise BadWeights(
            f"the manifest names noise {kind!r}, expected one of {', '.join(KINDS)}, {OFF}; check its 'inference'"
        )
    return Staged(network, Noise(float(inference.get("amplitude", AMPLITUDE)), kind))
