"""report.html: one self-contained page. Every value that comes from outside is escaped by the template engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from audit.summary import Audit
from reports import figures, leaderboard, references
from reports.papers import beside, elsewhere
from reports.wording import (
    CURVES_NOTE,
    ROUTES,
    attack_figure,
    claim_line,
    curve_rows,
    curve_titles,
    describe_params,
    draws_note,
    fair,
    headline,
    percent,
    reproduce,
    route_cells,
    routes_note,
    sentence,
)


def render_html(data: dict[str, Any], audit: Audit) -> str:
    """The page for a report.json dictionary and the run it came from."""
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "sentence": sentence,
        "percent": percent,
        "params": describe_params,
        "figure": attack_figure,
    }
    classes = list(audit.results.plan.runtime.get("classes", []))
    finished = not audit.results.missing
    drawings = {
        "bars": figures.attack_bars(data["attacks"]) if finished else "",
        "traces": figures.traces(audit.results) if any(r.traces for r in audit.results.steps) else "",
        "standing": leaderboard.drawing(data),
        "logits": figures.logit_heatmap(audit.results, classes) if 1 < len(classes) <= 12 and finished else "",
    }
    return environment.get_template("report.html.j2").render(
        r=data,
        claim_line=claim_line(data),
        headlines={key: headline(data, key) for key in ("clean", "claimed", "adaptive")},
        reproduce=reproduce(data),
        routes=[(family["attack"], route_cells(family)) for family in data["routes"]],
        route_titles=[title for _, title in ROUTES],
        routes_note=routes_note(data),
        draws_note=draws_note(data),
        curves=curve_rows(data),
        curve_titles=curve_titles(data),
        curves_note=CURVES_NOTE,
        references=references.rows(data),
        reference_titles=references.TITLES,
        reference_note=references.NOTE,
        standing_line=leaderboard.standing_line(data),
        papers=[(claim, fair(claim, data)) for claim in data["paper_claims"]],
        beside=beside(data),
        elsewhere=elsewhere(data),
        # The figures are our own SVG: their text comes from step names of the suites and is escaped by matplotlib.
        figures={name: Markup(svg) for name, svg in drawings.items()},
        gallery=_gallery(audit, classes),
    )


def _gallery(audit: Audit, classes: list[str]) -> list[dict[str, Any]]:
    """The cards of the gallery; none where it is missing or damaged, for the report's figures do not rest on it."""
    try:
        with (audit.path / "gallery.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return _cards({name: stored[name] for name in stored.files}, classes)
    except Exception:  # noqa: BLE001 - a damaged archive makes zipfile, zlib and numpy raise nearly anything
        return []


def _cards(arrays: dict[str, Any], classes: list[str]) -> list[dict[str, Any]]:
    def name(index: int) -> str:
        return classes[index] if 0 <= index < len(classes) else str(index)

    cards = []
    for i, number in enumerate(arrays["ids"]):
        delta = arrays["x_adv"][i] - arrays["clean"][i]
        cards.append({
            "id": int(number), "step": str(arrays["step"][i]), "label": name(int(arrays["label"][i])),
            "prediction": name(int(arrays["prediction"][i])), "clean": figures.picture(arrays["clean"][i]),
            "adversarial": figures.picture(arrays["x_adv"][i]),
            "difference": figures.picture(delta, signed=float(np.abs(delta).max()) or 1.0),
        })  # fmt: skip
    return cards
