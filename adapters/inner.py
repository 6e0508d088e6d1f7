"""The network found inside a defense that does not say what its parts are."""

from __future__ import annotations

from torch import Tensor, nn

from adapters import structure


class Inner(nn.Module):
    """The submodule at the dotted path `network` of `model`: images (n, c, h, w) in [0,1] -> logits (n, k).

    Its answers are not the defense's: the audit tries each image on the whole defense. A defense whose parts are known
    by the convention of `audit.protocols.Defense` uses adapter base. Raises BadInput for an unknown path.
    """

    def __init__(self, model: nn.Module, network: str) -> None:
        super().__init__()
        self.model = model.get_submodule(structure.find(model, network))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits
