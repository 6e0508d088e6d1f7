"""A declared preprocessing in front of a network, so that attacks and judge alike see images in [0,1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audit.errors import BadModel


class Preprocessed(nn.Module):
    """Images (n, c, h, w) in [0,1] -> logits (n, k) of `model` on resized, rescaled and normalised images.

    resize: (height, width), bilinear with antialiasing; value_range: what 0 and 1 become; mean, std: per channel, or
    one number for all, in units of that range. All steps are differentiable. Raises BadModel, when called, where the
    channels are not those of mean and std.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, *, mean: Sequence[float] = (), std: Sequence[float] = (),
        resize: tuple[int, int] | None = None, value_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.resize, self.value_range = model, resize, value_range
        for name, values in (("mean", tuple(mean) or (0.0,)), ("std", tuple(std) or (1.0,))):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values.shape[1] not in (1, x.shape[1]):
                raise BadModel(
                    f"the declared {name} has {values.shape[1]} channels, the images have {x.shape[1]}; type one number "
                    "for each channel, or one for all"
                )
        if self.resize is not None:
            x = nn.functional.interpolate(x, self.resize, mode="bilinear", antialias=True)
        low, high = self.value_range
        logits: Tensor = self.model((low + (high - low) * x - self.mean) / self.std)
        return logits
