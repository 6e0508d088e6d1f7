"""How many passes of the defense one query of an adapted model costs, so that a budget counts them all."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adapters.eot import Eot
from adapters.learned import Learned
from adapters.smooth import Smooth


class Passes:
    """each: passes of a query of `model`, the product of k over the adapters that average (eot, smooth); 1 without any."""

    def __init__(self, model: nn.Module) -> None:
        self.each = math.prod(part.k for part in model.modules() if isinstance(part, Eot | Smooth))
        self._fitted = [part for part in model.modules() if isinstance(part, Learned)]
        self._seen = 0

    def shared(self, n: int) -> Tensor:
        """Rows for which learned surrogates asked since the last call, as a share for each of n images: int64 (n,)."""
        new = sum(part.rows_asked for part in self._fitted) - self._seen
        self._seen += new
        return new // max(n, 1) + (torch.arange(n) < new % max(n, 1)).long()
