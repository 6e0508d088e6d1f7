"""What the paper claims beside what was measured here, and which claims nothing here speaks of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from audit.types import show_eps
from reports.wording import attack_figure, fair, percent

ELSEWHERE = {"data set", "images", "eps", "norm"}


def beside(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row for each printed claim about these images and this ball: its number, and what its attack left here.

    Keys: source, attack, clean, robust, measured, differs (the network or its width, where these are not the paper's).
    """
    rows = []
    for claim in data["paper_claims"]:
        differs = fair(claim, data)
        if not ELSEWHERE & set(differs.split(", ")):
            rows.append({
                "source": claim["source"], "attack": claim["attack"], "clean": percent(claim["clean_acc"]),
                "robust": percent(claim["robust_acc"]), "measured": _measured(claim["attack"], data), "differs": differs,
            })  # fmt: skip
    return rows


def elsewhere(data: Mapping[str, Any]) -> list[str]:
    """A sentence for each data set, network and ball that the paper's other claims are for."""
    others = (c for c in data["paper_claims"] if ELSEWHERE & set(fair(c, data).split(", ")))
    groups = Counter(
        (c["dataset"], c["architecture"], f"{c['threat']['norm']} {show_eps(c['threat']['eps'])}") for c in others
    )
    return [
        f"{count} printed claim{'s are' if count > 1 else ' is'} for {dataset}{f' with {network}' if network else ''} at "
        f"{ball}; nothing here speaks of {'them' if count > 1 else 'it'}."
        for (dataset, network, ball), count in groups.items()
    ]


def _measured(label: str, data: Mapping[str, Any]) -> str:
    """The accuracy under the attack of a claim, such as `pgd-20`; of AutoAttack, what its suite leaves."""
    if label == "autoattack" and data["run"]["suite"] == "standard":
        return _shown(percent(data["adaptive"]["accuracy"]), data["adaptive"]["interval"])
    ran = [a for a in data["attacks"] if a["scope"] == "all" and label in _labels(a)]
    return _shown(attack_figure(ran[0]), ran[0]["interval"]) if ran else "its attack was not run"


def _labels(attack: Mapping[str, Any]) -> tuple[str, ...]:
    length = attack["params"].get("steps", attack["params"].get("n_iter"))
    return attack["attack"], f"{attack['attack']}-{length}"


def _shown(figure: str, interval: list[float] | None) -> str:
    return figure if interval is None else f"{figure} [{interval[0]:.1%}, {interval[1]:.1%}]"
