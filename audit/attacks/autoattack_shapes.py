"""What lets the Square attack of pyautoattack 0.2.0 take images of any size under L2 and L1."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from pyautoattack.square import SquareAttack
from torch import Tensor

PATCHES = 5  # the start is a grid of five rows of square patches, each a fifth as high as the image


def missing_rows(height: int, width: int) -> int:
    """Rows to add below an image so that its first patches fit; 0 where they fit as it is.

    The library begins the grid half of what five patches leave over from the upper and the left edge, but fills it with
    as many patches as fit into the whole: of 18 rows, six of three pixels from row 1, and the last leaves the image. Patches
    of a single pixel may: torch adds nothing there.
    """
    patch = height // PATCHES
    start = (height - PATCHES * patch) // 2
    if patch == 1 or (patch and all(start + patch * (side // patch) <= side for side in (height, width))):
        return 0
    return -height % PATCHES


class AnySize(SquareAttack):  # type: ignore[misc]
    """Where the first patches leave the image, it gets rows below that the model never sees and nothing may change.

    So patches at the lower edge are cut off there. Images whose patches fit are attacked as the library does it.
    """

    predict: Callable[[Tensor], Tensor]
    _rows: int | None = None

    def perturb(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Candidates for images x (n, c, h, w) with labels y (n,)."""
        rows = x.shape[2]
        missing = 0 if self.norm == "Linf" else missing_rows(rows, x.shape[3])
        if not missing:
            plain: Tensor = super().perturb(x, y)
            return plain
        inner, self._rows = self.predict, rows
        self.predict = lambda z: inner(z[:, :, :rows])
        try:
            found: Tensor = super().perturb(_padded(x, missing), y)
        finally:
            self.predict, self._rows = inner, None
        return found[:, :, :rows]

    def check_shape(self, x: Tensor) -> Tensor:
        """The library asks this of every image that it proposes, before it looks at its size or its loss."""
        batch: Tensor = super().check_shape(x)
        return batch if self._rows is None else _padded(batch[:, :, : self._rows], batch.shape[2] - self._rows)


def _padded(x: Tensor, rows: int) -> Tensor:
    return F.pad(x, (0, 0, 0, rows))
