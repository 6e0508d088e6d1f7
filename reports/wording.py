"""Sentences that the page and the markdown share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audit.diagnoses.index import INDEX, in_words
from audit.types import bounded

BOUNDS = {"claimed": "at least", "adaptive": "at most"}
UNMATCHED = (
    " No number of the paper is under audit: each is for another data set, images, network or radius, or this model falls"
    " short of it. They are listed or counted below."
)
NO_CLAIM = "No claim is under audit; the reason stands above."


def percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"


ROUTES = (
    ("bare", "bare network"), ("transfer", "by transfer"), ("first", "first success"), ("lowest", "lowest margin"),
    ("end_to_end", "end to end"),
)  # fmt: skip
STAR, DAGGER = " *", " †"
REFUSED = "refused: no attack saw the whole defense"


def route_cells(family: Mapping[str, Any]) -> list[str]:
    """The figures of one attack along its routes, as printed; marked where the last is a bound or another length's.

    Where images by transfer lowered the last, it says what the attack's own images leave.
    """
    cells = []
    for name, _ in ROUTES:
        figure = family[name]
        mark = _mark(family) + _by_itself(family) if name == "end_to_end" else STAR if family["cascade"] else ""
        low, high = figure["interval"] or (0, 0)
        absent = "not run" if name == "end_to_end" else ""
        cells.append(
            absent if figure["accuracy"] is None else f"{figure['accuracy']:.1%} [{low:.1%}, {high:.1%}]{mark}"
        )
    return cells


def _by_itself(family: Mapping[str, Any]) -> str:
    alone, both = family["alone"]["accuracy"], family["end_to_end"]["accuracy"]
    return "" if alone is None or alone == both else f" ({alone:.1%} by its own images)"


def _mark(family: Mapping[str, Any]) -> str:
    """A star where only survivors were attacked, a dagger where the attack ran end to end with other parameters."""
    own = (None, f"e2e-{family['attack']}", family["attack"])
    return (STAR if family["cumulative"] else "") + ("" if family["step"] in own else DAGGER)


def routes_note(data: Mapping[str, Any]) -> str:
    """What the table of routes says, in one paragraph."""
    counts = (
        "the lowest of the four figures counts" if data["draws"] > 1 else "the worst of the four counts for each image"
    )
    note = (
        "Transfer: images made against the bare network and then judged by the whole defense, which is how papers of "
        "such defenses measure; first success and lowest margin are two other images of the same attack. End to end: the "
        f"attack saw the whole defense; who sees the whole can try the images by transfer, too, so {counts}."
    )
    marks = [(_mark(family), family["step"]) for family in data["routes"]]
    starred = " * counts what this attack and all before it leave." if any(STAR in mark for mark, _ in marks) else ""
    if any(family["cascade"] for family in data["routes"]):
        starred += " On the bare network and by transfer, * is what this attack and the transfers before it leave."
    others = dict.fromkeys(step for mark, step in marks if DAGGER in mark)
    other = f" † the same attack with the parameters of {' or '.join(others)}." if others else ""
    absent = any(family["end_to_end"]["accuracy"] is None for family in data["routes"])
    unrun = " Not run: this suite has no step of that attack that sees the whole defense." if absent else ""
    return note + starred + other + unrun + _above_clean(data)


def _above_clean(data: Mapping[str, Any]) -> str:
    """Why a figure of an attack may be higher than the clean accuracy, where one is."""
    found = [family[name]["accuracy"] for family in data["routes"] for name in ("transfer", "first", "lowest")]
    if not any(value is not None and value > data["clean"]["accuracy"] for value in found):
        return ""
    draws = ", and each figure is a mean over draws of its own" if data["draws"] > 1 else ""
    return (
        " A figure above the clean accuracy is no mistake: the part in front of the network answers to an image that was moved"
        f" a little with another image, which may be mended where the clean one was wrong{draws}."
    )


def knowledge(data: Mapping[str, Any]) -> str:
    """What the attacks of this run knew of the defense."""
    if data["adaptive"]["accuracy"] is None and data["routes"]:
        return "grey box (no attack saw more than the bare network)"
    finished = not data["run"]["missing_units"]
    if finished and not any(a["backwards"] for a in data["attacks"]):
        return "black box (no attack of this run took a gradient)"
    return "white box"


def attacks_note(data: Mapping[str, Any]) -> str:
    """What may look like a contradiction in the figures of this run, explained; empty where nothing does."""
    attacks = data["attacks"]
    notes = []
    if any(a["route"] == "transfer" and a["scope"] == "all" for a in attacks) and data["routes"]:
        notes.append(
            "An attack by transfer starts from every image that the bare network or the whole defense gets right, and its "
            "broken ones count those that the defense had wrong from the start."
        )
    if any(a["silent"] for a in attacks):
        notes.append(
            "Broken and the worst case so far also count images that an attack met on its way and did not return; its own accuracy, "
            "the figure under the claimed attacks and the reasons that hold one attack against another count what it returned."
        )
    if data["draws"] > 1:
        notes.append(
            "For each image the worst case takes the adversarial one that did worst on other draws and judges it on fresh ones, "
            "so that luck does not lower it: it may lie a little above what one attack alone leaves."
        )
    return " ".join(notes)


def draws_note(data: Mapping[str, Any]) -> str:
    """How a stochastic defense was judged; empty for a deterministic one."""
    if data["draws"] == 1:
        return ""
    worst = percent(data["worst_draw"]["accuracy"])
    return (
        f"The defense is random: each image was fixed first and then judged on {data['draws']} fresh draws that no attack "
        "saw, the same for a clean image and what attacks made of it. Figures are means over images of P(correct); "
        f"{worst} of the images are right in every draw."
    )


def headline(data: Mapping[str, Any], key: str) -> str:
    """The clean, claimed or adaptive accuracy; a bound where images are unknown or attacks have not run."""
    figure = data[key]
    if key == "adaptive" and figure["accuracy"] is None and data["clean"]["accuracy"] is not None:
        return REFUSED
    text, unknown = percent(figure["accuracy"]), int(figure.get("unknown", 0))
    if figure["accuracy"] is None or key == "clean":
        return text
    if key == "adaptive" and data["run"]["missing_units"] and not unknown:
        return f"at most {text} so far"
    return bounded(BOUNDS[key], text, unknown)


def sentence(text: str) -> str:
    """A reason as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def attack_figure(attack: Mapping[str, Any]) -> str:
    """The accuracy of one attack, or why there is none."""
    if attack["errors"] and attack["accuracy"] is None:
        return f"crashed on {attack['errors']} images"
    if not attack["done"]:
        return "has not run"
    if not attack["attacked"] or attack["accuracy"] is None:
        return "nothing left to attack"
    return percent(attack["accuracy"])


def finding(text: str) -> str:
    """What a round found, by the words for its diagnosis and not by its identifier."""
    name, colon, rest = text.partition(": ")
    return f"{in_words(name)}{colon}{rest}" if name in INDEX else text


def span(interval: Sequence[float] | None) -> str:
    """An interval of accuracies, empty for none."""
    return "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"


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
        return NO_CLAIM
    least = "at least " if claim["basis"] == "measured" and data["claimed"]["unknown"] else ""
    line = f"Under audit: {least}{claim['robust_acc']:.1%} robust accuracy under {claim['attack']} ({claim['source']})."
    if claim["basis"] == "measured" and any(c.get("own", True) for c in data["paper_claims"]):
        line += UNMATCHED
    return line


def fair(claim: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """How a printed claim differs from what was audited; empty when it does not."""
    network = data["defense"]["architecture"]
    own_images = (data["run"].get("sources") or {}).get("data", "")
    found = {
        "data set": (claim["dataset"], data["dataset"]["name"]),
        "images": ("", own_images),
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
