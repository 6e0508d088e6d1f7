"""Distances of least-norm attacks, from the engine to the page."""

import math

import numpy as np
import pytest
import torch

from audit import registry
from audit.attacks.common import attack
from audit.curves import curves
from audit.types import Step
from reports.radii import curve_rows, curve_titles
from tests.built import built, ran
from tests.test_engine import EPS, grey, make_plan, run


@attack(
    "planted",
    library="tests",
    norms=("Linf",),
    needs="gradient",
    kind="minimal",
    reference="tests",
    cost=lambda _: (1, 0),
)
def brightens(model, x, y, threat, *, seed, step=0.02):
    """The nearest image on a ladder of brightness that the model gets wrong; the clean image above a step of 0.06."""
    model(x)
    ladder = [x + step * i for i in range(1, 4)]
    result = x.clone()
    for candidate in reversed(ladder):
        wrong = candidate.flatten(1).mean(1) > 0.5
        result[wrong] = candidate[wrong]
    return result


@pytest.fixture(autouse=True)
def _planted(monkeypatch):
    monkeypatch.setitem(registry.attacks._targets, "brightens", "tests.test_curves:brightens")


def test_a_distance_is_measured_beyond_the_ball(tmp_path):
    """Images of brightness 0.40 to 0.52: the ladder of 0.02 breaks what lies within 0.06 of 0.5."""
    _, results = run(make_plan([Step("planted", "brightens", "claimed", "all")]), grey(), tmp_path)
    (step,) = results.steps
    expected = [math.inf, math.inf, math.inf, 0.06, 0.04, 0.02, 0, 0]
    assert step.nearest.tolist() == pytest.approx(expected, abs=1e-6)
    (curve,) = curves(results)
    assert curve.missed == 3
    assert curve.median == math.inf
    assert [(eps, figure.correct) for eps, figure in curve.points] == [
        (pytest.approx(EPS / 4), 6), (pytest.approx(EPS / 2), 5), (EPS, 4), (2 * EPS, 3), (4 * EPS, 3)
    ]  # fmt: skip


def test_an_attack_that_fills_the_ball_has_no_curve(tmp_path):
    _, results = run(make_plan([Step("planted", "pgd", "claimed", "all")]), grey(), tmp_path)
    assert np.isnan(results.steps[0].nearest[:6]).all()
    assert curves(results) == []


def test_images_made_for_the_bare_network_have_no_curve():
    near = np.where(np.arange(1000) < 900, 0.05, np.nan).astype(np.float32)
    own, grey = (
        ran(name, scope="all", nearest=near, adapters=a) for name, a in (("fmn", ()), ("transfer-fmn", ("base",)))
    )
    assert [c.step for c in curves(built(own, grey))] == ["fmn"]
    claim = ran("cw-l2-10", suite="claimed", scope="all", nearest=near, adapters=("base",))
    assert [c.step for c in curves(built(claim, grey))] == ["cw-l2-10"]


def test_an_attack_on_survivors_alone_has_no_curve(tmp_path):
    steps = [Step("first", "pgd", "claimed", "all"), Step("planted", "brightens", "adaptive")]
    _, results = run(make_plan(steps), grey(), tmp_path)
    assert results.steps[1].attacked.sum() < results.correct.sum()
    assert curves(results) == []


def test_an_image_that_is_no_number_has_no_distance(tmp_path, monkeypatch):
    function = registry.attacks.load("brightens").function

    def one_nan(*args, **options):
        result = function(*args, **options)
        return torch.cat([result[:1] * float("nan"), result[1:]])

    monkeypatch.setattr(brightens.__class__, "__call__", lambda self, *a, seed, **k: one_nan(*a, seed=seed, **k))
    _, results = run(make_plan([Step("planted", "brightens", "claimed", "all")]), grey(), tmp_path)
    assert np.isnan(results.steps[0].nearest[0])
    assert curves(results) == []


def test_rows_for_the_page():
    near = np.where(np.arange(1000) < 900, np.linspace(0, 0.1, 1000), np.nan).astype(np.float32)
    results = built(ran("fmn", scope="all", nearest=near))
    points = [{"eps": eps, "accuracy": f.accuracy} for eps, f in curves(results)[0].points]
    data = {"curves": [{"step": "fmn", "median": 0.045, "missed": 0, "points": points}]}
    assert curve_titles(data) == [
        "attack", "#median distance", "#none found", *(f"#at {e}/255" for e in (2, 4, 8, 16, 32)),
    ]  # fmt: skip
    assert curve_rows(data)[0][:5] == ["fmn", "0.045", "0", "82.1%", "74.3%"]
    assert curve_titles({"curves": []}) == ["attack", "#median distance", "#none found"]
