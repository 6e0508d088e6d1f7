"""What a binarisation test found. Free of torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from audit.stats import estimate
from audit.types import Estimate, Step

THRESHOLD = 0.95  # Zimmermann et al. 2022: an attack that passes finds at least so many
TOO_EASY = 0.9  # where blind tries find so many, a pass says little
REFERENCE = "Zimmermann et al. 2022, Increasing Confidence in Adversarial Robustness Evaluations"
Outcome = Literal["found", "missed", "setup failed", "crashed"]


@dataclass(frozen=True)
class Settings:
    """How the two-class problems are built.

    inner: points inside, the image itself among them; at most one fewer than there are features, so that a separating
    layer exists. far: points at distance eps; extra_far: further ones at `beyond` * eps, which no attack may use.
    reach: the share of eps that inner points keep to. where: "surface" or "corners", see `points.at_distance`.
    spread: "adaptive" gives the two logits the range of the defense's own, "fixed" a range of 1. closeness: how near
    the threshold moves to the far point, in [0,1). most_tries: the most that the random attacker may have.

    The defaults are those of the published runs (with corners, as they had for robust models), but for the closeness
    (0.9999 there; float32 has to tell the two apart) and for the cap on inner points. Of a random defense half the points
    are draws of the far one, and the threshold keeps its distance from their median: no single draw is typical.
    """

    inner: int = 999
    far: int = 1
    extra_far: int = 0
    reach: float = 0.95
    beyond: float = 1.5
    where: str = "corners"
    spread: str = "adaptive"
    closeness: float = 0.999
    most_tries: int = 1000


@dataclass(frozen=True)
class BinarisationTest:
    """The same attack on n two-class models, each with an adversarial image by construction.

    outcomes, images: one for each image tried, with its index. found: adversarial images of the attack, judged by the
    exact model. random_found: those of a random attacker with `tries` tries each. features: how many the last layer
    gets; inner: how many points inside each fit had; hardened: were the models made harder because a random attacker
    found too many? error: what an attack that crashed said; an image it crashed on was not found.
    """

    step: Step
    norm: str
    eps: float
    seed: int
    outcomes: tuple[Outcome, ...]
    images: tuple[int, ...]
    random_found: int
    tries: int
    features: int
    inner: int
    hardened: bool
    settings: Settings
    error: str | None = None

    @property
    def n(self) -> int:
        """How many images were tried."""
        return len(self.outcomes)

    @property
    def setup_failed(self) -> int:
        """For how many of them no two-class model with an adversarial image came about."""
        return self.outcomes.count("setup failed")

    @property
    def tested(self) -> int:
        return self.n - self.setup_failed

    @property
    def asr(self) -> Estimate | None:
        """The attack's success rate with its interval; None where nothing could be tested."""
        return estimate(self.outcomes.count("found"), self.tested) if self.tested else None

    @property
    def random_asr(self) -> float | None:
        return self.random_found / self.tested if self.tested else None

    @property
    def passed(self) -> bool:
        """Did the attack find at least 95 % (the point estimate, as in the paper)? False where nothing was tested."""
        return self.asr is not None and self.asr.accuracy >= THRESHOLD

    @property
    def sentence(self) -> str:
        if self.asr is None:
            return (
                f"{self.step.name} could not be tested: for none of {self.n} images is there a two-class last layer on "
                f"{self.features} features that tells its neighbourhood from a point at eps"
            )
        low, high = self.asr.interval
        found = (
            f"{self.step.name} finds {self.asr.accuracy:.1%} of the adversarial examples that exist by construction "
            f"(n = {self.tested}, [{low:.1%}, {high:.1%}]); expected at least {THRESHOLD:.0%}: "
        )
        if not self.passed:
            return found + "the attack is what failed" + (f" ({self.error})" if self.error else "")
        assert self.random_asr is not None
        easy = f", but a random attacker finds {self.random_asr:.1%}, so that says little"
        return found + "the attack passes" + (easy if self.random_asr >= TOO_EASY else "")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: what was asked, what came out, and each image's outcome."""
        return {
            "name": self.step.name, "attack": self.step.attack, "params": dict(self.step.params),
            "adapters": [asdict(adapter) for adapter in self.step.adapters],
            "norm": self.norm, "eps": self.eps, "seed": self.seed,
            "n": self.n, "setup_failed": self.setup_failed,
            "asr": None if self.asr is None else self.asr.accuracy,
            "interval": None if self.asr is None else list(self.asr.interval),
            "random_asr": self.random_asr, "random_tries": self.tries,
            "threshold": THRESHOLD, "passed": self.passed, "sentence": self.sentence, "error": self.error,
            "outcomes": list(self.outcomes), "images": list(self.images),
            "features": self.features, "inner": self.inner, "hardened": self.hardened,
            "settings": asdict(self.settings), "reference": REFERENCE,
        }  # fmt: skip
