"""BPDA for all that a model does before its network, whether that is a submodule or code in its forward pass.

Source: Athalye, Carlini and Wagner 2018, Sec. 4.1. Where `adapters.bpda` needs the name of each part without a useful
gradient, this adapter needs only the network behind them: it watches what the network is given, and hands the gradient
there back to the images through a substitute.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters import structure
from adapters.bpda import Instead, Substitute, substitute_named
from adapters.learned import Learned
from adapters.parts import watching
from audit.errors import BadInput


class Front(nn.Module):
    """`model` with another backward pass before `network`: images (n, c, h, w) in [0,1] -> logits (n, k).

    network: dotted path of a submodule whose last answer in a forward pass is the model's; see
    `adapters.parts.last_network`. substitute: what stands for everything before it: "identity" or "binomial_blur",
    where the network is given tensors of the images' shape; "learned", a small network fitted in the first pass; or in
    Python any callable. Forward is the exact model. Raises BadInput for unknown names, where the network took no part
    in a pass or saw another number of rows, and where shapes differ.
    """

    def __init__(self, model: nn.Module, network: str, substitute: str | Substitute = "identity") -> None:
        super().__init__()
        self.model, self.path = model, structure.find(model, network)
        self.substitute = substitute_named(substitute)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            exact, given = self._exact(x.detach())
        if not (torch.is_grad_enabled() and x.requires_grad):
            return exact
        if isinstance(self.substitute, Learned) and not self.substitute.fitted:
            self.substitute.fit(lambda images: self._exact(images)[1], x)
        stand_in = self.substitute(x)
        if stand_in.shape != given.shape:
            raise BadInput(
                f"the substitute gives shape {tuple(stand_in.shape)} where {self.path!r} is given {tuple(given.shape)}; "
                "use substitute 'learned'"
            )
        logits = self.model.get_submodule(self.path)(Instead.apply(stand_in, given))
        answer: Tensor = Instead.apply(logits, exact)
        return answer

    def _exact(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The model's logits, and what its network was given last."""
        with watching(self.model) as calls:
            logits = self.model(x)
        seen = [call.given for call in calls if call.path == self.path]
        if not seen or len(seen[-1]) != len(x):
            raise BadInput(
                f"module {self.path!r} was not called on all {len(x)} images in the forward pass, expected the network "
                "that answers for the whole model"
            )
        return logits, seen[-1]
