"""The page in a real browser: no errors, no requests, and its tables and gallery work by keyboard and mouse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from audit import run
from audit.summary import load_run
from reports import write_reports
from reports.compare import write_comparison

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium")

# What a reader does, as a script at the end of the page; what comes of it goes into the title as JSON.
READER = """<script>
const found = {};
const table = document.querySelector('table[data-name="attacks"]');
const column = (i) => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[i].textContent);
const button = table.tHead.rows[0].cells[4].querySelector("button");
button.focus();
found.focus = document.activeElement === button;
found.before = column(4);
button.click();
found.up = [column(4), button.parentElement.getAttribute("aria-sort")];
button.click();
found.down = [column(4), button.parentElement.getAttribute("aria-sort")];
const input = document.querySelector('input[aria-label="filter the table: attacks"]');
input.value = "apgd";
input.dispatchEvent(new Event("input"));
found.filtered = [column(0), document.querySelector(".tools [role=status]").textContent];
const saved = [];
URL.createObjectURL = (blob) => { saved.push(blob); return "data:,"; };
HTMLAnchorElement.prototype.click = function () { found.name = this.download; };
document.querySelector('button[aria-label="download as CSV: attacks"]').click();
const choice = document.querySelector('select[data-filter="step"]');
choice.value = choice.options[1].value;
choice.dispatchEvent(new Event("change"));
const left = () => [...document.querySelectorAll("#pictures li")].filter((card) => !card.hidden);
found.cards = left().map((card) => card.dataset.step);
found.choice = choice.value;
const label = document.querySelector('select[data-filter="label"]');
label.value = left()[0].dataset.label;
label.dispatchEvent(new Event("change"));
found.both = left().map((card) => [card.dataset.step, card.dataset.label]);
found.label = label.value;
found.count = document.getElementById("gallery-count").textContent;
found.all = document.querySelectorAll("#pictures li").length;
const attention = [...document.querySelectorAll(".attention img")];
found.attention = [attention.length, attention.every((image) => image.complete && image.naturalWidth > 0 && image.alt)];
found.drawn = ["map of features", "change per channel", "change along ten steps", "histogram of gradient norms", "cross-entropy against margin", "loss surface", "training curves"]
  .map((name) => document.querySelector(`[aria-label="${name}"] svg`).getBoundingClientRect().height > 100);
