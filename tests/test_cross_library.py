"""The registered attack and the same attack of another library agree within noise, on three zoo models."""

import pytest

from tests.cross_library import MODELS, PAIRS, compare

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the other library's, called as it is
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.attack)
def test_two_libraries_agree_within_noise(pair, name):
    row = compare(pair, name)
    assert row.p_value > 0.01, str(row)
    if pair.norm == "L2":
        ours, theirs = row.median
        assert ours <= 1.25 * theirs, str(row)
