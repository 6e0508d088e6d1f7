import numpy as np
import pytest

from audit.budget import Budget, parse_budget
from audit.errors import BadInput


@pytest.mark.parametrize(("typed", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("20", 20), (" 2 m ", 120)])
def test_a_time_is_read_as_typed(typed, seconds):
    assert parse_budget(typed, None).seconds == seconds


@pytest.mark.parametrize("typed", ["", "0", "0m", "-5m", "5d", "m", "1e3s", "nan"])
def test_what_is_no_time_is_said(typed):
    with pytest.raises(BadInput, match=r"expected a time such as 90s, 5m or 1h"):
        parse_budget(typed, None)


def test_passes_must_be_positive():
    with pytest.raises(BadInput, match="expected at least 1"):
        parse_budget(None, 0)


def test_without_a_budget_nothing_is_ever_spent():
    free = parse_budget(None, None)
    free.pay({"forwards": np.array([10**15])}, {"seconds": 1e9})
    assert not free.spent


def test_each_kind_is_spent_by_what_units_cost():
    timed, counted = Budget(seconds=10), Budget(passes=100)
    unit = {"forwards": np.array([30, 20]), "backwards": np.array([25, 24])}
    for budget in (timed, counted):
        budget.pay(unit, {"seconds": 9.0})
        assert not budget.spent
        budget.pay({}, {"seconds": 1.0})  # the clean pass counts no passes
    assert timed.spent
    assert not counted.spent
    counted.pay({"forwards": np.array([1])}, {"seconds": 0.0})
    assert counted.spent
    assert "100 passes were used" in str(counted)
