"""The rounds of a run on disk: what each found, and the steps that it added. Torch-free.

A round is decided from the results before it and written before its first unit runs. A resumed run reads it back and
does not decide again, so its plan is the one that it began with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from audit.errors import PlanMismatch
from audit.ledger import write_json
from audit.types import Round

FILE = "rounds.json"


def write_rounds(run_dir: Path, fingerprint: str, rounds: Sequence[Round]) -> None:
    """Store all rounds so far, in one file, atomically. Raises CannotWrite."""
    stored = [found.to_dict() for found in rounds]
    write_json(run_dir / FILE, {"plan": fingerprint, "rounds": stored, "digest": _digest(fingerprint, stored)})


def read_rounds(run_dir: Path, fingerprint: str) -> tuple[Round, ...]:
    """The rounds of a run directory; none where there is no file.

    Raises PlanMismatch when the file cannot be read, was altered, or belongs to another plan.
    """
    path = run_dir / FILE
    try:
        data = json.loads(path.read_text())
        rounds = tuple(Round.from_dict(found) for found in data["rounds"])
        intact = data["plan"] == fingerprint and data["digest"] == _digest(fingerprint, data["rounds"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanMismatch(
            f"{path} cannot be read ({error!r}), expected the rounds of this run; start anew with --out"
        ) from error
    if not intact:
        raise PlanMismatch(
            f"{path} was altered or belongs to another plan; restore it or start anew with --out DIRECTORY"
        )
    return rounds


def _digest(fingerprint: str, rounds: Sequence[object]) -> str:
    return hashlib.sha256((fingerprint + json.dumps(rounds, sort_keys=True)).encode()).hexdigest()
