"""The classifier of a defense without its test-time part, which is what many papers attack."""

from __future__ import annotations

from torch import Tensor, nn

from audit.errors import BadInput


class Base(nn.Module):
    """The bare network of a staged `model`: images (n, c, h, w) in [0,1] -> logits (n, k) of `model.network`.

    Its answers are the network's, not the defense's: what breaks it breaks the defense only by transfer. Raises
    BadInput when the model has no such part.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        network = getattr(model, "network", None)
        if not isinstance(network, nn.Module):
            raise BadInput(
                f"{type(model).__name__} has no bare network, expected a module named 'network'; "
                "put adapter base before all others, or leave it out for a defense of one stage"
            )
        self.model = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits
