"""The lines of the papers that name an attack on a defense, and why an attack cannot run as a paper ran it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from audit import registry
from audit.errors import MissingDependency, UnknownName
from audit.papers import PaperClaim, claims_of
from audit.types import ThreatModel, show_eps

UNSAID = {
    "cw": "it does not say which C&W attack",
    "targeted": "it does not say towards which class",
    **dict.fromkeys(("jsma-z", "jsma-f"), "no library has JSMA as its paper prints it (docs/attacks.md)"),
}
MADE_HERE = ("white", "grey", "", "white and transfer")  # images that are made for the very model, all or in part
PLACES = 3  # named in one sentence
APART: tuple[tuple[str, Callable[[PaperClaim], bool], str], ...] = (  # what `lines` passes over, by kind, and why
    ("", lambda c: c.knowledge == "transfer", "images made on another network; `--claim {0}` says how to bring one"),
    ("the transferred images of ", lambda c: c.knowledge == "white and transfer",
     "made on networks that are not at hand; only white-box images are tried"),
    ("", lambda c: c.quantity == "noise_accuracy", "random noise in no ball, which is no attack"),
    ("", lambda c: c.quantity == "success_rate" and not _easiest(c),
     "images towards a random or the hardest class; the easiest is what an attack without a target finds"),
)  # fmt: skip
LENGTHS = ("queries", "n_queries", "n_draws", "steps", "n_iter")  # of C&W Linf, which has two, the queries


def lines(defense: str, dataset: str) -> list[PaperClaim]:
    """One line for each attack and options that the claims on a defense name; those with a length first.

    Of targeted attacks the best case counts: the easiest target of all is what an attack without a target finds.
    """
    lines = [c for c in claims_of(defense) if c.knowledge in MADE_HERE]
    lines = [c for c in lines if c.quantity == "robust_accuracy" or _easiest(c)]
    lines = [c for c in lines if c.dataset == dataset] or lines
    first: dict[tuple[str, str], PaperClaim] = {}
    for line in lines:
        plain = replace(line, params={option: value for option, value in line.params.items() if option != "case"})
        first.setdefault((line.attack, json.dumps(plain.params, sort_keys=True)), plain)
    return sorted(first.values(), key=lambda c: not timed(c))


def passed_over(defense: str, dataset: str) -> tuple[str, ...]:
    """A sentence for each kind of line on a defense that suite "claimed" names no step for, those for the data set first."""
    found = claims_of(defense)
    said = []
    for what, fits, why in APART:
        kind = [c for c in found if fits(c)]
        kind = [c for c in kind if c.dataset == dataset] or kind
        if kind:
            more = f" and {len(kind) - 1} more are" if len(kind) > 1 else " is"
            said.append(f"{what}claim {kind[0].id}{more} left out: {why.format(kind[0].id)}")
    return tuple(said)


def borrowed(defense: str, dataset: str, threat: ThreatModel) -> tuple[str, ...]:
    """That the attacks of suite "claimed" come from claims for another data set or ball, in a sentence; else nothing."""
    found = lines(defense, dataset)
    if not found or any(c.dataset == dataset and _ball(c.norm, c.eps) == _ball(threat.norm, threat.eps) for c in found):
        return ()
    places = list(dict.fromkeys(f"{c.dataset} at {c.norm} {c.eps_text or 'no printed radius'}" for c in found))
    more = f" and {len(places) - PLACES} more" if len(places) > PLACES else ""
    return (
        f"the claimed attacks are those of claims for {', '.join(places[:PLACES])}{more}; none is for {dataset} at "
        f"{threat.norm} {show_eps(threat.eps)}",
    )


def _ball(norm: str, eps: float | None) -> tuple[str, float | None]:
    return norm, None if eps is None else round(eps, 6)


def timed(line: PaperClaim) -> bool:
    return any(name in line.params for name in LENGTHS)


def _easiest(line: PaperClaim) -> bool:
    return line.quantity == "success_rate" and line.params.get("case") == "best"


def obstacle(line: PaperClaim, norm: str) -> str:
    """Why an attack cannot run as a paper ran it; empty when it can."""
    if line.norm and line.norm != norm:
        return f"it is for {line.norm}, this run for {norm}"
    if line.attack == "autoattack":
        return ""
    try:
        known = registry.attacks.load(line.attack)
    except MissingDependency as error:
        return str(error)
    except UnknownName:
        return UNSAID.get(line.attack, f"there is no attack {line.attack!r} here")
    unknown = sorted(set(line.params) - set(known.defaults))
    if unknown:
        return UNSAID.get(unknown[0], f"attack {line.attack} has no option {unknown[0]!r}")
    return "" if norm in known.norms else f"attack {line.attack} supports {', '.join(known.norms)}, not {norm}"
