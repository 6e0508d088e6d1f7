"""What the page draws agrees with the results, and its colours can be told apart."""

from __future__ import annotations

import re
from importlib import resources

import numpy as np
import pytest

from reports import bars, figures, iterations, matrix, opening, tables
from reports.thresholds import held_against
from reports.wording import attack_figure, knowledge, route_cells, routes_note
from tests.built import built, claimed, control, mask, ran


def covered(path: str) -> int:
    """How many images the rectangles of a path cover."""
    return sum(int(width) for width in re.findall(r"h(\d+)v", path))


def test_runs_are_the_mask():
    mask = np.asarray([True, False, True, True, False, True])
    assert matrix.runs(mask) == "M0 0h1v1h-1zM2 0h2v1h-2zM5 0h1v1h-1z"
    assert matrix.runs(np.zeros(4, bool)) == ""


def test_a_strip_covers_what_the_attack_met():
    first, second = (
        claimed("pgd-20", mask((10, 40), (50, 60))),
        ran("apgd", mask((0, 5)), attacked=mask((0, 10), (40, 50))),
    )
    results = built(first, second, control())
    rows = matrix.strips(results)
    assert [row["name"] for row in rows] == ["pgd-20", "apgd"]
    one, two = rows
    assert (one["attacked"], one["broken"], one["first"]) == (900, 40, 40)
    assert {kind: covered(path) for kind, path in one["paths"].items()} == {"broken": 40, "stood": 860, "wrong": 100}
    assert one["paths"]["broken"].startswith("M0 0h40v1")  # first in the order: one block
    assert {kind: covered(path) for kind, path in two["paths"].items()} == {"broken": 5, "stood": 15, "wrong": 100}
    assert two["first"] == 5
    assert [kind for kind, _ in matrix.key(rows)] == ["claimed", "adaptive", "stood", "wrong", "none"]


def test_an_attack_that_crashed_is_not_drawn_as_survived():
    row = matrix.strips(built(ran("apgd", mask((0, 5)), errors=mask((5, 25)), attacked=mask((0, 30)))))[0]
    assert {kind: covered(path) for kind, path in row["paths"].items()} == {
        "broken": 5,
        "crashed": 20,
        "stood": 5,
        "wrong": 100,
    }


def test_the_table_of_images_says_who_broke_each():
    results = built(claimed("pgd-20", mask((1, 3))), ran("apgd", mask((2, 4))))
    rows = matrix.images(results, ["cat"])
    assert [row["first"] for row in rows[:5]] == ["stands", "pgd-20", "pgd-20", "apgd", "stands"]
    assert (rows[2]["count"], rows[2]["all"]) == (2, "pgd-20, apgd")
    assert rows[-1]["first"] == "misclassified"
    assert len(rows) == matrix.SHOWN


def test_iterations_end_in_the_figures_of_the_trace():
    step = ran("apgd", mask((0, 5)))
    trace = np.asarray(
        [(0.0, 4.0, 0.0, np.nan, 1.0), (1.0, 2.0, 0.2, np.nan, 2.0), (2.0, -1.0, 0.5, np.nan, 3.0)], np.float32
    )
    object.__setattr__(step, "traces", (trace,))
    (row,) = iterations.rows(built(step, control()))
    words = dict(zip(iterations.TITLES, (cell["words"] for cell in row["cells"]), strict=True))
    assert words == {
        "CE loss": "0 to 2", "margin": "4 to -1", "broken share": "0 to 0.5", "zero gradients": "not measured",
        "gradient norm": "1 to 3",
    }  # fmt: skip
    heights = [float(point.split(",")[1]) for point in row["cells"][2]["points"].split()]
    assert heights[0] == 19.0
    assert heights[-1] == pytest.approx(10.0)  # half of the way up: a share is drawn from 0 to 1


def test_margins_are_those_of_the_logits():
    results = built(claimed())
    logits, label = results.logits.copy(), np.zeros(len(results.label), np.int64)
    logits[:] = 0
    logits[0], label[0] = np.arange(logits.shape[1]), logits.shape[1] - 1
    logits[1, 3] = 5
    logits[2] = np.nan
    object.__setattr__(results, "logits", logits)
    object.__setattr__(results, "label", label)
    found = figures.logit_margins(results)
    assert len(found) == len(label) - 1
    assert found[:3].tolist() == [1.0, -5.0, 0.0]


