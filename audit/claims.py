"""Which number a run is held against: typed, printed in the paper for this very model, or none yet. Torch-free."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from audit import registry
from audit.auditable import in_a_ball
from audit.claimed import UNNAMED, by_hand, runnable
from audit.errors import BadInput
from audit.papers import PaperClaim, claims_of, find
from audit.protocols import Checkpoint, Defense
from audit.types import Claim, ThreatModel, parse_eps

BOUNDLESS = ("robust_accuracy", "success_rate", "mean_distance", "noise_accuracy")
MOVING = (
    "st-adv",
    "fwa",
)  # they move pixels: a radius stands beside them in TPAP, and its code does not hold them to it
OWN_IMAGES = "images of your own"


def own_claims(known: Defense) -> tuple[Claim, ...]:
    """The robust accuracies that a defense's own paper prints for it: those it brings, and those of `audit.papers`."""
    printed = (line.judged() for line in claims_of(known.name, own=True))
    return (*known.claims, *(claim for claim in printed if claim is not None))


def told_claims(known: Defense, dataset: str) -> list[dict[str, Any]]:
    """Every robust accuracy that is printed for a defense, as a report keeps it: `Claim` as plain data, and `own`.

    own: its own paper puts it forward; False for what other papers print of it. Those for this data set come first, and
    among them its own.
    """
    lines = ((line.judged(), line.own) for line in claims_of(known.name))
    told = [*((claim, True) for claim in known.claims), *((claim, own) for claim, own in lines if claim is not None)]
    told.sort(key=lambda found: (found[0].dataset != dataset, not found[1]))
    return [{**asdict(claim), "own": own} for claim, own in told]


def boundless_claims(known: Defense) -> list[dict[str, Any]]:
    """What is printed of a defense's resistance without a radius, counted by table: `paper`, `table` and `count`.

    These are accuracies, success rates and distances of least-norm attacks, and accuracies under noise.
    """
    lines = (c for c in claims_of(known.name) if c.quantity in BOUNDLESS and c.value is not None and not c.eps_text)
    counted = Counter((c.origin.paper, c.origin.table) for c in lines)
    return [{"paper": paper, "table": table, "count": count} for (paper, table), count in counted.items()]


