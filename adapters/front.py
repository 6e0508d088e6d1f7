"""BPDA for all that a model does before its network, whether that is a submodule or code in its forward pass.

Source: Athalye, Carlini and Wagner 2018, Sec. 4.1. Where `adapters.bpda` needs the name of each part without a useful
gradient, this adapter needs only the network behind them: it watches what the network is given, and hands the gradient
there back to the images through a substitute.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters import draws, structure
from adapters.bpda import Instead, Substitute, substitute_named
from adapters.learned import stand_in
from adapters.parts import watching
from audit.errors import BadInput


class Front(nn.Module):
    """`model` with another backward pass before `network`: images (n, c, h, w) in [0,1] -> logits (n, k).

    network: dotted path of a submodule whose last answer in a forward pass is the model's; see
    `adapters.parts.last_network`. substitute: what stands for everything before it: "identity" or "binomial_blur",
    where the network is given tensors of the images' shape; "learned", a small network fitted in the first pass; or in
    Python any callable. Forward is the exact model, and a random one draws what it draws alone: the
    substitute repeats those draws, and the generators end as if it had not been there. Raises BadInput for unknown names, where the network took no part
    in a pass or saw another number of rows, and where shapes differ.
    """

    def __init__(self, model: nn.Module, network: str, substitute: str | Substitute = "identity") -> None:
        super().__init__()
        self.model, self.path = model, structure.find(model, network)
        self.substitute = substitute_named(substitute)
        self._layers = draws.noise_layers(model)

    def forward(self, x: Tensor) -> Tensor:
        before = draws.save(self._layers)
        with torch.no_grad():
            exact, given = self._exact(x.detach())
        if not (torch.is_grad_enabled() and x.requires_grad):
            return exact
        after = [(generator, generator.get_state()) for generator, _ in before]
        smooth = stand_in(self.substitute, lambda images: self._exact(images)[1], x, self._layers, before)
        if smooth.shape != given.shape:
            raise BadInput(
                f"the substitute gives shape {tuple(smooth.shape)} where {self.path!r} is given {tuple(given.shape)}; "
                "use substitute 'learned'"
            )
        logits = self.model.get_submodule(self.path)(Instead.apply(smooth, given))
        draws.restore(after)  # the second pass through the network is not one of the model's own
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
