"""The numbers behind the figures of the audit itself, as tables: `titles` ("#" before columns of numbers) and `rows`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audit.results import Results
from reports import figures, leaderboard
from reports.iterations import short
from reports.pictures import class_name
from reports.wording import percent

Table = dict[str, Any]


def page_tables(data: Mapping[str, Any], results: Results, cards: Sequence[Mapping[str, Any]]) -> dict[str, Table]:
    """One for each figure that has no table of its own, by name; its rows are empty where there is nothing to draw."""
    classes = list(results.plan.runtime.get("classes", []))
    return {
        "margins": margins(results), "logits": logits(results, classes), "standing": standing(data), "gallery": gallery(cards),
    }  # fmt: skip


def margins(results: Results) -> Table:
    """The bars of the histogram of margins: from, to, and how many images."""
    found = figures.logit_margins(results)
    rows: list[list[str]] = []
    if len(found):
        counts, edges = np.histogram(found, figures.margin_bins(found))
        rows = [[f"{short(float(a))} to {short(float(b))}", str(int(c))] for a, b, c in zip(edges, edges[1:], counts, strict=False)]  # fmt: skip
    return {"titles": ["#margin", "#images"], "rows": rows}


def logits(results: Results, classes: Sequence[str]) -> Table:
    """Mean logit of every class over the images of every class, as drawn; a class without images has no row."""
    rows: list[list[str]] = []
    for k in range(len(classes)):
        own = results.logits[results.label == k, : len(classes)]
        if len(own):
            rows.append([classes[k], *(short(float(v)) for v in own.mean(0))])
    names = [f"#{class_name(k, classes)}" for k in range(min(results.logits.shape[1], len(classes)))]
    return {"titles": ["images of class", *names], "rows": rows}


def standing(data: Mapping[str, Any]) -> Table:
    """RobustBench's models around the defense, and its own figures among them, best first."""
    around = data["leaderboard"]["around"]
    rows = [(e["robust"], [e["name"], percent(e["robust"]), percent(e["clean"])]) for e in around]
    rows += [(value, [name, percent(value), ""]) for name, value, _, _ in leaderboard.own_rows(data)] if around else []
    return {"titles": ["model", "#robust", "#clean"], "rows": [row for _, row in sorted(rows, key=lambda row: -row[0])]}


def gallery(cards: Sequence[Mapping[str, Any]]) -> Table:
    """What was answered to each view of each image, and how large its difference is."""
    views = [view["name"] for view in cards[0]["views"] if view["name"] != "difference"] if cards else []
    rows = [
        [str(card["id"]), card["label"], card["step"], card["change"],
         *(view["answer"] for view in card["views"] if view["name"] != "difference")]
        for card in cards
    ]  # fmt: skip
    return {"titles": ["#image", "class", "attack", "#largest difference", *views], "rows": rows}
