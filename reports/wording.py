"""Sentences that the page and the markdown share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"


def sentence(text: str) -> str:
    """A reason as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def describe_params(attack: Mapping[str, Any]) -> str:
    """Adapters and parameters of a step in a few words."""
    adapters = [_named(a["name"], a["params"]) for a in attack["adapters"]]
    return ", ".join([*adapters, *(f"{k} = {v}" for k, v in attack["params"].items())])


def _named(name: str, params: Mapping[str, Any]) -> str:
    inner = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in params.items())
    return f"{name} ({inner})" if inner else name


def claim_line(data: Mapping[str, Any]) -> str:
    """What is under audit, and where the number comes from."""
    claim = data["claim"]
    if claim is None:
        return "No claim is under audit: the suite ran none of the attacks that a claim rests on."
    line = f"Under audit: {claim['robust_acc']:.1%} robust accuracy under {claim['attack']} ({claim['source']})."
    if claim["basis"] == "measured" and data["paper_claims"]:
        line += (
            " The paper's own numbers are for other data sets, networks or radii, so what its attacks measure on this"
            " model is audited instead; the paper's numbers stand below."
        )
    return line


def fair(claim: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """How a printed claim differs from what was audited; empty when it does not."""
    network = data["defense"]["architecture"]
    found = {
        "data set": (claim["dataset"], data["dataset"]["name"]),
        "network": (claim["architecture"], network.get("name")),
        "width": (1.0, network.get("width", 1.0)),
        "eps": (round(claim["threat"]["eps"], 6), round(data["threat"]["eps"], 6)),
        "norm": (claim["threat"]["norm"], data["threat"]["norm"]),
    }
    return ", ".join(name for name, (theirs, ours) in found.items() if theirs != ours)


def reproduce(data: Mapping[str, Any]) -> str:
    """The command that gives these records again."""
    command: str = (
        data["run"].get("command") or f"audit.run({data['defense']['name']!r}, suite={data['run']['suite']!r})"
    )
    return " ".join(command.split())
