"""The matrix of patients and diagnoses: `python -m tests.matrix [--suite adaptive] [--seed 0] [--quick] [-n 24]
[NAME ...]`.

Each patient (`tests.patients`) is audited as any model is, by nothing but what it answers. Printed is one line a patient:
the flaw planted, what was raised, how much robust accuracy the audit leaves and how much the attack by hand does. The
tables in docs/diagnoses.md are from such runs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from audit import execution, registry
from audit.diagnoses import kind_of_masking
from audit.runner import run
from audit.suites import SUITES
from audit.summary import Audit
from audit.types import Step, Suite
from tests.patients import PATIENTS, Patient

RAISED = ("flagged", "resolved")
ABOVE = (
    0.3  # what the patient's authors claim above what the attack by hand leaves: little enough to be upheld if it stood
)
LEAST = 0.05  # and at least so far below the clean accuracy
SLACK = 0.02


@dataclass(frozen=True)
class Row:
    """What an audit said of a patient. raised: the diagnoses that fired, blocking ones first."""

    patient: Patient
    audit: Audit

    @property
    def raised(self) -> dict[str, bool]:
        fired = [d for d in self.audit.diagnoses if d.status in RAISED]
        return {d.name: d.blocking for d in sorted(fired, key=lambda d: not d.blocking)}

    @property
    def problems(self) -> list[str]:
        """What is wrong with the diagnosis: the planted flaw not seen, or a blocking one that is not there."""
        expected = {self.patient.flag, *self.patient.allowed}
        missed = (
            [f"{self.patient.flag} not raised"] if self.patient.flag and self.patient.flag not in self.raised else []
        )
        return missed + [f"{name} raised" for name, blocks in self.raised.items() if blocks and name not in expected]

    def __str__(self) -> str:
        also = ", ".join(name for name, blocks in self.raised.items() if blocks and name != self.patient.flag) or "-"
        by_hand = "" if self.patient.by_hand is None else f"{self.patient.by_hand:.1%}"
        claimed = self.audit.claimed.accuracy if self.audit.claimed else float("nan")
        return (
            f"| {self.patient.name} | {self.patient.flag or '-'} | {kind_of_masking(self.audit.results) or '-'} | {also} | "
            f"{claimed:.1%} | {self.audit.adaptive.accuracy:.1%} | {by_hand} | {self.audit.verdict.outcome} | "
            f"{'; '.join(self.problems) or 'as it should'} |"
        )


def claimed(patient: Patient) -> float:
    """A robust accuracy that is false, and that an audit would uphold if the patient's masked gradient stood."""
    by_hand = patient.clean if patient.by_hand is None else patient.by_hand
    return max(min(by_hand + ABOVE, patient.clean - LEAST), 0.0)


def examined(
    patient: Patient, suite: str, seed: int, out: Path, n: int | None = None, steps: tuple[Step, ...] | None = None
) -> Row:
    """Audit a patient on its own images, or the first n; the models of known answer are left out, they are the same for
    all. steps: in place of the suite's, with nothing that acts on what is found.
    """
    x, y = patient.images(n)
    with _registered(patient), _named(suite, _ill(patient) if steps is None else steps) as name:
        audit = run(
            model=patient.build(), data=(x, y), suite=name, n=len(x), eps=patient.eps, seed=seed, out=out,
            dataset=None if patient.classes else "fashion_mnist", claim_robust=claimed(patient), claim_clean=patient.claimed_clean,
        )  # fmt: skip
    return Row(patient, audit)


def _ill(patient: Patient) -> tuple[Step, ...] | None:
    """Where an attack is the patient, its authors run it and nothing else, as papers do."""
    return None if patient.attack is None else (Step(patient.attack.name, patient.attack.name, "claimed", "all"),)


@contextmanager
def _registered(patient: Patient) -> Iterator[None]:
    """The patient's attack under its name, where it is one, and only here: suite full holds every registered attack."""
    attacks = registry.attacks._targets
    mine = {} if patient.attack is None else {patient.attack.name: f"tests.patients.attackers:{patient.name}"}
    attacks.update(mine)
    try:
        yield
    finally:
        for name in mine:
            del attacks[name]


@contextmanager
def _named(suite: str, steps: tuple[Step, ...] | None) -> Iterator[str]:
    """The name under which an audit finds these steps; the suite's own where they are None."""
    if steps is None:
        yield suite
        return
    suites = cast("dict[str, Any]", SUITES)
    suites["bare"] = Suite("bare", "these steps alone", steps)
    try:
        yield "bare"
    finally:
        del suites["bare"]


def models(names: Iterable[str] = ()) -> list[Patient]:
    """The patients that are models, or those named."""
    return [PATIENTS[name] for name in names] or [p for p in PATIENTS.values() if p.attack is None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="diagnose")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int, help="the first n images (default: as many as the patient's figures are for)")
    parser.add_argument(
        "--quick", action="store_true", help="without the binarisation test, which costs random models minutes"
    )
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    execution.run_controls = lambda plan, device: []  # type: ignore[assignment]
    if asked.quick:
        execution.binarised = lambda plan, prepared, view: []  # type: ignore[assignment]
    print(
        "| patient | planted | kind | blocks besides | CE attacks leave | audit leaves | by hand | verdict | |\n"
        + "|---" * 9
        + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for patient in models(asked.names):
            print(examined(patient, asked.suite, asked.seed, Path(folder) / patient.name, asked.n), flush=True)


if __name__ == "__main__":
    main()
