"""Divide the logits by a temperature, so that a saturated cross-entropy has a gradient again.

The predicted class is unchanged. Source of the idea: Carlini and Wagner 2017 (their attack on defensive
distillation divides the logits), and Croce and Hein 2020, Sec. 4, on the scale invariance that CE lacks.
"""

from __future__ import annotations

from torch import Tensor, nn

from audit.errors import BadInput


class Rescale(nn.Module):
    """Logits (n, k) of `model` divided by `temperature` > 0. Raises BadInput for any other temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise BadInput(f"temperature is {temperature}, expected a positive number such as 100")
        self.model = model
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits / self.temperature