def printed_claims(known: Defense, dataset: str, checkpoint: Checkpoint, threat: ThreatModel) -> list[Claim]:
    """The paper's claims that speak of this very data set, network and threat. Never of images of one's own."""
    network = (checkpoint.architecture.get("name"), checkpoint.architecture.get("width"))
    return [
        c for c in own_claims(known) if c.dataset == dataset and c.threat == threat and network == (c.architecture, 1.0)
    ]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user says of the claim: a number typed, its attack and its clean accuracy, or a line of a paper.

    Raises BadInput for a clean accuracy that is no fraction.
    """

    robust: float | None = None
    attack: str = UNNAMED
    clean: float | None = None
    line: PaperClaim | None = None

    def __post_init__(self) -> None:
        if self.clean is not None and not 0 <= self.clean <= 1:
            raise BadInput(f"--claim-clean is {self.clean}, expected a fraction in [0,1]; type 0.91 for 91 %")


def stated_claim(
    asked: Asked, known: Defense, dataset: str, checkpoint: Checkpoint, threat: ThreatModel, *, own_images: bool
) -> Claim | None:
    """The claim that was typed, else the line asked for, else the paper's lowest for this model, else None.

    None leaves the claim to be measured. Numbers under attacks that the paper's own code holds in no Linf ball count only
    where they are asked for. own_images: no printed claim speaks of them. Raises BadInput for a line about
    another network; one that names none is for any.
    """
    if asked.robust is not None:
        name = str(checkpoint.architecture.get("name", "unknown"))
        return Claim(known.name, dataset, name, threat, asked.attack, asked.robust, "typed", asked.clean, basis="typed")
    if asked.line is not None:
        if asked.line.architecture:  # Madry et al. and others name no network
            network = f"{checkpoint.architecture.get('name')} of width {checkpoint.architecture.get('width')}"
            _same(asked.line, "network", f"{asked.line.architecture} of width 1.0", network)
        return asked.line.judged()
    claims = [] if own_images else printed_claims(known, dataset, checkpoint, threat)
    claims = [claim for claim in claims if not claim.attack.startswith(MOVING)]
    return min(claims, key=lambda c: c.robust_acc, default=None)


def expected_clean(checkpoint: Checkpoint, typed: float | None) -> float | None:
    """The clean accuracy to hold the model against: typed, else recorded after training."""
    recorded: float | None = checkpoint.measured.get("clean_accuracy")
    return recorded if typed is None else typed


def meant(
    claim: str | None, defense: str | None, dataset: str | None, *, at_hand: bool
) -> tuple[str | None, str | None]:
    """The defense and the data set of a run: those typed, else those of the line that `--claim` names.

    at_hand: the user brought weights. Raises UnknownName for no such line; BadInput when no run could audit the line, or
    it is for a data set for which its defense has no weights.
    """
    if claim is None:
        return defense, dataset
    line = find(claim)
    in_a_ball(line)
    runnable(line)
    defense = defense or line.defense
    if defense not in registry.defenses.names() or dataset is not None or defense != line.defense or at_hand:
        return defense, dataset or line.dataset
    known = registry.defenses.load(defense)
    shipped = [*getattr(known, "zoo", ()), *getattr(known, "external", ())]
    if line.dataset not in shipped:
        other = f"--dataset {shipped[0]} --defense {defense} {by_hand(line, defense)}" if shipped else "another --claim"
        raise BadInput(
            f"claim {claim} is for {defense} on {line.dataset}, for which no weights are shipped; type --weights FILE, or {other}"
        )
    return defense, line.dataset


def chosen_line(
    name: str | None, defense: str, dataset: str, typed: float | None, *, own_images: bool = False
) -> PaperClaim | None:
    """The line of a paper that `--claim` names, None without one. own_images: the run is for images from a file.

    Raises UnknownName for no such line; BadInput for one that is no robust accuracy in a ball, is for another defense or
    data set than the run, or comes with a second claim (`typed`).
    """
    if name is None:
        return None
    line = find(name)
    if typed is not None:
        raise BadInput(f"--claim {name} and --claim-robust {typed} are two claims, expected one; leave one of them out")
    in_a_ball(line)
    _same(line, "defense", line.defense, defense)
    _same(line, "data set", line.dataset, OWN_IMAGES if own_images else dataset)
    return line


def radius(line: PaperClaim | None, eps: float | str | None, norm: str) -> float | str | None:
    """The radius to audit: a typed one, else that of the line, else None.

    Raises BadInput for a radius or norm that is none, and when the line is for another.
    """
    if eps is not None:
        ThreatModel(norm, parse_eps(eps, norm))  # type: ignore[arg-type]
    if line is None or line.eps is None:
        return eps
    _same(line, "norm", line.norm, norm)
    if eps is not None and abs(parse_eps(eps, line.norm) - line.eps) > 1e-6:  # type: ignore[arg-type]
        _same(line, "eps", line.eps_text, str(eps))
    return line.eps


def _same(line: PaperClaim, what: str, theirs: str, ours: str) -> None:
    if theirs == ours:
        return
    flag = {"data set": f"--dataset {theirs}", "network": "--weights of such a network"}.get(what, f"--{what} {theirs}")
    advice = f"leave out --data and type {flag}" if ours == OWN_IMAGES else f"type {flag}"
    defense = ours if what == "defense" else line.defense
    raise BadInput(
        f"claim {line.id} is for {what} {theirs}, this run for {ours}; {advice}, or hold this run to the number all "
        f"the same with {by_hand(line, defense)}"
    )
