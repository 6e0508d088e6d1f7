"""Attacks to train against, as parts of a recipe: Batch -> images (b, c, h, w) in [0,1].

They are local and small because defenses import no attack library; measurements use the registry's attacks. They maximise
cross-entropy at most eps from batch.x; Carlini and Wagner's alone looks for the nearest image wherever it lies. None
takes a gradient with respect to the weights, and all return detached images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.margins import margin_loss
from defenses.recipes import Batch, Loss

SUMMED: Loss = partial(F.cross_entropy, reduction="sum")


def input_gradient(network: nn.Module, x: Tensor, y: Tensor, loss: Loss = SUMMED) -> Tensor:
    """The gradient of the loss, the summed cross-entropy unless named, with respect to x (b, c, h, w)."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(network(leaf), y), leaf)
    return gradient


def prediction_gradient(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The network's own prediction (b,) for x and the gradient of its summed cross-entropy, from one forward pass."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(leaf)
        label = logits.detach().argmax(1)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, label, reduction="sum"), leaf)
    return label, gradient


def within(candidate: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest point of the Linf ball of radius eps around x and of the box [0,1]."""
    return torch.min(torch.max(candidate, x - eps), x + eps).clamp(0, 1)


def random_start(batch: Batch, radius: float) -> Tensor:
    """A uniformly random point of the Linf ball of that radius around batch.x, in the box; drawn from batch.seed."""
    dice = torch.Generator(batch.x.device).manual_seed(batch.seed)
    noise = torch.rand(batch.x.shape, generator=dice, device=batch.x.device, dtype=batch.x.dtype)
    return (batch.x + radius * (2 * noise - 1)).clamp(0, 1)


def ascend(batch: Batch, start: Tensor, eps: float, step: float, steps: int) -> Tensor:
    """`steps` steps of size `step` along the sign of the gradient, each projected to the ball and the box."""
    x = start
    for _ in range(steps):
        x = within(x + step * input_gradient(batch.network, x, batch.y).sign(), batch.x, eps)
    return x.detach()


def nearest_other(network: nn.Module, x: Tensor, y: Tensor, c: float, steps: int, lr: float) -> Tensor:
    """Carlini and Wagner's L2 attack with one constant, untargeted: images (b, c, h, w) that are not classified as y (b,).

    Adam minimises |x' - x|^2 + c * max(z_y - max of the others, 0) over x' = (tanh w + 1) / 2; of each image the nearest
    x' that the network does not classify as y is kept, and the image itself where there is none. `steps` images are looked
    at, of which the first is x. Detached.
    """
    x = x.detach()
    edge = 1 - torch.finfo(x.dtype).eps  # atanh is infinite at the box
    w = torch.atanh((2 * x - 1).clamp(-edge, edge)).requires_grad_()
    optimizer = torch.optim.Adam([w], lr=lr)
    best, nearest = x.clone(), torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)
    for _ in range(steps):
        with torch.enable_grad():
            candidate = (w.tanh() + 1) / 2
            logits = network(candidate)
            away = (candidate - x).square().flatten(1).sum(1)
            (w.grad,) = torch.autograd.grad((away + c * F.relu(-margin_loss(logits, y))).sum(), w)
        better = (logits.argmax(1) != y) & (away < nearest)
        best[better], nearest[better] = candidate.detach()[better], away.detach()[better]
        optimizer.step()
    return best


@dataclass(frozen=True)
class FGSM:
    """One step of eps (Goodfellow et al. 2015; SIM-Adv, Eq. 1-2).

    own_label: step away from the label that the network predicts and not from the true one, as ATDA's public code
    does (Kurakin et al. 2017 call the other choice label leaking).
    """

    eps: float
    own_label: bool = False

    def __call__(self, batch: Batch) -> Tensor:
        y = batch.y
        if self.own_label:
            with torch.no_grad():
                y = batch.network(batch.x).argmax(1)
        return within(batch.x + self.eps * input_gradient(batch.network, batch.x, y).sign(), batch.x, self.eps)


@dataclass(frozen=True)
class RFGSM:
    """R+FGSM: a random step of `first`, then one gradient step of eps - first (Tramèr et al. 2018, Eq. 7).

    The random step is the sign of Gaussian noise, so every pixel moves by `first`.
    """

    eps: float
    first: float

    def __call__(self, batch: Batch) -> Tensor:
        dice = torch.Generator(batch.x.device).manual_seed(batch.seed)
        noise = torch.randn(batch.x.shape, generator=dice, device=batch.x.device)
        start = (batch.x + self.first * noise.sign()).clamp(0, 1)
        return ascend(batch, start, self.eps, self.eps - self.first, 1)


@dataclass(frozen=True)
class BIM:
    """BIM(n1, n2): n2 steps of eps/n1 from the clean image (Kurakin et al. 2017; SIM-Adv, Eq. 3-4).

    Eq. 3 clips each step to eps, which a step of eps/n1 never reaches; the whole perturbation is clipped here, as in
    the cited paper and in CleverHans, since without it n2 > n1 would leave the ball that Sec. 2.1 demands.
    """

    eps: float
    n1: int
    n2: int

    def __call__(self, batch: Batch) -> Tensor:
        return ascend(batch, batch.x, self.eps, self.eps / self.n1, self.n2)


@dataclass(frozen=True)
class Madry:
    """Madry(n1, n2): BIM(n1, n2) from a uniformly random point of the ball (Madry et al. 2018; SIM-Adv, Sec. 2.1.2)."""

    eps: float
    n1: int
    n2: int

    def __call__(self, batch: Batch) -> Tensor:
        return ascend(batch, random_start(batch, self.eps), self.eps, self.eps / self.n1, self.n2)


@dataclass(frozen=True)
class CW:
    """Carlini and Wagner's L2 attack on the true label; see `nearest_other` (Carlini and Wagner 2017; TPAP, Table 7).

    Its images have no radius: a recipe's eps is then that of the attacks which measure. c, steps and lr are the usual
    defaults of libraries.
    """

    c: float = 1.0
    steps: int = 50
    lr: float = 0.01

    def __call__(self, batch: Batch) -> Tensor:
        return nearest_other(batch.network, batch.x, batch.y, self.c, self.steps, self.lr)
