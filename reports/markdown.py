"""report.md: the same answer for a pull request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import leaderboard, references
from reports.escaping import plain
from reports.papers import beside, elsewhere
from reports.radii import NOTE, curve_rows, curve_titles
from reports.wording import (
    ROUTES,
    attack_figure,
    attacks_note,
    claim_line,
    describe_params,
    draws_note,
    finding,
    headline,
    percent,
    reproduce,
    route_cells,
    routes_note,
    span,
)


def render_markdown(data: Mapping[str, Any]) -> str:
    """Markdown for a report.json dictionary."""
    verdict = data["verdict"]
    lines = [
        f"# {plain(data['defense']['name'])}: {verdict['outcome']}", "",
        *([f"This run is not finished: {data['run']['missing_units']} units are missing.", ""] if data["run"]["missing_units"] else []),
        *(f"- {plain(reason)}" for reason in verdict["reasons"]), "",
        f"Kind of gradient masking: {plain(data['masking']['words'])}.", "", f"{plain(claim_line(data))}", "",
        "| | accuracy | 95 % interval | n |", "|---|---|---|---|",
        *(_estimate(name, data) for name in ("clean", "claimed", "adaptive")), "",
        f"{data['threat']['norm']}, eps {data['threat']['eps_text']}, seed {data['run']['seed']}, "
        f"{plain(data['dataset']['name'])} ({plain(data['dataset']['source'])}), weights {data['defense']['weights_sha256'][:12]}, "
        f"unknown {verdict['unknown']}.", "",
        *_routes(data),
        "| attack | parameters | attacked | broken | accuracy | 95 % interval | counted | worst case so far | forward | backward | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_attack(a) for a in data["attacks"]), "",
        *([attacks_note(data), ""] if attacks_note(data) else []),
        *_rounds(data),
        *_curves(data),
        "| diagnosis | status | finding |", "|---|---|---|",
        *(f"| {plain(d['name'])} | {d['status']} | {plain(d['sentence'])} |" for d in data["diagnoses"]),
    ]  # fmt: skip
    lines += [*_papers(data), *references.markdown(data), *leaderboard.markdown(data)]
    return "\n".join([*lines, "", "Reproduce:", "", f"    {reproduce(data)}", ""])


def _papers(data: Mapping[str, Any]) -> list[str]:
    """The printed claims that speak of these images, beside what was measured; then what the others are for."""
    rows = [
        f"| {plain(row['source'])} | {plain(row['attack'])} | {row['robust']} | {row['measured']} | {row['network']} |"
        for row in beside(data)
    ]
    head = ["", "| the paper | attack | claims | measured here | network as in the paper |", "|---|---|---|---|---|"]
    return [*(head + rows if rows else []), *(text for line in elsewhere(data) for text in ("", plain(line)))]


def _routes(data: Mapping[str, Any]) -> list[str]:
    """How a random defense was judged, and the rows of a defense with a test-time part."""
    lines = [draws_note(data), ""] if data["draws"] > 1 else []
    if not data["routes"]:
        return lines
    return [
        *lines, f"| attack | {' | '.join(title for _, title in ROUTES)} |", "|---" * (len(ROUTES) + 1) + "|",
        *(f"| {plain(family['attack'])} | {' | '.join(route_cells(family))} |" for family in data["routes"]), "",
        routes_note(data), "",
    ]  # fmt: skip


def _rounds(data: Mapping[str, Any]) -> list[str]:
    """What the results asked for after the suite, and which steps answered."""
    rows = [
        f"| {r['number']} | {plain('; '.join(map(finding, r['found'])))} | {plain(', '.join(r['steps']))} |"
        for r in data["rounds"]
    ]
    return ["| round | found | ran |", "|---|---|---|", *rows, ""] if rows else []


def _curves(data: Mapping[str, Any]) -> list[str]:
    if not data["curves"]:
        return []
    titles = [title.removeprefix("#") for title in curve_titles(data)]
    rows = (f"| {' | '.join(plain(cell) for cell in row)} |" for row in curve_rows(data))
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *rows, "", NOTE, ""]


def _estimate(name: str, data: Mapping[str, Any]) -> str:
    value = data[name]
    if value["accuracy"] is None:
        return f"| {name} | {headline(data, name)} | | |"
    low, high = value["interval"]
    return f"| {name} | {headline(data, name)} | {low:.1%} to {high:.1%} | {value['n']} |"


def _attack(a: Mapping[str, Any]) -> str:
    cells = (
        plain(a["name"]), plain(describe_params(a)), a["attacked"], a["broken"], attack_figure(a), span(a["interval"] if a["attacked"] else None),
        a["accuracy_is"], percent(a["cumulative"]["accuracy"]) if a["cumulative"]["accuracy"] is not None else "",
        f"{a['forwards']:,}", f"{a['backwards']:,}", f"{a['seconds']:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
