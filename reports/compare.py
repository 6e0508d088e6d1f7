"""Several audits in one page and in markdown: what each claims, what is left of it, and what each attack leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.ledger import write_atomically
from audit.paired import compare
from audit.summary import Audit, paired_entry
from reports import opening, references
from reports.escaping import plain
from reports.html import environment, numeric, page_parts
from reports.wording import attack_figure, headline, percent

TITLES = ("defense", "verdict", "kind of masking", "clean", "claim", "claimed attacks", "worst case", "95 % interval", "n", "threat", "suite")  # fmt: skip
WORDS = 3  # so many columns of TITLES are words, and the last two
NOTE = (
    "A figure with a star is cumulative: the attack ran only on what those before it had left, so it says what all of them "
    "leave. The others are of the attack alone."
)

PAIR_NOTE = (
    "Worst cases over all attacks on the same images, by runs of the same suite; else there is no difference to show. The "
    "interval is Newcombe's for paired shares (method 10), the p-value exact."
)


@dataclass(frozen=True)
class Entry:
    """One audit under the name by which the page calls it."""

    name: str
    audit: Audit
    data: Mapping[str, Any]


def write_comparison(audits: Sequence[Audit], out: Path) -> Path:
    """Write compare.html and compare.md into the directory and return the first. Raises CannotWrite."""
    entries = named(audits)
    write_atomically(out / "compare.md", render_markdown(entries).encode())
    page = out / "compare.html"
    write_atomically(page, render_html(entries).encode())
    return page


def named(audits: Sequence[Audit]) -> list[Entry]:
    """The audits by the defense's name; with the name of the run directory where two are of one defense."""
    data = [audit.to_dict() for audit in audits]
    count = Counter(d["defense"]["name"] for d in data)
    names = [
        d["defense"]["name"]
        if count[d["defense"]["name"]] == 1
        else f"{d['defense']['name']} ({a.path.resolve().name})"
        for a, d in zip(audits, data, strict=True)
    ]
    again = Counter(names)
    numbered = [name if again[name] == 1 else f"{name} {i}" for i, name in enumerate(names, 1)]
    return [Entry(name, a, d) for name, a, d in zip(numbered, audits, data, strict=True)]


def render_html(entries: Sequence[Entry]) -> str:
    pages = environment()
    columns = [f"#{title}" if WORDS <= i < len(TITLES) - 2 else title for i, title in enumerate(TITLES)]
    return pages.get_template("compare.html.j2").render(
        page=page_parts(pages),
        entries=[{"name": e.name, "outcome": e.data["verdict"]["outcome"], "reason": e.data["verdict"]["reasons"][0],
                  "scale": opening.scale(e.data)} for e in entries],
        differing=differing(entries),
        titles=columns, rows_=[_row(e) for e in entries],
        attack_titles=numeric(["attack", *(e.name for e in entries)]), attacks=attacks(entries), note=NOTE,
        pair_titles=numeric(pair_titles(entries)), pairs=pairs(entries), pair_note=PAIR_NOTE,
        data={"schema_version": 1, "reports": [e.data for e in entries]},
    )  # fmt: skip


def render_markdown(entries: Sequence[Entry]) -> str:
    lines = [f"# {len(entries)} audits compared", "", *(f"- {line}" for line in differing(entries)), ""]
    lines += [*_table(TITLES, [_row(e) for e in entries]), ""]
    lines += [*_table(["attack", *(e.name for e in entries)], attacks(entries)), "", NOTE, ""]
    lines += [f"{plain(entries[0].name)} beside the others, image by image:", "", *_table(pair_titles(entries), pairs(entries)), "", PAIR_NOTE, ""]  # fmt: skip
    return "\n".join(lines)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(plain(title) for title in titles)} |"
    yield "|---" * len(titles) + "|"
    for row in rows:
        yield f"| {' | '.join(plain(cell) for cell in row)} |"


def differing(entries: Sequence[Entry]) -> list[str]:
    """What the audits do not share, so that their figures are not of the same thing: a sentence each."""
    words = {
        "images": [e.data["dataset"]["digest"] for e in entries],
        "norm": [e.data["threat"]["norm"] for e in entries],
        "radius": [e.data["threat"]["eps"] for e in entries],
        "suite": [e.data["run"]["suite"] for e in entries],
    }
    found = [f"The audits differ in {word}." for word, values in words.items() if len(set(values)) > 1]
    open_ = [e.name for e in entries if e.data["run"]["missing_units"]]
    return [*found, *([f"Not finished: {', '.join(open_)}."] if open_ else [])]


def _row(entry: Entry) -> list[str]:
    data, claim = entry.data, entry.data["claim"]
    interval = data["adaptive"]["interval"]
    return [
        entry.name, data["verdict"]["outcome"], data["masking"]["words"], headline(data, "clean"),
        "none" if claim is None else f"{claim['robust_acc']:.1%}" + (" (measured)" if claim["basis"] == "measured" else ""),
        headline(data, "claimed"), headline(data, "adaptive"),
        "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}",
        str(data["dataset"]["n"]), f"{data['threat']['norm']} {data['threat']['eps_text']}", data["run"]["suite"],
    ]  # fmt: skip


def attacks(entries: Sequence[Entry]) -> list[list[str]]:
    """A row for each attack that any of them ran, in their order, with a figure for each audit; "" where it did not."""
    ran = [{a["name"]: a for a in e.data["attacks"] if a["scope"] not in ("trial", "control")} for e in entries]
    names = dict.fromkeys(name for attacks_ in ran for name in attacks_)
    return [[name, *(_figure(attacks_.get(name)) for attacks_ in ran)] for name in names]


def _figure(attack: Mapping[str, Any] | None) -> str:
    if attack is None:
        return ""
    starred = attack["accuracy_is"] == "cumulative" and attack["accuracy"] is not None and attack["attacked"]
    return attack_figure(attack) + ("*" if starred else "")


def pair_titles(entries: Sequence[Entry]) -> list[str]:
    first = entries[0].name
    return [
        "the other", "its clean accuracy", "its worst case", f"{first} less it", "95 % interval",
        f"only {first} stands", "only the other stands", "McNemar p",
    ]  # fmt: skip


def pairs(entries: Sequence[Entry]) -> list[list[str]]:
    """The first beside each other one, on the same images; one that cannot be compared says why."""
    own = entries[0].audit.results
    others = [paired_entry(compare(e.name, own, e.audit.results), e.audit.results) for e in entries[1:]]
    return references.rows({"references": others})
