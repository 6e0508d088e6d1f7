"""What a defense declares about itself, and which steps must have run before it may be upheld.

Each of these traits has hidden gradients before (Athalye et al. 2018), so a declaration blocks until the attacks
that fit it have run to their end without a crash.
"""

from __future__ import annotations

from collections.abc import Callable

from audit.diagnoses.common import averaged, status, through
from audit.results import Results
from audit.routes import end_to_end_ran
from audit.types import Diagnosis

Needs = dict[str, bool]
SURROGATE = "run a step through BPDA or unrolling, one made on the bare network (adapter base), and Square end to end"


def declared_traits(results: Results) -> tuple[Diagnosis, ...]:
    """One blocking diagnosis per declared trait, in alphabetical order; none for a defense that declares none."""
    return tuple(_declared(results, trait) for trait in sorted(results.plan.identity.get("traits", ())))


def end_to_end(results: Results) -> tuple[Diagnosis, ...]:
    """A defense with a test-time part must be attacked as a whole; empty for a plain network."""
    if not results.plan.identity.get("staged"):
        return ()
    ran = end_to_end_ran(results)
    return (Diagnosis(
        "end_to_end", status(not ran), float(ran), 1.0, len(results.correct),
        "an attack saw the whole defense" if ran else "no attack that saw the whole defense has run without a crash",
        "run --suite adaptive: images made on the bare network say little about an attacker who knows the defense", True,
        "Croce et al. 2022, arXiv 2202.13711",
    ),)  # fmt: skip


def _declared(results: Results, trait: str) -> Diagnosis:
    needs, remedy, reference = RULES.get(trait, UNKNOWN)
    missing = [what for what, there in needs(results).items() if not there]
    words = trait.replace("_", " ")
    lack = f"and these did not run without a crash: {', '.join(missing)}" if missing else "and every step it needs ran"
    return Diagnosis(
        f"declared_{trait}", status(True, resolved=not missing), float(len(missing)), 0.0, len(results.correct),
        f"the defense declares that it is of the kind '{words}', {lack}", remedy, True, reference,
    )  # fmt: skip


def _stochastic(results: Results) -> Needs:
    return {"a step that averages over draws (EOT)": averaged(results)}


def _no_attack_yet(_: Results) -> Needs:
    return {"attacks that know of it (there are none yet)": False}


ATHALYE = "Athalye et al. 2018, arXiv 1802.00420"
UNKNOWN = (_no_attack_yet, "attack it by hand: no step here fits this trait", "Tramer et al. 2020, arXiv 2002.08347")
RULES: dict[str, tuple[Callable[[Results], Needs], str, str]] = {
    "stochastic": (_stochastic, "run a step with the adapter eot, or with eot_iter above 1", f"{ATHALYE}, Sec. 4.2"),
    "nondifferentiable": (through, SURROGATE, f"{ATHALYE}, Sec. 4.1"),
    "test_time_optimisation": (through, SURROGATE, "Croce et al. 2022, arXiv 2202.13711"),
    "rejects": (
        _no_attack_yet,
        "attack the detector and the classifier together by hand: no step here does, so surviving proves nothing",
        "Carlini and Wagner 2017, arXiv 1705.07263",
    ),
    "stateful": (
        _no_attack_yet,
        "attack fresh copies of the defense by hand: no step here resets its memory, so surviving proves nothing",
        "Tramer et al. 2020, arXiv 2002.08347",
    ),
}
