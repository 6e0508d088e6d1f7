"""A small network that learns what a part of a model does, to give it a gradient. Source: Athalye et al. 2018, Sec. 4.1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters import draws
from audit.errors import BadInput

HIDDEN, STEPS, ROWS, RATE, REACH = 32, 300, 64, 5e-3, 0.1


def stand_in(
    substitute: Callable[[Tensor], Tensor], function: Callable[[Tensor], Tensor], x: Tensor,
    layers: Sequence[nn.Module], before: draws.State,
) -> Tensor:  # fmt: skip
    """What `substitute` answers for x (n, ...), fitted to `function` first where it is to be learned.

    It draws what `function` drew from the state `before`, and leaves the generators of `before` where it found them, as
    if it had not been there. layers: the random parts of `function`, which may draw row by row (`adapters.draws`).
    """
    after = [(generator, generator.get_state()) for generator, _ in before]
    draws.restore(before)
    if isinstance(substitute, Learned) and not substitute.fitted:
        with draws.of_no_row(layers):
            substitute.fit(function, x)
        draws.restore(before)
    answer = substitute(x)
    draws.restore(after)
    return answer


class Learned(nn.Module):
    """A surrogate of a function on tensors (n, ...), fitted to its answers around the inputs that it is shown.

    Three convolutions where input and answer are feature maps of one height and width, else one hidden layer. Fitted
    once, by Adam on the mean squared error, on the given inputs under uniform noise of up to 0.1; seeded, so the same
    inputs give the same surrogate. `fitted` tells whether that has happened, `rows_asked` how many answers it took.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed, self.fitted, self.rows_asked = seed, False, 0
        self.net: nn.Module = nn.Identity()
        self._shape: torch.Size = torch.Size()

    def fit(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        """Learn `function` around x (n, ...). Torch's global generators are as before, but for what `function` draws."""
        dice = torch.Generator(device=x.device).manual_seed(self.seed)
        x = x.detach()[:ROWS]
        self.rows_asked += len(x) * (1 + STEPS)
        with torch.no_grad():
            answer = function(x)
        if not answer.is_floating_point():
            raise BadInput(f"a part that answers with {answer.dtype} cannot be learned, expected floating point")
        self._shape = answer.shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)  # torch.manual_seed would reseed every GPU, too
            self.net = _network(x.shape[1:], self._shape).to(x.device, x.dtype)
        scale = float(answer.abs().amax().clamp(min=1e-6))
        chooser = torch.optim.Adam(self.net.parameters(), RATE)
        for _ in range(STEPS):
            near = x + REACH * (2 * torch.rand(x.shape, generator=dice, device=x.device, dtype=x.dtype) - 1)
            with torch.no_grad():
                wanted = function(near.clamp(0, 1) if float(x.amin()) >= 0 and float(x.amax()) <= 1 else near)
            with torch.enable_grad():
                loss = F.mse_loss(self(near) / scale, wanted / scale)
                chooser.zero_grad()
                loss.backward()
            chooser.step()
        self.requires_grad_(False)
        self.fitted = True

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)
        return answer.view(len(x), *self._shape)


def _network(given: torch.Size, answer: torch.Size) -> nn.Module:
    if len(given) == len(answer) == 3 and given[1:] == answer[1:]:
        return nn.Sequential(
            nn.Conv2d(given[0], HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(HIDDEN, HIDDEN, 1), nn.ReLU(),
            nn.Conv2d(HIDDEN, answer[0], 1),
        )  # fmt: skip
    return nn.Sequential(
        nn.Flatten(), nn.Linear(given.numel(), 8 * HIDDEN), nn.ReLU(), nn.Linear(8 * HIDDEN, answer.numel())
    )
