"""What the rules of `audit.remedies` look at: the results so far, and what was diagnosed from them. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audit.results import Results
from audit.rules import AVERAGED
from audit.step_results import StepResult
from audit.types import AdapterSpec, Diagnosis


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    results: Results
    found: Mapping[str, Diagnosis]

    def raised(self, *names: str) -> list[Diagnosis]:
        """Those of the named diagnoses that fired, whether or not something resolved them since."""
        return [self.found[n] for n in names if n in self.found and self.found[n].status in ("flagged", "resolved")]

    def has(self, step: str) -> bool:
        return any(s.name == step for s in self.results.plan.steps)

    @property
    def stochastic(self) -> bool:
        return self.results.plan.draws > 1

    @property
    def staged(self) -> bool:
        return bool(self.results.plan.identity.get("staged"))

    @property
    def alive(self) -> int:
        return int(self.results.survives_all.sum())

    @property
    def trials(self) -> list[StepResult]:
        """The ways round that were tried, best first; of equals the earlier."""
        tried = [r for r in self.results.steps if r.step.scope == "trial"]
        return sorted(tried, key=lambda r: -int(r.broken.sum()))

    @property
    def view(self) -> tuple[AdapterSpec, ...]:
        """The adapters through which the strongest gradient attack so far saw the defense.

        A way that was tried counts where it broke more of its images than all attacks before it had.
        """
        return self._best_of(self.trials)

    @property
    def whole(self) -> tuple[AdapterSpec, ...]:
        """As `view`, of the ways on which an attack sees the whole defense and not the network inside it."""
        return self._best_of([r for r in self.trials if all(a.name != "inner" for a in r.step.adapters)])

    def _best_of(self, trials: list[StepResult]) -> tuple[AdapterSpec, ...]:
        if trials and int(trials[0].broken.sum()) > self._fallen_before(trials[0]):
            return trials[0].step.adapters
        main = [s for s in self.results.plan.steps if s.name == "apgd-margin"]
        return main[0].adapters if main else ()

    def _fallen_before(self, trial: StepResult) -> int:
        """How many of the images of a trial had fallen before the first trial."""
        first = next(i for i, r in enumerate(self.results.steps) if r.step.scope == "trial")
        standing = self.results.steps[first - 1].alive_after if first else self.results.correct
        return int((trial.attacked & ~standing).sum())

    def through(self, *adapters: AdapterSpec) -> tuple[AdapterSpec, ...]:
        """Adapters for this defense: averaged over draws where it is random."""
        return (*adapters, AVERAGED) if self.stochastic else adapters