def test_the_scale_puts_figures_where_they_belong():
    figure = {"accuracy": 0.25, "interval": [0.2, 0.3], "n": 100, "unknown": 0}
    nothing = {"accuracy": None, "interval": None, "n": None, "unknown": 0}
    data = {
        "claim": {"basis": "paper", "robust_acc": 0.8, "attack": "pgd"}, "clean": figure, "claimed": figure, "adaptive": nothing,
        "run": {"missing_units": 0},
    }  # fmt: skip
    claim, clean, _, adaptive = opening.scale(data)
    assert (claim["place"], claim["range"], claim["words"]) == (80.0, None, "80.0%")
    assert (clean["place"], clean["range"]) == (25.0, pytest.approx((20.0, 10.0)))
    assert (adaptive["place"], adaptive["range"]) == (None, None)
    assert "refused" in adaptive["words"]


def test_text_has_the_contrast_of_wcag_aa():
    """WCAG 2.2, success criterion 1.4.3: 4.5 to 1, on the page and on its panels, light and dark."""
    style = resources.files("reports").joinpath("templates/style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in blocks)
    for colours in light, dark:
        for ground in "paper", "panel":
            for ink in "ink", "muted", "claimed", "adaptive", "upheld", "refuted", "inconclusive":
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, colours[ink], colours[ground])
        assert contrast(colours["edge"], colours["paper"]) >= 3  # 1.4.11: borders of controls


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_class_names_in_a_figure_are_neither_formulas_nor_markup():
    results = built(claimed())
    object.__setattr__(results, "logits", np.zeros((len(results.label), 2), np.float32))
    drawing = figures.logit_heatmap(results, [r"$\nosuch{$", "<script>alert(1)</script>"])
    assert r"$\nosuch{$" in drawing
    assert "<script" not in drawing


def test_a_network_with_more_outputs_than_the_images_have_classes_is_drawn_for_those_classes():
    results = built(claimed())
    object.__setattr__(results, "logits", np.zeros((len(results.label), 1000), np.float32))
    assert "coat" in figures.logit_heatmap(results, ["shirt", "coat"])
    assert tables.logits(results, ["shirt", "coat"])["titles"] == ["images of class", "#shirt", "#coat"]


def test_an_end_to_end_figure_of_another_length_is_marked_as_such():
    nothing = {"accuracy": None, "interval": None}
    found = {"accuracy": 0.19, "interval": [0.13, 0.25]}
    rows = {
        "bare": found,
        "transfer": found,
        "first": nothing,
        "lowest": nothing,
        "alone": found,
        "end_to_end": found,
        "cumulative": False,
        "cascade": False,
    }
    own = rows | {"attack": "pgd-20", "step": "e2e-pgd-20"}
    longer = rows | {"attack": "pgd-100", "step": "e2e-pgd-20"}
    assert route_cells(own)[-1] == "19.0% [13.0%, 25.0%]"
    assert route_cells(longer)[-1] == "19.0% [13.0%, 25.0%] †"
    assert route_cells(longer | {"cumulative": True})[-1] == "19.0% [13.0%, 25.0%] * †"
    assert "†" not in routes_note(of(own))
    assert routes_note(of(own, longer)).endswith("† the same attack with the parameters of e2e-pgd-20.")


def test_figures_of_a_cascade_are_starred_on_each_route():
    found = {"accuracy": 0.19, "interval": [0.13, 0.25]}
    names = ("bare", "transfer", "first", "lowest", "alone", "end_to_end")
    family = {"attack": "square", "step": "square", "cumulative": True, "cascade": True, **dict.fromkeys(names, found)}  # fmt: skip
    assert route_cells(family) == ["19.0% [13.0%, 25.0%] *"] * 5
    assert "* is what this attack and the transfers before it leave" in routes_note(of(family))
    alone = family | {"cumulative": False, "cascade": False}
    assert route_cells(alone) == ["19.0% [13.0%, 25.0%]"] * 5
    assert "*" not in routes_note(of(alone))


def of(*families, clean=0.9, draws=1):
    return {"routes": families, "clean": {"accuracy": clean}, "draws": draws}


def test_what_looks_strange_in_the_routes_is_explained_where_it_stands():
    nothing, found = {"accuracy": None, "interval": None}, {"accuracy": 0.8, "interval": [0.7, 0.9]}
    family = {"attack": "apgd", "bare": found, "transfer": found, "first": found, "lowest": found, "alone": nothing, "end_to_end": nothing, "cumulative": False, "cascade": False, "step": None}  # fmt: skip
    assert route_cells(family)[-1] == "not run"
    note = routes_note(of(family, clean=0.79, draws=97))
    assert "Not run: this suite has no step" in note
    assert "above the clean accuracy is no mistake" in note
    assert "a mean over draws of its own" in note
    assert "the lowest of the four figures counts" in note
    calm = routes_note(of({**family, "end_to_end": found}, clean=0.8))
    assert "the worst of the four counts for each image" in calm
    assert "Not run" not in calm
    assert "no mistake" not in calm


def test_what_the_attack_alone_leaves_is_said_where_images_by_transfer_lowered_the_row():
    found, higher = {"accuracy": 0.1, "interval": [0.05, 0.2]}, {"accuracy": 0.3, "interval": [0.2, 0.4]}
    family = {"attack": "fgsm", "step": "e2e-fgsm", "cumulative": False, "cascade": False, **dict.fromkeys(("bare", "transfer", "first", "lowest", "end_to_end"), found)}  # fmt: skip
    assert route_cells(family | {"alone": higher})[-1] == "10.0% [5.0%, 20.0%] (30.0% by its own images)"
    assert route_cells(family | {"alone": found})[-1] == "10.0% [5.0%, 20.0%]"


def attacked(name="pgd", **changed):
    figure = {"accuracy": 0.2, "interval": [0.1, 0.3]}
    return {"name": name, "suite": "claimed", "scope": "all", "accuracy_is": "alone", "attacked": 80, "errors": 0, "done": True, **figure} | changed  # fmt: skip


def test_an_attack_with_nothing_left_to_attack_has_no_figure_and_no_bar():
    idle = attacked("idle", suite="adaptive", scope="survivors", accuracy_is="cumulative", attacked=0)
    assert attack_figure(idle) == "nothing left to attack"
    assert attack_figure(attacked()) == "20.0%"
    assert attack_figure(attacked(done=False, accuracy=None)) == "has not run"
    assert [a["name"] for a in bars.shown([attacked(), idle, attacked("control", scope="control")])] == ["pgd"]
    assert "idle" not in bars.attack_bars([attacked(), idle])
    assert bars.attack_bars([idle]) == ""


def test_the_bars_say_which_attacks_are_those_of_the_claim():
    both = bars.attack_bars([attacked(), attacked("apgd", suite="adaptive", accuracy_is="cumulative")])
    assert "apgd *" in both
    assert "attack of the claim" in both
    assert "another attack" in both
    assert "another attack" not in bars.attack_bars([attacked()])


def test_every_route_that_was_measured_has_a_bar():
    nothing, found = {"accuracy": None, "interval": None}, {"accuracy": 0.8, "interval": [0.7, 0.9]}
    drawn = bars.route_bars([{"attack": "pgd", "bare": found, "transfer": found, "end_to_end": nothing}])
    assert "by transfer" in drawn
    assert "end to end" not in drawn
    assert bars.route_bars([]) == ""


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "white box"),
        ({"attacks": [{"backwards": 0}]}, "black box"),
        ({"attacks": [{"backwards": 0}], "run": {"missing_units": 2}}, "white box"),
        ({"adaptive": {"accuracy": None}, "routes": [1]}, "grey box"),
    ],
)
def test_the_threat_model_says_what_the_attacks_knew(changed, words):
    data = {"attacks": [{"backwards": 9}], "adaptive": {"accuracy": 0.5}, "routes": [], "run": {"missing_units": 0}}
    assert knowledge(data | changed).startswith(words)


def blended(colour: str, ground: str, part: float) -> str:
    pairs = ((int(colour[i : i + 2], 16), int(ground[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part * a + (1 - part) * b):02x}" for a, b in pairs)


def test_what_lies_beside_another_in_a_graphic_has_the_contrast_of_wcag():
    """WCAG 2.2, 1.4.11: 3 to 1 between an interval and its bar, a bar's edge and the page, a strip and its ground."""
    style = resources.files("reports").joinpath("templates/style.css").read_text()
    for block in re.findall(r":root \{(.*?)\}", style, re.S):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", block))
        for name in "claimed", "adaptive", "muted":
            bar = blended(colours[name], colours["paper"], bars.TINT)
            assert contrast(colours["ink"], bar) >= 3, name
            assert contrast(colours[name], colours["paper"]) >= 3, name
        for name in "claimed", "adaptive", "muted", "refuted":
            assert contrast(colours[name], colours["panel"]) >= 3, name
    hatches = [kind.hatch for kind in bars.KINDS.values()]
    assert len({bars.KINDS[name].hatch for name in ("bare", "transfer", "end_to_end")}) == 3, hatches
    assert bars.KINDS["claimed"].hatch != bars.KINDS["adaptive"].hatch
    assert len(set(matrix.TOPS.values())) == len(matrix.TOPS)


def test_a_figure_is_drawn_for_the_desk_and_for_the_phone():
    drawn = bars.attack_bars([attacked()])
    assert re.findall(r'<svg role="img" aria-label="[^"]*" class="(\w+)"', drawn) == ["wide", "narrow"]
    assert not set(re.findall(r'id="(wide-[^"]+)"', drawn)) & set(re.findall(r'id="(narrow-[^"]+)"', drawn))
    ids = re.findall(r' id="([^"]+)"', drawn)
    assert len(ids) == len(set(ids))
    used = {*re.findall(r"url\(#([^)]+)\)", drawn), *re.findall(r'href="#([^"]+)"', drawn)}
    assert used <= set(ids)
    widths = [float(width) for width in re.findall(r'<svg role="img".*?width="([\d.]+)pt"', drawn, re.S)]
    assert widths == pytest.approx([figures.FULL * 72, figures.PHONE * 72])


def diagnosed(name="vanishing_gradient", status="flagged", value=0.935, threshold=0.01):
    return {"name": name, "status": status, "value": value, "threshold": threshold}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (diagnosed(), "0.935 > 0.01"),
        (diagnosed(status="clear", value=0.0), "0 ≤ 0.01"),
        (diagnosed(value=0.01), "0.01 ≥ 0.01"),
        (diagnosed("binarisation", value=0.5, threshold=0.95), "0.5 < 0.95"),
        (diagnosed("binarisation", "clear", 0.96, 0.95), "0.96 ≥ 0.95"),
        (diagnosed("dynamic", value=1.0, threshold=0.0), ""),
        (diagnosed(status="not_measured", value=None), ""),
        (diagnosed("larger_eps_does_not_help", value=0.0, threshold=0.05), ""),  # flagged by what stood at the end
        (diagnosed("clean_accuracy_handshake", "clear", 0.9, 0.001), ""),  # the threshold is a p-value
    ],
)
def test_a_diagnosis_shows_its_test(found, words):
    assert held_against(found) == words


def test_every_point_of_the_curves_can_be_had():
    step = ran("apgd", mask((0, 5)))
    trace = np.asarray([(0.0, 4.0, 0.0, np.nan, 1.0), (2.0, -1.0, 0.5, np.nan, 3.0)], np.float32)
    object.__setattr__(step, "traces", (trace,))
    rows = iterations.points(built(step, control()))
    assert len(rows) == iterations.POINTS
    assert rows[0] == ["apgd", "0.000", "0", "4", "0", "", "1"]
    assert rows[-1] == ["apgd", "1.000", "2", "-1", "0.5", "", "3"]
    assert [iterations.short(v) for v in (0, 1500, 12.345, 2e7, 0.0001)] == ["0", "1,500", "12.3", "2e+07", "0.0001"]
