"""The curve over the radius is of all images, and where there is none a sentence says why."""

from __future__ import annotations

import re

import pytest

from reports.html import render_html
from reports.radii import SHORT, caption, lines, missing, radii, short


@pytest.fixture(scope="module")
def audit(audited):
    return audited("sim_adv")


def made(**changed):
    worst = {"accuracy": 0.2, "interval": [0.1, 0.3], "n": 100}
    return {
        "clean": {"accuracy": 0.8}, "adaptive": worst, "threat": {"norm": "Linf", "eps": 0.1}, "curves": [], "diagnoses": [],
        "eps_curve": [{"eps": 0.05, "accuracy": 0.5, "n": 30}, {"eps": 0.1, "accuracy": 0.25, "n": 30}],
    } | changed  # fmt: skip


def test_the_short_attack_counts_of_all_images_and_starts_at_the_clean_accuracy():
    assert lines(made()) == [(SHORT, [(0.0, 0.8), (0.05, pytest.approx(0.4)), (0.1, pytest.approx(0.2))])]
    assert short(made())["rows"] == [["0.05", "50.0%", "40.0%"], ["0.1", "25.0%", "20.0%"]]
    assert "on 30 images" in caption(made())
    assert "on up to 32 images" in caption(made(eps_curve=[{"eps": 0.05, "accuracy": 0.5}]))


def test_a_least_norm_attack_counts_of_all_images_already():
    curve = {"step": "fmn", "median": 0.1, "missed": 2, "points": [{"eps": 0.1, "accuracy": 0.3}]}
    found = radii(made(eps_curve=[], curves=[curve]))
    assert lines(made(eps_curve=[], curves=[curve])) == [("fmn", [(0.0, 0.8), (0.1, 0.3)])]
    assert (found["titles"], found["rows"]) == (["attack", "#median distance", "#none found", "#at 0.1"], [["fmn", "0.1", "2", "30.0%"]])  # fmt: skip
    assert SHORT not in found["caption"]


def test_the_worst_case_is_drawn_where_there_is_one():
    assert "worst case of the audit" in radii(made())["drawing"]
    refused = {"accuracy": None, "interval": None, "n": None}
    assert "worst case of the audit" not in radii(made(adaptive=refused))["drawing"]
    assert radii(made(eps_curve=[]))["drawing"] == ""


@pytest.mark.parametrize(
    ("norm", "status", "words"),
    [
        ("L1", "clear", "exists in Linf and L2 alone, and this ball is in L1"),
        ("Linf", "resolved", "no gradient leads there through this defense"),
        ("Linf", "not_measured", "was not run or found no gradient"),
    ],
)
def test_a_missing_curve_says_why(norm, status, words):
    data = made(
        eps_curve=[],
        threat={"norm": norm, "eps": 0.1},
        diagnoses=[{"name": "shattered_gradient", "status": status}],
    )
    assert words in missing(data)
    assert missing(made()) == ""


def test_it_is_on_the_page(audit):
    data = audit.to_dict()
    page = render_html(data, audit)
    assert re.search(r"<h2>Robust accuracy at other radii</h2>", page)
    assert f'data-name="{SHORT}"' in page
    assert missing(data) == ""
    gone = data | {"eps_curve": [], "curves": []}
    page = render_html(gone, audit)
    assert missing(gone) in page
    assert 'href="#radii"' in page
