"""Do this audit's attacks do what is known of them on models whose answer is known?"""

from __future__ import annotations

from audit.diagnoses.common import status
from audit.results import Results
from audit.types import Diagnosis

FEWER = (
    3  # times the tolerance: an attack may be stronger than AutoAttack, but not by so much that its ball must be wrong
)


def reference_controls(results: Results) -> Diagnosis:
    """An undefended network must fall, and a robust one must land where AutoAttack does.

    It blocks where it was measured. Where there is no such network for the images and the norm, the unbounded control alone
    shows that the attack can break this model.
    """
    controls = results.checks.get("controls") or []
    weak = [
        c for c in controls if not c["expected"] - FEWER * c["tolerance"] <= c["left"] <= c["expected"] + c["tolerance"]
    ]
    said = "; ".join(
        f"{c['attack']} leaves {c['left']} of {c['n']} images of {c['reference']} at eps {c['eps']:.3g}, "
        f"expected {c['expected']} give or take {c['tolerance']}"
        for c in controls
    )
    return Diagnosis(
        "reference_controls", status(bool(weak)) if controls else "not_measured",
        float(len(weak)) if controls else None, 0.0, sum(int(c["n"]) for c in controls),
        said or _why(results),
        "use more steps and restarts, or another attack: this one is too weak", bool(controls),
        "Carlini et al. 2019, validate the attack on a model known to be broken",
    )  # fmt: skip


def _why(results: Results) -> str:
    if results.checks and "controls" not in results.checks:
        return "this suite does not try its attack on models whose answer is known"
    return "no model whose answer is known is at hand for these images and this norm"
