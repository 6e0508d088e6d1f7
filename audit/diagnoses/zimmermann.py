"""Can the run's attack find an adversarial image that is certain to exist? Zimmermann et al. 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audit.binarisation.result import TOO_EASY
from audit.diagnoses.common import status, unmeasured
from audit.results import Results
from audit.types import Diagnosis

PASS = 0.95
FEWEST = 10  # problems; the others, of 32, could not be set up, as where a random model has no two passes alike


def binarisation(results: Results) -> Diagnosis:
    """Flagged when even the best of the attacks that were tested fails: it tests the attack, not the defense.

    Reads checks["binarisation"]: for each attack a mapping of name, attack, n, setup_failed, asr, interval, random_asr,
    passed; or of name and error where it crashed. An attack that had fewer than ten problems to solve was not tested. To
    pass where a random attacker solves nine in ten says nothing; to fail there says all the more. The paper speaks of a
    random attacker "near 1"; nine in ten is where the problems are made harder, too.
    """
    name, remedy, reference = "binarisation", "a stronger attack: more steps, another loss, BPDA or EOT (audit test-attack tries one)", "Zimmermann et al. 2022, arXiv 2206.13991"  # fmt: skip
    entries: Sequence[Mapping[str, Any]] = results.checks.get("binarisation") or ()
    tested = [e for e in entries if _solvable(e) >= FEWEST]
    telling = [e for e in tested if not e["passed"] or float(e["random_asr"]) < TOO_EASY]
    if not telling:
        why = _why(entries, tested)
        return unmeasured(name, why, remedy, reference, PASS)
    best = max(telling, key=lambda e: (bool(e["passed"]), float(e["asr"])))
    low, high = best["interval"]
    return Diagnosis(
        name, status(not best["passed"]), float(best["asr"]), PASS, _solvable(best),
        f"of test problems that have an adversarial image by construction, {best['name']} solves {best['asr']:.1%} "
        f"[{low:.1%}, {high:.1%}], a random attacker {best['random_asr']:.1%}", remedy, True, reference,
    )  # fmt: skip


def _solvable(entry: Mapping[str, Any]) -> int:
    """How many problems the attack had to solve."""
    return int(entry.get("n", 0)) - int(entry.get("setup_failed", 0))


def _why(entries: Sequence[Mapping[str, Any]], tested: Sequence[Mapping[str, Any]]) -> str:
    if tested:
        return "no test problem could tell an attack from random points"
    if not entries:
        return "the binarisation test has not run"
    crashed = next((str(e["error"]) for e in entries if "n" not in e), None)
    if crashed:
        return f"the binarisation test crashed: {crashed}"
    return f"{max(map(_solvable, entries))} test problems could be set up, expected at least {FEWEST}"
