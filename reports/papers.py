"""What the papers claim beside what was measured here, and which claims nothing here speaks of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from audit.leaderboard import AUTOATTACK, left_by_autoattack
from audit.types import show_eps
from reports.wording import attack_figure, fair, percent

ELSEWHERE = {"data set", "images", "eps", "norm"}
SENTENCES = 4  # on what claims about something else are for
NOT_RUN = "its attack was not run"


def beside(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row for each printed claim about these images and this ball: its number, and what its attack left here.

    Keys: source, attack, whose (the attack, with the source of a line of another paper), clean, robust, measured, differs
    (the network or its width, where these are not the paper's), network (the same in words).
    """
    rows = []
    for claim in data["paper_claims"]:
        differs = fair(claim, data)
        if not ELSEWHERE & set(differs.split(", ")):
            rows.append({
                "source": claim["source"], "attack": claim["attack"], "clean": percent(claim["clean_acc"]),
                "robust": percent(claim["robust_acc"]), "measured": _measured(claim, data), "differs": differs,
                "whose": claim["attack"] if claim.get("own", True) else f"{claim['attack']} ({claim['source']})",
                "network": _network(claim, differs),
            })  # fmt: skip
    return rows


def _network(claim: Mapping[str, Any], differs: str) -> str:
    if not claim["architecture"]:
        return "the paper names none"
    return f"no: another {differs}" if differs else "yes"


def elsewhere(data: Mapping[str, Any]) -> list[str]:
    """A sentence for each data set, network and ball that the other claims are for; those of this data set first.

    Of more than `SENTENCES` the rest is counted in one, and those that no radius goes with in another.
    """
    others = (c for c in data["paper_claims"] if ELSEWHERE & set(fair(c, data).split(", ")))
    groups = Counter(
        (c["dataset"], c["architecture"], f"{c['threat']['norm']} {show_eps(c['threat']['eps'])}") for c in others
    )
    named = sorted(groups.items(), key=lambda group: group[0][0] != data["dataset"]["name"])
    said = [
        _sentence(f"{dataset}{f' with {network}' if network else ''} at {ball}", count)
        for (dataset, network, ball), count in named[:SENTENCES]
    ]
    if rest := named[SENTENCES:]:
        sets = ", ".join(dict.fromkeys(dataset for (dataset, _, _), _ in rest))
        said.append(_sentence(f"{sets} with other networks or at other radii", sum(count for _, count in rest)))
    return [*said, *_boundless(data)]


def _boundless(data: Mapping[str, Any]) -> list[str]:
    """How many numbers papers print of the defense without a radius, and where, in one sentence; nothing without any."""
    tables = data["run"].get("boundless_claims", [])  # runs of earlier versions did not count them
    if not tables:
        return []
    places = ", ".join(dict.fromkeys(f"{t['paper']}, {t['table']}" for t in tables))
    count = sum(t["count"] for t in tables)
    go, them = ("numbers go", "they are") if count > 1 else ("number goes", "it is")
    return [f"{count} printed {go} with no radius, so {them} held against nothing here: {places}."]


def _sentence(what: str, count: int) -> str:
    many = count > 1
    return f"{count} printed claim{'s are' if many else ' is'} for {what}; nothing here speaks of {'them' if many else 'it'}."


def _measured(claim: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The accuracy under the very attack of a claim, by its route; of AutoAttack, what all four steps leave."""
    ran = [a for a in data["attacks"] if claim.get("route", "") in ("", a["route"])]
    if claim["attack"] == "autoattack":
        return _autoattack(data, ran)
    same = [a for a in ran if a["scope"] == "all" and not a.get("after") and _same(claim, a)]
    return _shown(attack_figure(same[0]), same[0]["interval"]) if same else NOT_RUN


def _autoattack(data: Mapping[str, Any], ran: list[Mapping[str, Any]]) -> str:
    """What the four parts leave together of all images: as the claim has them, else end to end in the suite of that name,
    else along the routes of `ran`.
    """
    chains = [last for last in ran if last["attack"] == "square" and last["accuracy"] is not None and _chain(last, ran)]
    claimed = [last for last in chains if last["suite"] == "claimed"]
    left = left_by_autoattack(data) if data["run"]["suite"] == "standard" else None
    if left is not None and not claimed and any(a["route"] == "end-to-end" for a in ran):
        return _shown(percent(left["accuracy"]), left["interval"])
    found = next(iter(claimed or chains), None)
    return NOT_RUN if found is None else _shown(attack_figure(found), found["interval"])


def _chain(last: Mapping[str, Any], ran: list[Mapping[str, Any]]) -> bool:
    """Does this part name the three before it, and did all four run whole?"""
    attacks = {a["name"]: a["attack"] for a in ran if a["done"] and not a["errors"]}
    parts = (last["name"], *last.get("after", ()))
    return {attacks.get(name) for name in parts} == AUTOATTACK


def _same(claim: Mapping[str, Any], attack: Mapping[str, Any]) -> bool:
    """Has this step the name and the length of a claim's attack, and every option that is printed for it?"""
    length = attack["params"].get("steps", attack["params"].get("n_iter"))
    named = claim["attack"] in (attack["attack"], f"{attack['attack']}-{length}")
    return named and all(attack["params"].get(option) == value for option, value in claim.get("params", {}).items())


def _shown(figure: str, interval: list[float] | None) -> str:
    return figure if interval is None else f"{figure} [{interval[0]:.1%}, {interval[1]:.1%}]"
