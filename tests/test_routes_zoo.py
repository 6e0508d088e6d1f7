"""On the zoo's staged defenses an attack on the whole does, by its own images alone, no worse than by transfer. Slow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit.preparation import prepare
from audit.routes import routes
from audit.stats import drop_p_value
from tests.test_engine import run

pytestmark = pytest.mark.slow
N = 60


@pytest.mark.parametrize(
    ("defense", "attack", "gains"),
    [("tpap", "fgsm", False), ("tpap", "pgd-20", True), ("co_noise", "fgsm", True), ("co_noise", "pgd-50", True)],
)
def test_end_to_end_is_not_higher_than_the_lowest_row_by_transfer(defense, attack, gains, tmp_path):
    """Paired and exact: the sign-flip test on the draws of each image. The other way round it finds a difference where
    seeing the whole defense gains the attack something.
    """
    prepared = prepare(defense, suite="adaptive", n=N)
    plan = prepared.plan
    steps = tuple(step for step in plan.steps if step.name in (attack, f"e2e-{attack}"))
    identity = {**plan.identity, "steps": [step.to_dict() for step in steps]}
    _, results = run(replace(plan, identity=identity, steps=steps), prepared.target, tmp_path)
    grey, whole = results.named(attack, f"e2e-{attack}")
    (family,) = routes(results)
    assert family.step == whole.step.name
    assert family.lowest.accuracy == pytest.approx(float(grey.views["lowest"].mean()))
    ours, *theirs = (
        np.rint(step.views[view] * results.plan.draws).astype(np.int64)
        for step, view in ((whole, "returned"), (grey, "returned"), (grey, "first"), (grey, "lowest"))
    )
    lowest = min(theirs, key=np.sum)
    assert drop_p_value(ours, lowest) > 0.05
    assert (drop_p_value(lowest, ours) < 0.001) is gains
    assert family.end_to_end.accuracy <= family.transfer.accuracy
