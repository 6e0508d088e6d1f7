"""What every wrapped attack gets: checks before and after, a random stream of its own, and the loss that many share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from audit.errors import BadInput, Unsupported
from audit.registry import closest
from audit.rng import Stream
from audit.types import Norm, ThreatModel

T = TypeVar("T")
Function = Callable[..., Tensor]
Cost = Callable[[Mapping[str, Any]], tuple[int, int]]
Check = Callable[[Mapping[str, Any]], None]
Reach = float | Mapping[Norm, float]
Fits = Callable[[ThreatModel, Sequence[int]], str]


class BrokenAttack(RuntimeError):
    """An attack returned something that is not an image batch: the unit becomes an error, never robustness."""


@dataclass(frozen=True)
class WrappedAttack:
    """A library's attack behind the `Attack` protocol. Made by the `attack` decorator.

    reach: how far, as a multiple of the distance to the boundary, the contract lets it come (`audit.testing`), for all
    norms or by norm, 1.25 for those not named. share: the least share of the images that it must break there. An attack
    that asks for more than 1.25 or less than 1 says why in its docstring. checks: what `check` calls with every option.
    fits: what stands in the way of images of shape (c, h, w) under a threat model; empty for nothing.
    """

    name: str
    library: str
    kind: Literal["budget", "minimal"]
    norms: tuple[Norm, ...]
    needs: Literal["gradient", "scores", "decision"]
    reference: str
    function: Function
    passes: Cost
    reach: Reach = 1.25
    share: float = 1.0
    checks: Check | None = None
    fits: Fits = lambda _threat, _shape: ""

    def __post_init__(self) -> None:
        """The docstring is the function's, and ends with the reference."""
        said = inspect.cleandoc(self.function.__doc__ or "")
        object.__setattr__(self, "__doc__", f"{said}\n\nReference: {self.reference}.".lstrip())

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Every option with its default."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "seed"}

    def cost(self, params: Mapping[str, Any]) -> tuple[int, int]:
        return self.passes({**self.defaults, **params})

    def check(self, params: Mapping[str, Any]) -> None:
        """Raise BadInput for options that the attack would refuse: a run says so before its first unit."""
        if self.checks is not None:
            self.checks({**self.defaults, **params})

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, **options: Any
    ) -> Tensor:
        """Adversarial candidates for images x (n, c, h, w) in [0,1] with labels y (n,); same shape, float32.

        Raises Unsupported for a norm, BadInput for an option that the attack does not have, BrokenAttack when the
        library returns another shape.
        """
        if threat.norm not in self.norms:
            raise Unsupported(
                f"attack {self.name!r} supports {', '.join(self.norms)}, not {threat.norm}; choose another --norm"
            )
        for option in options:
            if option not in self.defaults:
                hint = closest(option, sorted(self.defaults)) if self.defaults else "it has none."
                raise BadInput(f"attack {self.name!r} has no option {option!r}: {hint}")
        with Stream(seed), torch.enable_grad():
            result = self.function(model, x.clone(), y.clone(), threat, seed=seed, **options)
        return checked(self.name, result, x)


def checked(name: str, result: Any, x: Tensor) -> Tensor:
    """What the attack `name` returned for images x, as float32. Raises BrokenAttack when it is no batch like x.

    Rows with NaN pass: the engine counts each such image as unknown and keeps the others.
    """
    if not isinstance(result, Tensor) or result.shape != x.shape:
        raise BrokenAttack(
            f"attack {name!r} returned {getattr(result, 'shape', type(result))}, expected {tuple(x.shape)}"
        )
    return result.detach().float()


def attack(
    name: str,
    *,
    library: str,
    norms: tuple[Norm, ...],
    needs: Literal["gradient", "scores", "decision"],
    reference: str,
    cost: Cost,
    kind: Literal["budget", "minimal"] = "budget",
    reach: Reach = 1.25,
    share: float = 1.0,
    check: Check | None = None,
    fits: Fits = lambda _threat, _shape: "",
) -> Callable[[Function], WrappedAttack]:
    """Turn `f(model, x, y, threat, *, seed, <options>)` into a registered attack.

    A "minimal" function returns for each image the nearest adversarial one it found, wherever that lies: eps does not
    hold it back. Where it found none, the row is the clean image. check: raises BadInput for options that `f` would
    refuse, given all of them. reach, share, fits: see `WrappedAttack`.
    """

    def wrap(function: Function) -> WrappedAttack:
        return WrappedAttack(name, library, kind, norms, needs, reference, function, cost, reach, share, check, fits)

    return wrap


def choice(attack: str, option: str, value: str, known: Mapping[str, T]) -> T:
    """What an option of several named values stands for. Raises BadInput with the nearest known value."""
    if value not in known:
        raise BadInput(f"attack {attack!r} has no {option} {value!r}: {closest(value, sorted(known))}")
    return known[value]


def one_of(attack: str, option: str, known: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], None]:
    """The `check` of an attack with one option of several named values. It raises BadInput, as `choice` does."""

    def check(params: Mapping[str, Any]) -> None:
        choice(attack, option, params[option], known)

    return check
