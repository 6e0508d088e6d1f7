"""A smoothed model: the mean of its logits over noise on the input, for gradients that jump from point to point.

Source: the smoothed attack of Pintor et al. 2022 against unstable predictions; Tramèr et al. 2020 (k-winners-take-all).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audit.errors import BadInput


class Smooth(nn.Module):
    """The mean of `model`'s logits over `k` images with normal noise of deviation `sigma`: (n, c, h, w) -> (n, classes).

    Noisy images are clamped to [0,1]. Noise comes from a generator of the adapter's own, seeded by `seed`. The answers
    are not the defense's; what they find is judged by it. Raises BadInput for k below 1 or sigma not positive.
    """

    def __init__(self, model: nn.Module, k: float = 20, sigma: float = 0.03, seed: float = 0) -> None:
        super().__init__()
        if not (k >= 1 and k == int(k)) or not sigma > 0:
            raise BadInput(
                f"k is {k} and sigma {sigma}, expected a whole number of at least 1 and a positive deviation"
            )
        self.model, self.k, self.sigma = model, int(k), float(sigma)
        self._dice = torch.Generator().manual_seed(int(seed))

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn((self.k, *x.shape), generator=self._dice).to(x.device, x.dtype)
        noisy = (x[None] + self.sigma * noise).clamp(0, 1).flatten(0, 1)
        logits: Tensor = self.model(noisy)
        return logits.view(self.k, len(x), -1).mean(0)
