"""report.html: one self-contained page. Every value that comes from outside is escaped by the template engine."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from audit.diagnoses.index import in_words
from audit.summary import Audit
from reports import bars, figures, iterations, leaderboard, matrix, opening, references, tables
from reports.papers import beside, elsewhere
from reports.pictures import cards, gallery_note
from reports.portraits import page_portraits
from reports.radii import radii
from reports.thresholds import held_against
from reports.wording import (
    ROUTES,
    attack_figure,
    attacks_note,
    claim_line,
    describe_params,
    draws_note,
    fair,
    finding,
    knowledge,
    percent,
    reproduce,
    route_cells,
    routes_note,
    sentence,
    span,
)

STATUSES = (
    ("flagged", "Flagged: not answered by what ran"), ("resolved", "Resolved: found, and answered"),
    ("not_measured", "Not measured"),
    ("clear", "Looked for and not found"),
)  # fmt: skip


def render_html(data: dict[str, Any], audit: Audit) -> str:
    """The page for a report.json dictionary and the run it came from."""
    pages = environment()
    classes = list(audit.results.plan.runtime.get("classes", []))
    strips = matrix.strips(audit.results)
    pictures = cards(audit.path, classes)
    return pages.get_template("report.html.j2").render(
        r=data,
        page=page_parts(pages),
        scale_rows=opening.scale(data),
        claim_line=claim_line(data),
        reproduce=reproduce(data),
        routes=[(family["attack"], *route_cells(family)) for family in data["routes"]],
        route_titles=[f"#{title}" for _, title in ROUTES],
        routes_note=routes_note(data),
        knowledge=knowledge(data),
        draws_note=draws_note(data),
        strips=strips,
        strip_width=matrix.width(audit.results),
        strip_key=list(matrix.key(strips)),
        images=matrix.images(audit.results, classes) if strips else [],
        diagnoses=[(s, title, [d for d in data["diagnoses"] if d["status"] == s]) for s, title in STATUSES],
        iterations=iterations.rows(audit.results),
        iteration_titles=list(iterations.TITLES),
        iteration_numbers=[f"#{title}" for title in iterations.TITLES],
        iteration_points=iterations.points(audit.results),
        radii=_marked(radii(data)),
        references=references.rows(data),
        reference_titles=numeric(references.TITLES),
        reference_note=references.NOTE,
        standing_line=leaderboard.standing_line(data),
        papers=[(claim, fair(claim, data)) for claim in data["paper_claims"]],
        beside=beside(data),
        elsewhere=elsewhere(data),
        # The figures are our own SVG; matplotlib escapes their text.
        figures={name: Markup(svg) for name, svg in _drawings(data, audit, classes).items()},
        gallery=pictures,
        gallery_note=gallery_note(pictures),
        tables=tables.page_tables(data, audit.results, pictures),
        attacks_note=attacks_note(data),
        portraits=page_portraits(audit.path, classes),
    )


def environment() -> Environment:
    """The templates, with everything escaped and no name left undefined."""
    found = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "sentence": sentence,
        "percent": percent,
        "params": describe_params,
        "figure": attack_figure,
        "span": span,
        "finding": finding,
        "test": held_against,
        "name": in_words,
        "short": iterations.short,
    }
    return found


def page_parts(pages: Environment) -> dict[str, Markup]:
    """Style and script, verbatim, and the policy by which a browser loads nothing and runs no other script."""
    source = {name: pages.loader.get_source(pages, name)[0] for name in ("style.css", "page.js")}  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(source["page.js"].encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return {"style": Markup(source["style.css"]), "script": Markup(source["page.js"]), "policy": Markup(policy)}


def _drawings(data: dict[str, Any], audit: Audit, classes: list[str]) -> dict[str, str]:
    """The figures as SVG, each empty where the run holds nothing to draw."""
    finished = not audit.results.missing
    return {
        "bars": bars.attack_bars(data["attacks"]) if finished else "",
        "routes": bars.route_bars(data["routes"]),
        "margins": figures.margins(audit.results) if len(figures.logit_margins(audit.results)) else "",
        "standing": leaderboard.drawing(data),
        "logits": figures.logit_heatmap(audit.results, classes) if 1 < len(classes) <= 12 and finished else "",
    }


def _marked(part: dict[str, Any]) -> dict[str, Any]:
    """The part with its drawing as markup: our own SVG, whose text matplotlib escapes."""
    return {**part, "drawing": Markup(part["drawing"])}


def numeric(titles: Any) -> list[str]:
    """Titles of a table whose first column alone is words, as its template takes them."""
    return [title if i == 0 else f"#{title}" for i, title in enumerate(titles)]
