"""Tiny models, and attacks that misbehave in one way each. What the machinery around attacks is tried on."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from audit.attacks.common import Function, WrappedAttack, attack
from audit.margins import margin_loss
from audit.types import ThreatModel


class TinyCNN(nn.Module):
    """Two convolutions and a head on 8 x 8 images, with fixed random weights; `scale` saturates the logits."""

    def __init__(self, *, classes: int = 4, channels: int = 1, scale: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(54, classes)
        dice = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.parameters():
                fan = weight[0].numel() if weight.ndim > 1 else 10
                weight.copy_(torch.randn(weight.shape, generator=dice) * (2 / fan) ** 0.5)
            self.head.weight.mul_(scale)
            self.head.bias.mul_(scale)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(4 * (x - 0.5)))


class Counting(nn.Module):
    """Counts the rows that pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.rows = model, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.model(x)


class Noisy(nn.Module):
    """Adds normal noise to the image, drawn anew in each pass."""

    def __init__(self, model: nn.Module, sigma: float = 0.05) -> None:
        super().__init__()
        self.model, self.sigma = model, sigma
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + self.sigma * torch.randn_like(x))


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above `level`, else class 0: an oracle one can do in one's head."""

    def __init__(self, level: float = 0.5, gain: float = 1.0) -> None:
        super().__init__()
        self.level, self.gain = level, nn.Parameter(torch.tensor(gain))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        score = self.gain * (x.flatten(1).mean(1) - self.level)
        return torch.stack([-score, score], 1)


class Staged(nn.Module):
    """`network` after `purifier`, like a defense with a test-time part."""

    def __init__(self, network: nn.Module, purifier: nn.Module) -> None:
        super().__init__()
        self.network, self.purifier = network, purifier
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.purifier(x))


class Quantise(nn.Module):
    """Rounds to multiples of 1/levels: a derivative of zero almost everywhere."""

    def __init__(self, levels: int = 8) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return (self.levels * x).round() / self.levels


class UniformNoise(nn.Module):
    """Adds uniform noise from [-width, width], each row's from its own generator where `generators` has one per row.

    `last` keeps the noise of the last pass.
    """

    def __init__(self, width: float = 0.1) -> None:
        super().__init__()
        self.width, self.generators, self.last = width, None, None

    def forward(self, x: Tensor) -> Tensor:
        if self.generators is None:
            unit = torch.rand_like(x)
        else:
            assert len(self.generators) == len(x)
            rows = [torch.rand(x.shape[1:], generator=g, dtype=x.dtype) for g in self.generators]
            unit = torch.stack(rows) if rows else torch.rand_like(x)
        self.last = self.width * (2 * unit - 1)
        return x + self.last


class SignStep(nn.Module):
    """One signed gradient step up the loss of the predicted class; holds the network in a tuple, unregistered."""

    def __init__(self, network: nn.Module, step: float = 0.1) -> None:
        super().__init__()
        self.held, self.step = (network,), step

    def gradient(self, x: Tensor, *, create_graph: bool) -> Tensor:
        with torch.enable_grad():
            x = x if create_graph else x.detach().requires_grad_()
            logits = self.held[0](x)
            loss = nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum")
            return torch.autograd.grad(loss, x, create_graph=create_graph)[0]

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.step * self.gradient(x, create_graph=False).sign()).clamp(0, 1)

    def unrolled(self, temperature: float) -> nn.Module:
        return SoftSignStep(self, temperature)


class SoftSignStep(nn.Module):
    """`SignStep` with tanh(g / temperature) for sign(g)."""

    def __init__(self, exact: SignStep, temperature: float) -> None:
        super().__init__()
        self.exact, self.temperature = exact, temperature

    def forward(self, x: Tensor) -> Tensor:
        gradient = self.exact.gradient(x, create_graph=True)
        return (x + self.exact.step * torch.tanh(gradient / self.temperature)).clamp(0, 1)


