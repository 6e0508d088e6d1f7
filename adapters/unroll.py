"""Differentiate a purifier that is itself an optimisation: backward through its unrolled steps.

A purifier that takes signed gradient steps has a derivative of zero almost everywhere. It may offer a soft version of
itself, `unrolled(temperature) -> nn.Module`, whose derivative contains the network's second derivatives. The forward
pass stays the exact one (as in BPDA, `adapters.bpda`).
"""

from __future__ import annotations

from torch import Tensor, nn

from adapters import structure
from adapters.bpda import Bpda
from audit.errors import BadInput


class Unroll(nn.Module):
    """`model` with `module` differentiated through `module.unrolled(temperature)`: images (n, c, h, w) -> logits (n, k).

    temperature: positive, in the purifier's own units; the smaller, the closer to the exact purifier and the rougher.
    Raises BadInput for another temperature, an unknown module, or one without `unrolled`.
    """

    def __init__(self, model: nn.Module, temperature: float, module: str = "purifier") -> None:
        super().__init__()
        if not temperature > 0:
            raise BadInput(f"temperature is {temperature}, expected a positive number such as 0.01")
        mirrored = structure.mirror(model)
        part = mirrored.get_submodule(structure.find(mirrored, module))
        unrolled = getattr(part, "unrolled", None)
        if not callable(unrolled):
            raise BadInput(
                f"module {module!r} ({type(part).__name__}) has no method unrolled(temperature), expected a purifier "
                "that offers a differentiable version of itself; use adapter bpda instead"
            )
        self.model = Bpda(mirrored, modules=module, substitute=unrolled(temperature))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits
