"""The page draws what the run measured of its model, says it in numbers too, and does without where it is missing."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports import attention, figures, pictures, planes, portraits, scatter, series, write_reports
from reports import portrait_numbers as numbers
from tests.test_report_parts import contrast

HEADINGS = ("Where the network looks", "Where the features lie", "Which channels move", "How large the gradients are",
            "Cross-entropy against margin", "The loss around an image", "How it was trained")  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(audited) -> Path:
    found = audited("undefended").path
    write_reports(found)
    return found


def page(run_dir: Path) -> str:
    return write_reports(run_dir).read_text()


def altered(run_dir: Path, to: Path, change) -> Path:
    """A copy of the run whose portraits went through `change(arrays, about)`."""
    shutil.copytree(run_dir, to)
    with np.load(to / "portraits.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    about = json.loads(str(arrays.pop("about")))
    change(arrays, about)
    np.savez(to / "portraits.npz", about=np.array(json.dumps(about)), **arrays)
    return to


def test_everything_is_on_the_page_with_words_for_each_picture(run_dir, capsys):
    text = page(run_dir)
    for heading in HEADINGS:
        assert re.search(rf"<h[23][^>]*>{heading}</h", text), heading
    assert all(re.search(r'alt="[^"]+"', img) for img in re.findall(r"<img [^>]*>", text))
    assert all(
        'role="img" aria-label="' in svg or 'aria-hidden="true"' in svg for svg in re.findall(r"<svg[^>]*>", text)
    )
    for name in "attention", "features", "channels", "steps", "gradient norms", "losses", "loss surface", "training":
        assert f'data-name="{name}"' in text
    size = len(text.encode())
    with capsys.disabled():
        print(f" [{size / 1e3:.0f} kB]", end="")
    assert size < 3e6


def test_the_gallery_says_what_was_answered_and_how_surely(run_dir):
    cards = pictures.cards(run_dir, ["a"] * 10)
    assert cards
    for card in cards:
        assert [view["name"] for view in card["views"]] == ["clean", "adversarial", "difference"]
        assert all(re.fullmatch(r"a \d+\.\d%", view["answer"]) for view in card["views"][:2])
        assert card["views"][2]["answer"] == ""
        assert (card["change"], card["times"][:3]) == ("8/255", "31.")
    assert pictures.gallery_note(cards).endswith("Every difference reaches 8/255 and is shown 31.9 times as large.")
    other = {**cards[0], "change": "3/255"}
    assert "8/255" not in pictures.gallery_note([*cards, other])


def test_a_run_directory_of_before_still_renders(run_dir, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run_dir, old)
    (old / "portraits.npz").unlink()
    with np.load(old / "gallery.npz") as stored:
        kept = {name: stored[name] for name in ("ids", "clean", "x_adv", "label", "prediction", "step")}
    np.savez(old / "gallery.npz", **kept)
    text = page(old)
    assert not any(heading in text for heading in HEADINGS)
    assert "was left out" not in text
    card = pictures.cards(old, [])[0]
    assert [view["answer"] for view in card["views"][:2]] == ["", card["prediction"]]


@pytest.mark.parametrize(
    ("damage", "gone"),
    [
        (lambda a, about: a.pop("attention_heat"), [0]),
        (lambda a, about: about.update(attention_views=["one", "two", "three"]), [0]),
        (lambda a, about: a.update(points=a["points"][:3]), [1]),
        (lambda a, about: a.update(channels=np.zeros(3)), [2]),
        (lambda a, about: (a.update(norms=np.zeros((0, 2))), a.update(losses_clean=np.zeros((0, 2)))), [3, 4]),
        (lambda a, about: a.update(surface=np.full((2, 15, 15), np.nan)), [5]),
        (lambda a, about: about.update(training={"columns": ["epoch"], "rows": [["x"]]}), [6]),
        (lambda a, about: about.update(training=None), [6]),
    ],
)
def test_a_damaged_part_costs_the_part_and_not_the_page(run_dir, tmp_path, undrawn_here, damage, gone):
    text = page(altered(run_dir, tmp_path / "r", damage))
    assert [i for i, heading in enumerate(HEADINGS) if f">{heading}</h" not in text] == gone


def test_a_torn_file_leaves_a_page(run_dir, tmp_path, undrawn_here):
    torn = tmp_path / "r"
    shutil.copytree(run_dir, torn)
    (torn / "portraits.npz").write_bytes((torn / "portraits.npz").read_bytes()[:300])
    text = page(torn)
    assert not any(heading in text for heading in HEADINGS)


def test_what_was_left_out_is_said(run_dir, tmp_path, undrawn_here):
    def change(arrays, about):
        for name in [name for name in arrays if name.startswith("attention")]:
            del arrays[name]
        about["notes"] = {
            "attention": "the network has no two-dimensional convolution with an extent",
            "other": "unknown",
        }

    text = page(altered(run_dir, tmp_path / "r", change))
    assert "Grad-CAM was left out: the network has no two-dimensional convolution with an extent." in text
    assert "unknown." not in text


def test_nothing_from_outside_becomes_markup(run_dir, tmp_path):
    foreign = "<script>alert(1)</script>$\\x{"

    def change(arrays, about):
        about |= {
            "convolution": foreign,
            "layer": foreign,
            "notes": {"surface": foreign},
            "norms_of": foreign,
            "method": f'">{foreign}',
        }
        about["training"]["columns"][1:3] = [foreign, foreign + "2"]
        about["attention_views"] = [foreign, "x"]
        arrays["attention_step"] = np.asarray([foreign] * len(arrays["attention_step"]))

    text = page(altered(run_dir, tmp_path / "r", change))
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 8
    drawn = scatter.feature_map(
        np.zeros((2, 2)), np.zeros(2, int), np.asarray([False, True]), [foreign], f'">{foreign}'
    )
    assert "<script>alert" not in drawn
    assert 'aria-label="&quot;&gt;&lt;script' in drawn


@pytest.mark.slow
def test_a_map_of_principal_components_does_not_pass_for_t_sne(run_dir, tmp_path):
    text = page(altered(run_dir, tmp_path / "r", lambda a, about: about.update(method="PCA")))
    assert "This is not t-SNE: that needs scikit-learn" in text
    assert 'aria-label="PCA of' in text
    assert "t-SNE of" not in text


def test_class_colours_can_be_seen_on_both_pages():
    style = resources.files("reports").joinpath("templates/style.css").read_text()
    papers = re.findall(r"--paper: (#\w{6})", style)
    assert len(papers) == 2
    for colour in scatter.PALETTE:
        for paper in papers:
            assert contrast(colour, paper) >= 3, (colour, paper)  # 1.4.11
    assert len(set(scatter.PALETTE)) == 10


def test_tables_hold_the_numbers():
    strange = numbers.strangers(np.asarray([0, 1, 0, 1, 1]), np.arange(5) >= 2, np.asarray([True, False, True]), ["a"])
    assert strange["rows"] == [["a", "1", "1", "1"], ["1", "1", "2", "1"]]
    assert strange["share"] == "2 of 3 (66.7%)"
    moved = numbers.channels(np.stack([np.r_[3.0, np.full(39, 0.5), 5.0], np.full(41, 0.25)]))
    assert moved["rows"][0] == ["channel 40", "5", "0.25"]
    assert (moved["top"], moved["all"], moved["share"]) == (2, 41, "29.1%")  # 8 of 27.5
    assert numbers.channels(np.zeros((2, 3)))["share"] == "none"
    assert numbers.increments(np.asarray([[1.0, 2.0], [0.5, 0.25]]))["rows"] == [
        ["step 1", "1", "0.5"],
        ["step 2", "2", "0.25"],
    ]
    assert numbers.losses(np.asarray([[0.0, 9.0], [1.0, -1.0]]), None)["rows"] == [["clean", "2", "0.5", "4", "50.0%"]]
    assert numbers.norms(np.asarray([[0.0, 1.0], [0.0, 3.0]]))["rows"] == [
        ["cross-entropy", "100.0%", "0", "0", "0"], ["margin", "0.0%", "1.1", "2", "2.9"],
    ]  # fmt: skip
    plane = np.arange(9.0).reshape(1, 3, 3).repeat(2, 0)
    assert numbers.surface(plane)["rows"][1] == ["margin", "4", "7", "1", "5", "3", "0", "8"]
    assert numbers.training(["epoch", "train_loss"], np.asarray([[1.0, 0.25]])) == {
        "titles": ["epoch", "#train loss"],
        "rows": [["1", "0.25"]],
    }


def test_where_the_heat_lies():
    heat = np.zeros((9, 9))
    assert attention.where(heat) == "nowhere"
    heat[0, 8] = 1
    assert attention.where(heat) == "upper right"
    heat[8, 0] = 1.5
    assert attention.where(heat) == "lower left"  # a mean place would lie in the middle, where there is none
    heat[3:6, 3:6] = 1
    assert attention.where(heat) == "the middle"
    assert attention.alike(np.eye(2), np.eye(2)) == "1.00"
    assert attention.alike(np.eye(2), np.zeros((2, 2))) == "not measured"
    image = np.full((1, 2, 2), 0.5)
    shown = attention.overlaid(image, np.asarray([[0.0, 1.0], [0.0, 0.0]]))
    assert np.allclose(shown[:, 0, 0], 0.5)
    assert not np.allclose(shown[:, 0, 1], 0.5)


@pytest.mark.parametrize("extreme", [0.0, 1e-45, 1.0, 1e30])
def test_extreme_numbers_can_be_drawn(extreme):
    pairs = np.asarray([[extreme, -extreme], [0.0, extreme]])
    for drawing in (
        scatter.ce_against_margin(pairs, None), scatter.ce_against_margin(pairs, pairs), series.norm_histogram(np.abs(pairs)),
        series.increment_lines(np.full((2, 10), extreme)), planes.surface(np.full((2, 15, 15), extreme), "random"), series.channel_bars(np.full(3, extreme), np.zeros(3)),
        series.training_curves(["epoch", "loss"], np.asarray([[1.0, extreme]])),
        scatter.feature_map(np.full((4, 2), extreme), np.asarray([0, 1, 11, 1]), np.asarray([False, False, False, True]), [], "t-SNE"),
    ):  # fmt: skip
        assert drawing.startswith('<svg role="img"')


def test_a_training_table_of_shares_alone_has_one_panel():
    both = series.training_curves(
        ["epoch", "loss", "train_accuracy", "seconds"], np.asarray([[1, 90.0, 0.5, 7], [2, 1.0, 0.9, 7]])
    )
    assert "train accuracy" in both
    assert ">100</text>" in both  # on a logarithmic axis, whose labels matplotlib would write as formulas
    assert "mathdefault" not in both
    assert "seconds" not in both
    assert "100 %" in series.training_curves(["epoch", "probe_clean"], np.asarray([[1, 0.5], [2, 0.9]]))


def test_large_pictures_are_shown_coarser():
    for side in 32, 500:
        uri = figures.picture(np.random.default_rng(0).random((3, side, side)))
        with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as shown:
            assert max(shown.size) <= figures.LARGEST
            assert side > figures.LARGEST or shown.size == (side, side)


def test_a_part_for_every_kind_of_portrait():
    assert portraits.page_portraits(Path("nowhere"), [])["notes"] == []
    assert set(portraits.TITLES) < set(portraits.PARTS)
