"""The rows of a defense with a test-time part, on results built by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit.routes import routes
from tests.built import N, built, mask, ran


def by_transfer(**views: np.ndarray):
    step = ran("fgsm", suite="claimed", scope="all", attack="fgsm", adapters=("base",))
    return replace(step, views={name: p.astype(np.float32) for name, p in views.items()})


def end_to_end(returned: np.ndarray):
    return replace(
        ran("e2e-fgsm", scope="all", attack="fgsm", adapters=("bpda",)), views={"returned": returned.astype(np.float32)}
    )


def rows(*steps, draws=1):
    (family,) = routes(built(*steps, staged=True, draws=draws))
    return family


RETURNED, FIRST, LOWEST, OWN = mask((0, 300)), mask((50, 800)), mask((100, 900)), mask((0, 200), (600, 850))


def test_who_sees_the_whole_has_the_images_by_transfer_beside_his_own():
    """On images 100 to 200 all four fail to fool the defense; each of the others falls to one at least."""
    family = rows(by_transfer(returned=RETURNED, first=FIRST, lowest=LOWEST), end_to_end(OWN))
    assert (family.transfer.accuracy, family.alone.accuracy) == pytest.approx((0.3, 0.45))
    assert family.end_to_end.accuracy == pytest.approx((RETURNED & FIRST & LOWEST & OWN).sum() / N) == 0.1
    assert family.step == "e2e-fgsm"


def test_of_a_random_defense_the_lowest_figure_counts_and_no_minimum_over_noisy_shares():
    """Shares of 0.4 and 0.6 by chance: their minimum per image would be 0.4 throughout, the lower mean is 0.499."""
    noisy = np.where(np.arange(N) % 2, 0.4, 0.6)
    first = np.roll(noisy, 1)
    first[0] = 0.3
    family = rows(
        by_transfer(returned=np.full(N, 0.7), first=first, lowest=np.full(N, 0.8)), end_to_end(noisy), draws=97
    )
    assert family.alone.accuracy == pytest.approx(0.5, abs=1e-3)
    assert family.end_to_end.accuracy == pytest.approx(first.mean(), abs=1e-3)
    assert family.end_to_end.accuracy > 0.49


def test_without_an_attack_on_the_whole_there_is_no_end_to_end_row():
    family = rows(by_transfer(returned=RETURNED, first=FIRST, lowest=LOWEST))
    assert family.transfer.accuracy == pytest.approx(0.3)
    assert family.alone is None
    assert family.end_to_end is None


def test_a_row_shows_the_step_that_it_goes_beside_and_no_later_one_of_the_same_attack():
    beside = replace(
        by_transfer(returned=RETURNED),
        step=ran("transfer-momentum", scope="all", attack="mi-fgsm", adapters=("base",)).step,
    )
    own = replace(end_to_end(OWN), step=ran("momentum", scope="all", attack="mi-fgsm").step)
    later = ran("momentum-probs", mask((0, 100)), attack="mi-fgsm")
    family = rows(beside, own, later)
    assert (family.attack, family.step, family.cumulative, family.cascade) == ("momentum", "momentum", False, False)
    assert family.alone.accuracy == pytest.approx(OWN.sum() / N)
    without = rows(beside, later)
    assert (without.step, without.cumulative) == ("momentum-probs", True)
