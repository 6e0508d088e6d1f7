"""The line of Python that repeats a run of what only a Python session holds: a model, or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audit.models.spec import Declared
from audit.sources import ARRAYS, OWN_IMAGES
from audit.types import Claim, parse_eps, show_eps

PLAIN = ("data_dir", "weights", "network", "width")


def of_a_session(record: Mapping[str, Any]) -> bool:
    """Did the run take its model or its images from a Python session, which no command line can name?"""
    return bool(record.get("session")) or record["data"] == ARRAYS


def python_line(
    identity: Mapping[str, Any], record: Mapping[str, Any], settings: Sequence[str], claim: Claim | None,
    claim_clean: float | None, line: str | None = None,
) -> str:  # fmt: skip
    """A call of `audit.run` with the session's objects as `model`, `x` and `y`, and a comment that says what they are.

    record: see `Sources.record`; line: the id of the paper's line under audit.
    """
    eps, declared = show_eps(identity["eps"]), Declared.recorded(record.get("declared", {}))
    arrays, session = record["data"] == ARRAYS, bool(record.get("session"))
    given: dict[str, Any] = {
        "suite": identity["suite"], "dataset": None if identity["dataset"] == OWN_IMAGES else identity["dataset"],
        "data": None if arrays else record["data"], **{name: record[name] for name in PLAIN},
        "inference": tuple(record.get("inference", ())), "traits": declared.traits, "n": identity["n"],
        "eps": eps if parse_eps(eps, identity["norm"]) == identity["eps"] else identity["eps"], "norm": identity["norm"],
        "seed": identity["seed"], "batch_size": identity["batch_size"], "settings": tuple(settings),
        "claim_clean": claim_clean, "claim": line,
    }  # fmt: skip
    if claim is not None and claim.basis == "typed":
        given |= {"claim_robust": claim.robust_acc, "claim_attack": claim.attack}
    beside = session and bool(record.get("described"))
    words = [
        ("model=model, defense=defense" if beside else "model=model") if session else repr(identity["defense"]),
        *(["data=(x, y)"] if arrays else []),
    ]
    words += [f"{name}={value!r}" for name, value in given.items() if value not in (None, "", ())]
    if declared.preprocessing is not None:
        words.append(f"preprocessing=audit.{declared.preprocessing!r}")
    model = [f"model: the {identity['defense']}"] if session else []
    images = ["x, y: the images and labels"] if arrays else []
    model += ["defense: what describes it"] if beside else []
    return f"audit.run({', '.join(words)})  # {'; '.join(model + images)} of that Python session"
