"""The nouns of an audit, frozen and free of torch, so that reports and CI never load it.

Accuracies are fractions in [0,1], never percent. `eps` is in pixel units of images in [0,1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Literal

from audit.errors import BadInput

Norm = Literal["Linf", "L2", "L1", "L0"]
NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1", "L0")
# Of a random defense, the draws that choose among an image's adversarial images. With 20, what a dozen attacks left of a
# random resize stood two points above what one of them left (one run).
SELECTION_DRAWS = 100
TRAITS = frozenset({"stochastic", "nondifferentiable", "test_time_optimisation", "rejects", "stateful"})


def parse_eps(text: str | float, norm: Norm = "Linf") -> float:
    """Read a radius as typed: `8/255`, `1.2/255`, `0.031` or a number.

    Raises BadInput when it is not a number, not positive, larger than the box under Linf, or less than one pixel value
    under L0.
    """
    try:
        over, *under = map(Fraction, str(text).replace(" ", "").split("/"))
        (below,) = under or (Fraction(1),)
        eps = float(over / below)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise BadInput(f"eps is {text!r}, expected a number or a fraction; type for example --eps 8/255") from None
    if not math.isfinite(eps) or eps <= 0:
        raise BadInput(f"eps is {text}, expected a positive radius; did you mean 8/255?")
    if norm == "L0" and eps < 1:
        raise BadInput(
            f"eps is {text}, expected a number of pixel values of at least 1 for L0; type for example --eps 10"
        )
    if norm == "Linf" and eps > 1:
        guess = f"{text}/255" if eps <= 255 else "8/255"
        raise BadInput(f"eps is {text}, expected a radius in (0,1] for images in [0,1]; did you mean {guess}?")
    return eps


def show_eps(eps: float) -> str:
    """A radius as the field writes it: `8/255` where it is one, else four digits."""
    over = eps * 255
    return f"{round(over)}/255" if abs(over - round(over)) < 1e-6 and 0.5 <= over < 255 else f"{eps:.4g}"


@dataclass(frozen=True, slots=True)
class ThreatModel:
    """What the adversary may do: a ball of radius `eps` in `norm` around each image, inside `bounds`."""

    norm: Norm = "Linf"
    eps: float = 8 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    goal: Literal["untargeted"] = "untargeted"
    knowledge: Literal["white-box", "black-box"] = "white-box"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise BadInput(f"norm is {self.norm!r}, expected one of {', '.join(NORMS)}; type --norm Linf")
        parse_eps(self.eps, self.norm)

    def __str__(self) -> str:
        return f"{self.norm} {show_eps(self.eps)}"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the authors say, and where: robust accuracy under a named attack.

    `basis` tells what kind of number it is: "paper" (printed for this very data set, network and eps), "typed"
    (by the user), or "measured" (what the claim's own attacks measure on the model at hand).
    `params` are the options printed for the attack. `route` says which attack of a defense with a test-time part the
    number is for, by transfer or end to end; empty where nobody says.
    """

    defense: str
    dataset: str
    architecture: str
    threat: ThreatModel
    attack: str
    robust_acc: float
    source: str
    clean_acc: float | None = None
    tolerance: float = 0.02
    basis: Literal["paper", "typed", "measured"] = "paper"
    params: Mapping[str, Any] = field(default_factory=dict)
    route: Literal["", "transfer", "end-to-end"] = ""

    def __post_init__(self) -> None:
        for name, value in (("robust accuracy", self.robust_acc), ("clean accuracy", self.clean_acc)):
            if value is not None and not 0 <= value <= 1:
                raise BadInput(f"the claimed {name} is {value}, expected a fraction in [0,1]; type 0.865 for 86.5 %")


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy with its 95 % Clopper-Pearson interval: `correct` of `n` images.

    For a stochastic defense `correct` is the sum over images of P(correct), a real number.
    """

    correct: float
    n: int
    accuracy: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.accuracy:.1%} [{low:.1%}, {high:.1%}]"


def bounded(word: str, figure: str, unknown: int) -> str:
    """A figure that unknown images make a bound: `at most 9.5%, 3 unknown`. As it is when there are none."""
    return f"{word} {figure}, {unknown} unknown" if unknown else figure


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """An adapter by name with its parameters, so that a step is plain data."""

    name: str
    params: Mapping[str, float | str] = field(default_factory=dict)


BESIDE = "transfer-"  # what the name of a step by transfer begins with that goes beside one of the suite, end to end
BARE = "base"  # the adapter that shows an attack the bare network of a defense with a test-time part
Scope = Literal["all", "survivors", "trial", "control"]


@dataclass(frozen=True, slots=True)
class Step:
    """One attack of a suite: which, through which adapters, with which parameters, on which images.

    `scope`: "all" attacks every correctly classified image and keeps the image that the attack returned (the
    way the papers measure); "survivors" attacks what no earlier step has broken and stops at the first success;
    "trial" tries an adapter on the first `limit` images, so that trials can be compared, and what it breaks counts;
    "control" has no say in the accuracy: it attacks `limit` images with radius `eps` and must break them all.
    `after`: earlier steps of scope "all" of which this one is the continuation; it attacks only what none of the images
    that they returned broke (`audit.cascade`), and its figure is that of all of them together.
    `late`: dear, so it waits until what was found before the first attack has been acted on.
    """

    name: str
    attack: str
    suite: str
    scope: Scope = "survivors"
    adapters: tuple[AdapterSpec, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    eps: float | None = None
    limit: int | None = None
    why: str = ""
    after: tuple[str, ...] = ()
    late: bool = False

    @property
    def transfers(self) -> bool:
        """Are its images made against the bare network and then judged by the whole defense ("grey")?"""
        return any(adapter.name == BARE for adapter in self.adapters)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; `after` and `late` only where they say something."""
        return {name: value for name, value in asdict(self).items() if name not in ("after", "late") or value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Step:
        adapters = tuple(AdapterSpec(a["name"], a["params"]) for a in data["adapters"])
        return cls(**{**data, "adapters": adapters, "after": tuple(data.get("after", ()))})


@dataclass(frozen=True, slots=True)
class Round:
    """What an audit found in the results so far, and the steps that it adds because of it.

    found: a sentence for each finding; remedies: the diagnoses that the steps answer to; early: they run before the
    late steps of the suite.
    """

    number: int
    found: tuple[str, ...]
    remedies: tuple[str, ...]
    steps: tuple[Step, ...]
    early: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Round:
        steps = tuple(Step.from_dict(step) for step in data["steps"])
        return cls(
            int(data["number"]), tuple(data["found"]), tuple(data["remedies"]), steps, bool(data.get("early", False))
        )


@dataclass(frozen=True, slots=True)
class Suite:
    """Ordered steps, cheap to dear.

    images: how many to audit unless told, and of a random defense `random_images`; None: as many as there are. rounds: how many rounds of remedies may follow.
    controlled: are its attacks tried out on models whose answer is known?
    """

    name: str
    summary: str
    steps: tuple[Step, ...]
    images: int | None = None
    random_images: int | None = None
    rounds: int = 0
    controlled: bool = False


DiagnosisStatus = Literal["clear", "flagged", "resolved", "not_measured"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One reason that the numbers may lie. A blocking one that is flagged forbids the verdict "upheld"."""

    name: str
    status: DiagnosisStatus
    value: float | None
    threshold: float
    samples: int
    sentence: str
    remedy: str
    blocking: bool
    reference: str


Outcome = Literal["upheld", "refuted", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the audit concludes, with the reasons in plain words. `unknown` counts images nobody could judge."""

    outcome: Outcome
    reasons: tuple[str, ...]
    unknown: int = 0
