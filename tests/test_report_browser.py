"""The page in a real browser: no errors, no requests, and its tables and gallery work by keyboard and mouse."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from audit.summary import load_run
from reports import write_reports
from reports.compare import write_comparison
from tests.chromium import CHROMIUM, SHIFT, Browser, Page, tab

EXAMPLES = sorted((Path(__file__).parents[1] / "reports" / "examples").glob("*/report.html"))
FRESH = "a run of now"
AT_ONCE = 1000  # milliseconds
PHONE, DESKTOP = (360, 740), (1280, 900)
ROWS = """(name, column) => [...document.querySelector(`table[data-name="${name}"]`).tBodies[0].rows].filter((r) => !r.hidden)
  .map((r) => r.cells[column].textContent.trim())"""
CARDS = "[...document.querySelectorAll('#pictures li')].filter((card) => !card.hidden)"

# Where AUDIT_BROWSER=required, as .ci/run sets it, a missing browser is a failure and not a skip.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("AUDIT_BROWSER") != "required",
        reason="no Chromium on this machine: apt-get install chromium",
    ),
]


@pytest.fixture(scope="module")
def fresh(audited) -> Path:
    return write_reports(audited("super_fitting").path)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(params=[FRESH, *(path.parent.name for path in EXAMPLES)])
def page(request, fresh) -> Path:
    """Every test below that takes it reads a report of now and each example that is committed."""
    return {FRESH: fresh, **{path.parent.name: path for path in EXAMPLES}}[request.param]


@pytest.fixture(params=[PHONE, DESKTOP], ids=["phone", "desktop"])
def view(request, page, browser) -> Iterator[Page]:
    with tab(browser, page.as_uri(), *request.param) as opened:
        yield opened
        assert opened.complaints == []
        assert opened.requests == [page.as_uri()]


def head(table: str, title: str) -> str:
    """The button of a column, as an expression of the page."""
    heads = f"""document.querySelectorAll('table[data-name="{table}"] thead button')"""
    return f"[...{heads}].find((b) => b.textContent === '{title}')"


def column(page: Page, table: str, number: int) -> list[str]:
    return list(page.look(f"({ROWS})({json.dumps(table)}, {number})"))


def test_there_are_examples_to_look_at():
    assert "tpap" in [path.parent.name for path in EXAMPLES]


class _Recorder(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, format, *args) -> None:
        self.asked.append(self.path)


def test_the_page_asks_a_server_for_nothing_but_itself(page, browser):
    _Recorder.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Recorder, directory=str(page.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tab(browser, f"http://127.0.0.1:{server.server_port}/report.html") as opened:
            assert opened.complaints == []
            assert opened.look("document.querySelectorAll('.tools button').length") > 0  # so the script ran
        server.shutdown()
    assert _Recorder.asked == ["/report.html"]


def test_the_page_is_small_and_opens_at_once(page, browser, capsys):
    """What the reader waits for, from the address to the end of the load event, in a browser that is open already."""
    for _ in range(3):  # a busy machine may hold up one opening; it cannot hurry any
        with tab(browser, page.as_uri()) as opened:
            waited = opened.look("performance.getEntriesByType('navigation')[0].loadEventEnd")
        if waited < AT_ONCE:
            break
    with capsys.disabled():
        print(f" [{page.stat().st_size / 1e3:.0f} kB, open after {waited:.0f} ms]", end="")
    assert 0 < waited < AT_ONCE
    assert page.stat().st_size < 3e6


def test_the_policy_and_the_console_would_tell(fresh, tmp_path, browser):
    """The tests here can fail: an image from elsewhere and a foreign script are refused, and the console says so."""
    spoilt = tmp_path / "spoilt.html"
    foreign = '<img src="http://127.0.0.1:9/x.png"><script>document.title = "foreign"</script></body>'
    spoilt.write_text(fresh.read_text().replace("</body>", foreign))
    with tab(browser, spoilt.as_uri()) as opened:
        assert len(opened.complaints) == 2
        assert opened.look("document.title") != "foreign"
    unguarded = tmp_path / "unguarded.html"
    unguarded.write_text("<img src='http://127.0.0.1:9/x.png'>")
    with tab(browser, unguarded.as_uri()) as opened:
        assert opened.requests == [unguarded.as_uri(), "http://127.0.0.1:9/x.png"]


def test_a_table_sorts_by_mouse_and_by_keyboard(view):
    button = head("attacks", "broken")
    place = view.look(f"{button}.parentElement.cellIndex")
    counts = sorted(int(text) for text in column(view, "attacks", place))
    view.click(button)
    assert column(view, "attacks", place) == [str(count) for count in counts]
    assert view.look(f"{button}.parentElement.ariaSort") == "ascending"
    view.tab_to(head("attacks", "attacked"), SHIFT)  # backwards from the one that was clicked
    view.tab_to(button)
    view.press("Enter")
    assert column(view, "attacks", place) == [str(count) for count in reversed(counts)]
    view.press(" ")
    assert view.look(f"{button}.parentElement.ariaSort") == "ascending"


def test_a_table_filters_as_one_types_and_downloads_what_is_left(view):
    names = column(view, "attacks", 0)
    field = """document.querySelector('input[aria-label="filter the table: attacks"]')"""
    view.click(field)
    view.type("apgd")
    left = column(view, "attacks", 0)
    assert 0 < len(left) < len(names)
    assert {name for name in names if "apgd" in name} <= set(left)
    assert view.look(f"{field}.parentElement.querySelector('[role=status]').textContent") == (
        f"{len(left)} of {len(names)} rows"
    )
    saved = "(() => { window.saved = []; URL.createObjectURL = (blob) => { saved.push(blob); return 'data:,'; };"
    view.look(saved + "HTMLAnchorElement.prototype.click = function () { window.named = this.download; }; })()")
    view.press("Tab")
    assert view.look("document.activeElement.ariaLabel") == "download as CSV: attacks"
    view.press("Enter")
    lines = view.look("saved[0].text()").splitlines()
    assert lines[0].startswith('"attack","accuracy","95 % interval","worst case so far"')
    assert len(lines) == 1 + len(left)
    view.click("document.querySelector('[data-save]')")
    assert view.look("saved[1].text().then((text) => JSON.parse(text).verdict.outcome)") == view.look(
        "document.body.className"
    )
    assert view.look("named") == "report.json"


def test_the_gallery_filters_and_enlarges(view):
    cards = f"{CARDS}.map((card) => [card.dataset.step, card.dataset.label])"
    count = "document.getElementById('gallery-count').textContent"
    everything = view.look(cards)
    assert everything
    assert view.look(count) == f"{len(everything)} of {len(everything)} images"
    step, label = (f"""document.querySelector('select[data-filter="{name}"]')""" for name in ("step", "label"))
    view.tab_to(step)
    view.press("ArrowDown")
    chosen = view.look(f"{step}.value")
    assert view.look(cards) == [card for card in everything if card[0] == chosen]
    view.tab_to(label, SHIFT)
    view.press("ArrowDown")
    both = [card for card in everything if card == [chosen, view.look(f"{label}.value")]]
    assert view.look(cards) == both
    assert view.look(count) == f"{len(both)} of {len(everything)} images"
    view.look(f"[{step}, {label}].forEach((s) => {{ s.value = ''; s.dispatchEvent(new Event('change')); }})")
    button = f"{CARDS}[0].querySelector('button')"
    state = f"[{button}.ariaExpanded, {button}.closest('li').classList.contains('large'), {button}.innerText.split(/\\s/)[0]]"
    view.click(button)
    assert view.look(state) == ["true", True, "smaller"]
    view.press("Enter")
    assert view.look(state)[:2] == ["false", False]


def test_a_phone_shows_eight_images_until_asked(view):
    shown = f"{CARDS}.filter((card) => card.getBoundingClientRect().height > 0).length"
    cards, more = view.look(f"{CARDS}.length"), "document.getElementById('gallery-more')"
    phone = view.look("innerWidth") < 500
    assert view.look(shown) == (min(8, cards) if phone else cards)
    if phone and cards > 8:
        view.click(more)
        assert view.look(shown) == cards
        assert view.look("document.activeElement.id") == "pictures"  # the button is gone, the focus is not
    assert view.look(f"{more}.getBoundingClientRect().height") == 0


def test_every_figure_has_its_numbers_and_is_drawn(view):
    kind = "narrow" if view.look("innerWidth") < 500 else "wide"
    figures = view.look(
        f"[...document.querySelectorAll('figure svg.{kind}')].map((svg) => svg.getBoundingClientRect().height)"
    )
    other = view.look(
        f"[...document.querySelectorAll('figure svg:not(.{kind})')].map((svg) => svg.getBoundingClientRect().height)"
    )
    assert len(other) == len(figures)
    assert not any(other)  # each is drawn once for each width, and shown once
    across = "[...document.querySelectorAll('figure .scroll')].every((s) => s.scrollWidth <= s.clientWidth)"
    assert view.look(across)
    assert len(figures) >= 5
    assert min(figures) > 60
    pictures = "[...document.querySelectorAll('img')].every((i) => i.naturalWidth > 0 && i.alt)"
    assert view.look(pictures)
    headings = view.look(
        "[...document.querySelectorAll('figure')].filter((f) => f.closest('section').id === 'why').length"
    )
    folded = view.look("[...document.querySelectorAll('#why figure + details > summary')].length")
    assert headings == folded
    tables = view.look("[...document.querySelectorAll('table.grid')].map((t) => t.dataset.name)")
    assert {"gallery", "logit margins"} <= set(tables)
    assert len(tables) == len(set(tables))


def test_what_is_folded_opens_by_keyboard_and_on_paper(view):
    first = "document.querySelector('#gallery details')"
    view.tab_to(f"{first}.querySelector('summary')")
    view.press("Enter")
    assert view.look(f"{first}.open")
    folded = "document.querySelectorAll('details:not([open])').length"
    before = view.look(folded)
    long = view.look(
        "[...document.querySelectorAll('details:not([open])')].filter((d) => d.querySelectorAll('tr').length > 100).length"
    )
    view.look("dispatchEvent(new Event('beforeprint'))")
    assert view.look(folded) == long < before  # a table of many images stays folded on paper
    view.look("dispatchEvent(new Event('afterprint'))")
    assert view.look(folded) == before


def test_nothing_is_wider_than_the_window(view):
    assert view.look("document.documentElement.scrollWidth <= innerWidth")
    view.look("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert view.look("document.documentElement.scrollWidth <= innerWidth")


def test_the_answer_stands_on_the_first_screen(view):
    """The verdict and the figures that it rests on, without scrolling."""
    figures = "[...document.querySelectorAll('.scale .figure b')].map((b) => b.getBoundingClientRect().bottom)"
    assert max(view.look(figures)) < view.look("innerHeight")
    assert view.look("document.querySelector('.outcome').getBoundingClientRect().top") >= 0


def test_the_skip_link_comes_first_and_leads_to_the_evidence(view):
    view.press("Tab")
    assert view.look("document.activeElement.className") == "skip"
    view.press("Enter")
    first = view.look("document.querySelector('main > section').id")
    assert view.look("location.hash") == f"#{first}"
    targets = view.look("[...document.querySelectorAll('nav a, .skip')].map((a) => a.getAttribute('href').slice(1))")
    assert all(view.look(f"document.getElementById({json.dumps(target)}) !== null") for target in targets)
    assert first in targets


def test_the_first_column_stays_beside_what_is_scrolled_to(view):
    """On a phone, where tables are wider than the screen."""
    scroller = """document.querySelector('[aria-label="attacks"]')"""
    view.look(f"{scroller}.scrollLeft = 200")
    left = view.look(
        f"{scroller}.querySelector('tbody th').getBoundingClientRect().left - {scroller}.getBoundingClientRect().left"
    )
    if view.look("innerWidth") < 500:
        assert left == 0
    else:
        assert left == -view.look(f"{scroller}.scrollLeft")


@pytest.mark.parametrize("medium", ["light", "dark", "print"])
def test_every_word_can_be_read_on_every_medium(page, browser, medium):
    """The page's colours are those of the medium, and nothing is wider than it."""
    with tab(browser, page.as_uri(), *DESKTOP) as opened:
        opened.emulate(medium)
        style = "getComputedStyle(document.body)"
        ink, paper = opened.look(f"[{style}.color, {style}.backgroundColor].map((c) => c.match(/\\d+/g).map(Number))")
        assert (sum(ink) > sum(paper)) == (medium == "dark")
        bars = opened.look(
            "getComputedStyle(document.querySelector('figure svg.wide text')).fill.match(/\\d+/g).map(Number)"
        )
        assert bars == ink  # the figures follow
        assert opened.look("document.documentElement.scrollWidth <= innerWidth")
        hidden = opened.look("getComputedStyle(document.querySelector('nav')).display === 'none'")
        assert hidden == (medium == "print")
        assert opened.complaints == []


def test_the_page_prints(page, browser):
    with tab(browser, page.as_uri()) as opened:
        printed = opened.pdf()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 1


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_comparison_sorts_by_mouse_and_keyboard_at_every_width(fresh, tmp_path, browser, size):
    audit = load_run(fresh.parent)
    with tab(browser, write_comparison([audit, audit], tmp_path / "c").as_uri(), *size) as opened:
        button = head("attacks", "attack")
        names = column(opened, "attacks", 0)
        opened.click(button)
        assert column(opened, "attacks", 0) == sorted(names)
        opened.press("Enter")
        assert opened.look(f"{button}.parentElement.ariaSort") == "descending"
        assert opened.look("""document.querySelector('[aria-label="download as CSV: summary"]') !== null""")
        assert opened.look("document.documentElement.scrollWidth <= innerWidth")
        assert opened.complaints == []
