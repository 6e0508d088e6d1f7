"""Which number a run is held against: typed, printed in the paper for this very model, or none yet. Torch-free."""

from __future__ import annotations

from audit.errors import BadInput
from audit.papers import claims_of
from audit.protocols import Checkpoint, Defense
from audit.types import Claim, ThreatModel


def own_claims(known: Defense) -> tuple[Claim, ...]:
    """The robust accuracies that a defense's own paper prints for it: those it brings, and those of `audit.papers`."""
    printed = (line.judged() for line in claims_of(known.name, own=True))
    return (*known.claims, *(claim for claim in printed if claim is not None))


def printed_claims(known: Defense, dataset: str, checkpoint: Checkpoint, threat: ThreatModel) -> list[Claim]:
    """The paper's claims that speak of this very data set, network and threat. Never of images of one's own."""
    network = (checkpoint.architecture.get("name"), checkpoint.architecture.get("width"))
    return [
        c for c in own_claims(known) if c.dataset == dataset and c.threat == threat and network == (c.architecture, 1.0)
    ]


def stated_claim(
    claims: list[Claim], typed: float | None, attack: str, clean: float | None, known: Defense, dataset: str,
    checkpoint: Checkpoint, threat: ThreatModel,
) -> Claim | None:  # fmt: skip
    """A typed claim wins; then the paper's lowest for this model; None leaves the claim to be measured.

    Raises BadInput for a clean accuracy (`clean`) that is no fraction.
    """
    if clean is not None and not 0 <= clean <= 1:
        raise BadInput(f"--claim-clean is {clean}, expected a fraction in [0,1]; type 0.91 for 91 %")
    if typed is not None:
        network = str(checkpoint.architecture.get("name", "unknown"))
        return Claim(known.name, dataset, network, threat, attack, typed, "typed", clean, basis="typed")
    return min(claims, key=lambda c: c.robust_acc, default=None)


def expected_clean(checkpoint: Checkpoint, typed: float | None) -> float | None:
    """The clean accuracy to hold the model against: typed, else recorded after training."""
    recorded: float | None = checkpoint.measured.get("clean_accuracy")
    return recorded if typed is None else typed
