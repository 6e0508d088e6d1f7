"""The tables behind the figures hold what is drawn, and the notes explain what may look like a contradiction."""

from __future__ import annotations

import re

import numpy as np
import pytest

from audit.diagnoses.index import INDEX, in_words
from reports import figures, tables
from reports.html import render_html
from reports.markdown import render_markdown
from reports.wording import attacks_note
from tests.built import built, claimed
from tests.test_report_parts import contrast

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def audit(audited):
    return audited("sim_adv")


def test_the_histogram_counts_every_image_once():
    results = built(claimed())
    assert tables.margins(results)["rows"] == [["0 to 1", "1000"]]  # all logits are alike
    logits = np.random.default_rng(0).normal(size=results.logits.shape).astype(np.float32)
    object.__setattr__(results, "logits", logits)
    found = tables.margins(results)
    assert sum(int(count) for _, count in found["rows"]) == len(figures.logit_margins(results))
    assert all(re.fullmatch(r"-?[\d.e+-]+ to -?[\d.e+-]+", span) for span, _ in found["rows"])
    nothing = built(claimed())
    object.__setattr__(nothing, "logits", np.full_like(nothing.logits, np.nan))
    assert tables.margins(nothing)["rows"] == []


def test_mean_logits_are_those_of_the_class():
    results = built(claimed())
    logits = np.zeros((len(results.label), 3), np.float32)
    label = np.where(np.arange(len(logits)) < 10, 0, 2)
    logits[:10] = (4, 2, 0)
    logits[5:10, 0] = 6
    object.__setattr__(results, "logits", logits)
    object.__setattr__(results, "label", label)
    found = tables.logits(results, ["a", "b", "c"])
    assert found["titles"] == ["images of class", "#a", "#b", "#c"]
    assert found["rows"] == [["a", "5", "2", "0"], ["c", "0", "0", "0"]]  # no image is of class b


def test_the_neighbours_stand_among_them_the_defense():
    around = [{"name": "best", "robust": 0.7, "clean": 0.9}, {"name": "worst", "robust": 0.1, "clean": 0.8}]
    figure = {"accuracy": 0.3, "interval": [0.2, 0.4]}
    nothing = {"accuracy": None, "interval": None}
    data = {"leaderboard": {"around": around, "itself": None}, "claim": None, "claimed": nothing, "adaptive": figure}
    assert tables.standing(data)["rows"] == [
        ["best", "70.0%", "90.0%"], ["worst case, here", "30.0%", ""], ["worst", "10.0%", "80.0%"],
    ]  # fmt: skip
    assert tables.standing({**data, "leaderboard": {"around": [], "itself": None}})["rows"] == []


def test_what_is_drawn_is_on_the_page_as_a_table_and_in_the_report(audit):
    data, results = audit.to_dict(), audit.results
    assert data["eps_curve"] == list(results.plan.profile["eps_curve"])
    assert [point["eps"] for point in data["eps_curve"]] == sorted({point["eps"] for point in data["eps_curve"]})
    page = render_html(data, audit)
    for name in "logit margins", "mean logits per class", "15 steps before the attacks", "gallery":
        assert f'data-name="{name}"' in page
    assert re.search(r'data-name="gallery".*?largest difference.*?clean.*?adversarial', page, re.S)


@pytest.mark.parametrize(
    ("draws", "route", "silent", "words"),
    [
        (1, "end-to-end", 0, ()),
        (97, "end-to-end", 0, ("judges it on fresh ones",)),
        (1, "transfer", 0, ("that the defense had wrong from the start",)),
        (1, "end-to-end", 3, ("met on its way and did not return",)),
    ],
)
def test_a_note_for_each_figure_that_seems_to_disagree(audit, draws, route, silent, words):
    attack = {"route": route, "scope": "all", "silent": silent}
    note = attacks_note({"attacks": [attack], "draws": draws, "routes": [{}]})
    assert bool(note) == bool(words)
    assert all(word in note for word in words)
    assert note.count(". ") == 0


def test_the_note_is_on_the_page_and_in_the_markdown(audit):
    data = audit.to_dict()
    data["attacks"][0]["silent"] = 1
    assert attacks_note(data) in render_html(data, audit)
    assert attacks_note(data) in render_markdown(data)


def test_numbers_in_the_heat_map_can_be_read():
    """WCAG 2.2, 1.4.3, over the whole colour map."""
    import matplotlib as mpl

    for ground in mpl.colormaps["RdBu_r"](np.linspace(0, 1, 101)):
        shown = "#" + "".join(f"{round(255 * value):02x}" for value in ground[:3])
        assert contrast(figures.legible(ground.tolist()), shown) >= 4.5, shown


def test_no_diagnosis_is_called_by_its_identifier():
    assert not [name for name in INDEX if "_" in in_words(name)]
    assert in_words("ce_precision") == "cross-entropy precision"