def images(model: nn.Module, n: int = 8, *, channels: int = 1, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random images (n, channels, 8, 8) with the labels that the model gives them."""
    x = torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return x, model(x).argmax(1)


def dark(n: int = 6) -> tuple[Tensor, Tensor]:
    """Grey images of brightness 0.4 to 0.48 and label 0: `Brightness` is fooled by adding a little over 0.02 to 0.1."""
    x = torch.linspace(0.4, 0.48, n).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone()
    return x, torch.zeros(n, dtype=torch.int64)


def _planted(name: str) -> Callable[[Function], WrappedAttack]:
    return attack(name, library="planted", norms=("Linf",), needs="gradient", reference="none", cost=lambda _: (1, 1))


@_planted("good")
def good(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """One step along the gradient of the margin."""
    x = x.requires_grad_()
    logits = model(x)
    own = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    (grad,) = torch.autograd.grad((other - own).sum(), x)
    return (x + threat.eps * grad.sign()).clamp(0, 1)


@_planted("retreating")
def retreating(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Asks for the far image and returns the clean one."""
    model(good.function(model, x, y, threat, seed=seed).detach())
    return x.detach()


@_planted("advancing")
def advancing(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Asks for the half of the way, and returns the far image, as the last step of PGD does."""
    found = good.function(model, x, y, threat, seed=seed)
    model(((x + found) / 2).detach())
    return found.detach()


@_planted("idle")
def idle(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    return x


@_planted("nan")
def nan(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    return x * float("nan")


@_planted("one-nan")
def one_nan(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """A good attack whose first image is no number."""
    found = good.function(model, x, y, threat, seed=seed)
    return torch.cat([found[:1] * float("nan"), found[1:]])


@_planted("remembers")
def remembers(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Leaves a buffer behind that no state dict holds."""
    model.register_buffer("last", y.clone(), persistent=False)
    return good.function(model, x, y, threat, seed=seed)


@_planted("cropped")
def cropped(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    return x[1:]


@_planted("leaves-ball")
def leaves_ball(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    wider = ThreatModel(threat.norm, 3 * threat.eps)
    return good.function(model, x, y, wider, seed=seed)


@_planted("never-clips")
def never_clips(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """The step of `good` without its last words: inside the box only where the images lie far from its edge."""
    x = x.requires_grad_()
    (grad,) = torch.autograd.grad(margin_loss(model(x), y).sum(), x)
    return x + threat.eps * grad.sign()


@_planted("reseeds")
def reseeds(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    torch.manual_seed(7)
    return good.function(model, x, y, threat, seed=seed)


@_planted("trains")
def trains(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Leaves the model in training mode."""
    model.train()
    return good.function(model, x, y, threat, seed=seed)


@_planted("retrains")
def retrains(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Moves a weight, in the mode that it found."""
    with torch.no_grad():
        next(model.parameters()).mul_(0.99)
    return good.function(model, x, y, threat, seed=seed)


@_planted("counts-in-a-buffer")
def counts(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Leaves a buffer behind, as a wrapper that keeps statistics would."""
    model.register_buffer("seen", torch.tensor(float(len(x))))
    return good.function(model, x, y, threat, seed=seed)


@_planted("traces")
def traces(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Watches the calls of the process, as AutoAttack's checks do, and goes on doing so."""
    sys.settrace(lambda frame, event, argument: None)
    return good.function(model, x, y, threat, seed=seed)


@_planted("overwrites")
def overwrites(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Writes its result over the images that it was given."""
    return x.data.copy_(good.function(model, x.clone(), y, threat, seed=seed))


@_planted("forgets-seed")
def forgets_seed(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Draws from a generator that no seed governs."""
    jitter = 1e-4 * torch.rand(x.shape, generator=torch.Generator().manual_seed(torch.Generator().seed() % 2**31))
    return (good.function(model, x, y, threat, seed=seed) - threat.eps * jitter).clamp(0, 1)


@_planted("passes-through")
def passes_through(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Asks about the brightest image of the ball, and returns the clean one."""
    model((x + threat.eps).clamp(0, 1))
    return x


@_planted("crashes")
def crashes(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    model(x)
    raise ValueError("planted")


@_planted("crashes-late")
def crashes_late(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    model((x + threat.eps).clamp(0, 1))
    raise ValueError("planted")


@_planted("interrupted")
def interrupted(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    raise KeyboardInterrupt


class Unwrapped:
    """An attack that keeps to the protocol by structure alone, without the checks that `attack` adds."""

    library, reference, needs = "planted", "none", "gradient"
    kind, norms, defaults = "budget", ("Linf",), {}

    def __init__(self, inner: WrappedAttack) -> None:
        self.name, self.inner = f"unwrapped-{inner.name}", inner

    def cost(self, params: object) -> tuple[int, int]:
        return 1, 1

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, **options: object
    ) -> Tensor:
        return self.inner.function(
            model, x if self.name.endswith("overwrites") else x.clone(), y, threat, seed=seed
        ).detach()


unwrapped_nan, unwrapped_cropped, unwrapped_reseeds = Unwrapped(nan), Unwrapped(cropped), Unwrapped(reseeds)
unwrapped_overwrites = Unwrapped(overwrites)