const numbers = document.querySelector('table[data-name="attention"]').closest("details");
numbers.querySelector("summary").focus();
found.summary = document.activeElement.textContent;
document.activeElement.click();
found.opened = numbers.open;
const larger = document.querySelector("#pictures li:not([hidden]) button");
larger.click();
found.large = [larger.getAttribute("aria-expanded"), larger.closest("li").classList.contains("large"), larger.innerText.startsWith("smaller")];
const folded = () => document.querySelectorAll("details:not([open])").length;
const many = document.querySelector('table[data-name="images"]');
const row = many.tBodies[0].rows[0];
for (let i = 0; i < 200; i++) many.tBodies[0].append(row.cloneNode(true));
found.folded = [folded()];
dispatchEvent(new Event("beforeprint"));
found.folded.push(folded(), many.closest("details").open);
dispatchEvent(new Event("afterprint"));
found.folded.push(folded());
found.wide = document.documentElement.scrollWidth <= innerWidth;
document.querySelector("[data-save]").click();
Promise.all(saved.map((blob) => blob.text())).then(([csv, data]) => {
  found.csv = csv;
  found.json = JSON.parse(data).verdict.outcome;
  document.title = JSON.stringify(found);
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return write_reports(run("super_fitting", suite="quick", n=20, out=tmp_path_factory.mktemp("runs") / "r").path)


def browse(address: str, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-extensions", "--enable-logging=stderr",
        f"--user-data-dir={profile}", *flags, "--dump-dom", address,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True)


class _Recorder(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, format, *args) -> None:
        self.asked.append(self.path)


def test_the_page_opens_without_an_error_or_a_request(page, tmp_path, capsys):
    """Its policy forbids every request, and a refused one is an error on the console; so is a script that is not its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Recorder, directory=str(page.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start = time.monotonic()
        shown = browse(f"http://127.0.0.1:{server.server_port}/report.html", tmp_path / "profile")
        with capsys.disabled():
            print(f" [{page.stat().st_size / 1e3:.0f} kB, browser and page {time.monotonic() - start:.1f} s]", end="")
        server.shutdown()
    assert _Recorder.asked == ["/report.html"]
    assert "CONSOLE" not in shown.stderr
    assert 'aria-label="download as CSV: attacks"' in shown.stdout  # so the script ran


def test_the_page_is_small_and_opens_at_once(page, tmp_path, capsys):
    """What the reader waits for, from the address to the load event, in a browser that is open already."""
    text = page.read_text()
    policy = re.search(r"<meta http-equiv=.*?>", text)
    assert policy is not None
    clock = '<script>addEventListener("load", () => (document.title = `${performance.now()} ms`))</script></body>'
    timed = tmp_path / "timed.html"
    timed.write_text(text.replace(policy[0], "").replace("</body>", clock))
    shown = browse(timed.as_uri(), tmp_path / "profile")
    waited = re.search(r"<title>([\d.]+) ms</title>", shown.stdout)
    assert waited is not None
    with capsys.disabled():
        print(f" [{len(text.encode()) / 1e3:.0f} kB, open after {float(waited[1]):.0f} ms]", end="")
    assert len(text.encode()) < 3e6


def test_the_policy_and_the_console_would_tell(page, tmp_path):
    """The test above can fail: an image from elsewhere and a foreign script are refused, and the console says so."""
    spoilt = tmp_path / "spoilt.html"
    foreign = '<img src="http://127.0.0.1:9/x.png"><script>document.title = "foreign"</script></body>'
    spoilt.write_text(page.read_text().replace("</body>", foreign))
    shown = browse(spoilt.as_uri(), tmp_path / "profile")
    assert shown.stderr.count("CONSOLE") >= 2
    assert "<title>foreign" not in shown.stdout


@pytest.mark.parametrize("size", ["360,740", "1280,900"], ids=["phone", "desktop"])
def test_tables_and_gallery_work(page, tmp_path, size):
    text = page.read_text()
    policy = re.search(r"<meta http-equiv=.*?>", text)
    assert policy is not None
    tried = tmp_path / "tried.html"  # the policy would rightly refuse the reader's script
    tried.write_text(text.replace(policy[0], "").replace("</body>", READER + "</body>"))
    shown = browse(tried.as_uri(), tmp_path / "profile", f"--window-size={size}", "--virtual-time-budget=5000")
    assert "CONSOLE" not in shown.stderr
    title = re.search(r"<title>(\{.*?\})</title>", shown.stdout, re.S)
    assert title is not None
    found = json.loads(title[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert found["focus"]
    broken = sorted(int(text) for text in found["before"])
    assert found["up"] == [[str(b) for b in broken], "ascending"]
    assert found["down"] == [[str(b) for b in reversed(broken)], "descending"]
    names, count = found["filtered"]
    assert names
    assert all("apgd" in name for name in names)
    assert count == f"{len(names)} of {len(broken)} rows"
    assert set(found["cards"]) == {found["choice"]}
    assert {tuple(pair) for pair in found["both"]} == {(found["choice"], found["label"])}
    assert found["count"] == f"{len(found['both'])} of {found['all']} images"
    assert found["attention"] == [12, True]  # six images, clean and adversarial
    assert found["drawn"] == [True] * 7
    assert (found["summary"], found["opened"]) == ("Attention as a table", True)
    assert found["large"] == ["true", True, True]
    before, printed, thousand, after = found["folded"]
    assert before == after > printed == 1  # only the table of all images stays folded
    assert not thousand
    assert found["wide"], "the page is wider than the window"
    assert found["json"] in ("upheld", "refuted", "inconclusive")
    assert found["name"] == "report.json"
    lines = found["csv"].splitlines()
    assert lines[0].startswith('"attack","why","parameters","attacked","broken"')
    assert len(lines) == 1 + len(names)


def test_the_comparison_opens_without_an_error(page, tmp_path):
    audit = load_run(page.parent)
    shown = browse(write_comparison([audit, audit], tmp_path / "c").as_uri(), tmp_path / "profile")
    assert "CONSOLE" not in shown.stderr
    assert 'aria-label="download as CSV: summary"' in shown.stdout
