"""Test-time purification: the classifier attacks its own prediction of the image that it received.

TPAP, Eq. 6-9: predict a label, take one FGSM step away from it, classify the result. An overfitted network answers
rightly on FGSM images, so a right prediction should survive the step; of a wrong one the step should get rid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.errors import BadInput, BadWeights
from defenses.adversaries import input_gradient, nearest_other, prediction_gradient, within
from defenses.inference import OFF, Variants, pixels, positive, whole
from defenses.staged import Asking, Staged

XI = 8 / 255
VARIANTS = Variants(
    "purify",
    {"fgsm": ("xi",), "pgd": ("xi", "steps", "step_size"), "cw": ("c", "steps", "lr"), OFF: ()},
    {"xi": pixels, "step_size": pixels, "steps": whole, "c": positive, "lr": positive},
    frozenset({"nondifferentiable", "test_time_optimisation"}),
)


class SignPurifier(Asking):
    """Eq. 6-8: images x (n, c, h, w) in [0,1] -> x + xi * sign(gradient of CE(f(x), argmax f(x))), in [0,1].

    More than one step makes it a purification by PGD (one reading of Table 7, see `purified_by`), on the label predicted first, each step projected to
    the ball of xi around x; there is no random start, so the map stays deterministic. The clamp to [0,1] is the
    public code's. An image whose gradient is zero is left unchanged, since sign(0) = 0: a saturated softmax
    (probability 1 in float32) is not purified. The result is detached: by itself the deployed model has no gradient
    with respect to its input. Weights and their `.grad` are not touched. The network must be in evaluation mode.
    """

    def __init__(self, network: nn.Module, xi: float = XI, *, steps: int = 1, step_size: float | None = None) -> None:
        super().__init__(network)
        self.xi, self.steps = xi, steps
        self.step_size = xi if step_size is None else step_size

    def forward(self, x: Tensor) -> Tensor:
        start = x.detach()
        label, gradient = prediction_gradient(self.network, start)
        purified = within(start + self.step_size * gradient.sign(), start, self.xi)
        for _ in range(self.steps - 1):
            gradient = input_gradient(self.network, purified, label)
            purified = within(purified + self.step_size * gradient.sign(), start, self.xi)
        return purified.detach()

    def unrolled(self, temperature: float) -> UnrolledPurifier:
        """The same map with a derivative; see `UnrolledPurifier`."""
        return UnrolledPurifier(self, temperature)


class UnrolledPurifier(nn.Module):
    """The map of a `SignPurifier`, differentiable, for attacks through the purification.

    sign(g) is replaced by tanh(g / (temperature * mean |g|)) with the mean over each image; it tends to sign(g) as
    the temperature tends to 0. Gradients of the gradient are kept. An image whose gradient is zero is left
    unchanged, as in the exact map. Raises BadInput for a temperature that is not positive.
    """

    def __init__(self, exact: SignPurifier, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise BadInput(f"temperature is {temperature}, expected a positive number such as 0.1")
        self.exact, self.temperature = exact, temperature

    def forward(self, x: Tensor) -> Tensor:
        network, keep = self.exact.network, torch.is_grad_enabled()
        with torch.no_grad():
            label = network(x).argmax(1)
        purified = x
        for _ in range(self.exact.steps):
            with torch.enable_grad():
                leaf = purified if purified.requires_grad else purified.detach().requires_grad_()
                loss = F.cross_entropy(network(leaf), label, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, leaf, create_graph=keep)
            purified = within(purified + self.exact.step_size * self._soft_sign(gradient), x, self.exact.xi)
        return purified

    def _soft_sign(self, gradient: Tensor) -> Tensor:
        size = gradient.abs().flatten(1).mean(1).view(-1, *[1] * (gradient.ndim - 1))
        moves = size > 0
        scale = self.temperature * torch.where(moves, size, torch.ones_like(size))
        return torch.where(moves, (gradient / scale).tanh(), torch.zeros_like(gradient))


class CWPurifier(Asking):
    """Carlini and Wagner's L2 attack on the network's own prediction, in place of FGSM (see `purified_by`).

    The map is `defenses.adversaries.nearest_other`: the nearest image found that the network predicts otherwise, and the
    image itself where there is none. c, steps and lr are the usual defaults of libraries (1, 50, 0.01); the paper states
    none. Deterministic; the result is detached.
    """

    def __init__(self, network: nn.Module, c: float = 1.0, steps: int = 50, lr: float = 0.01) -> None:
        super().__init__(network)
        self.c, self.steps, self.lr = c, steps, lr

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            label = self.network(x).argmax(1)
        return nearest_other(self.network, x, label, self.c, self.steps, self.lr)


def purified_by(network: nn.Module, inference: Mapping[str, Any]) -> nn.Module:
    """The deployed defense: `network` behind the purification that `inference` names.

    purify: "fgsm" (the paper's), "pgd", "cw", or "none", which is the network itself (Table 6). Table 7 replaces FGSM by PGD-10 and CW; its rows are headed
    "Training", and the text leaves open whether the purification changes with it: this is for those who think so, the
    recipes "paper-pgd-10" and "paper-cw" train. xi: the radius of the first two;
    steps, step_size: of PGD; c, steps, lr: of CW. Raises BadWeights for a purification that does not exist.
    """
    kind, xi = inference["purify"], float(inference.get("xi", XI))
    if kind == "fgsm":
        return Staged(network, SignPurifier(network, xi))
    if kind == "pgd":
        steps, size = int(inference.get("steps", 10)), float(inference.get("step_size", xi / 4))
        return Staged(network, SignPurifier(network, xi, steps=steps, step_size=size))
    if kind == "cw":
        given = {name: inference[name] for name in VARIANTS.kinds["cw"] if name in inference}
        return Staged(network, CWPurifier(network, **given))
    if kind == OFF:
        return network
    raise BadWeights(f"the manifest names purification {kind!r}, expected fgsm, pgd, cw or none; check its 'inference'")
