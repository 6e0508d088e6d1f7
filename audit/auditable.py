"""Which printed numbers a run can be held against, and what to type for the others. Torch-free.

Of the least-norm attacks that papers report without a radius, images count at any distance. No radius that one could type
makes such a figure a claim about a ball: at a small one fewer images count, and at a large one everything falls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from audit.claim_lines import MADE_HERE, obstacle
from audit.claimed import FEW, attack_by_hand, by_hand
from audit.errors import BadInput
from audit.papers import PaperClaim

FAR = 10  # in L2: farther than least-norm attacks go on small images
# Of targeted attacks; the hardest of nine targets is no option.
CASES: Mapping[str, Mapping[str, str]] = {"best": {}, "average": {"target": "random"}}


def in_a_ball(line: PaperClaim) -> None:
    """Raise BadInput, with what to type instead, unless a line is a robust accuracy that a run can be held against.

    Lines that are the lower of white-box and transferred images pass: white-box images alone can refute them.
    """
    if line.judged() is not None and line.knowledge in MADE_HERE:
        return
    attacker = f", {line.knowledge or 'unknown'} attacker, eps {line.eps_text or 'not printed'}" if line.attack else ""
    note = f" ({line.note})" if line.note else ""
    others = f"type `python -m audit list claims --defense {line.defense}` for others"
    raise BadInput(
        f"claim {line.id} is {line.quantity.replace('_', ' ')} {line.printed}{attacker}{note}; expected a robust accuracy in a "
        f"ball of known radius, with images made for the very model; {'; '.join(filter(None, (_instead(line), others)))}"
    )


def _instead(line: PaperClaim) -> str:
    """What comes nearest to a line that no run can be held against, as flags; empty where nothing does."""
    if line.value is None:
        return ""
    if line.knowledge == "transfer":
        return (
            f"with a network to make them on: --claim-robust {line.value} --claim-attack transfer --eps {line.eps_text} "
            f"--set claimed-transfer.surrogate=MODEL --set claimed-transfer.by={line.attack}, there with its defaults"
        )
    if line.quantity == "robust_accuracy" and line.norm != "L2":
        return f"in a ball of your choice: {by_hand(line, line.defense)} --norm {line.norm} --eps RADIUS"
    return _far(line) if line.quantity in ("robust_accuracy", "success_rate", "mean_distance") else ""


def _far(line: PaperClaim) -> str:
    """How to run a least-norm attack in a ball that holds all its images; empty where it does not run on every image."""
    case = line.params.get("case", "best")
    params = {option: value for option, value in line.params.items() if option != "case"}
    wanted = replace(line, params={**params, **CASES.get(case, {"case": case})})
    if line.norm != "L2" or line.attack in FEW or obstacle(wanted, "L2"):
        return ""
    return (
        f"its images count at any distance: --defense {line.defense} --norm L2 --eps {FAR} --suite claimed "
        f"{attack_by_hand(wanted, line.defense)} shows what its attack leaves there and at which distances, and the verdict "
        "means nothing at such a radius"
    )
