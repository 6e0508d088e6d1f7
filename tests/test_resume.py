"""Kill it anywhere: the same command resumes and the records are the same, bit for bit. Slow: it starts many processes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from audit.ledger import Ledger
from audit.plan import read_plan

pytestmark = pytest.mark.slow
KILLS = 10
COMMAND = [
    sys.executable, "-m", "audit", "run", "--defense", "super_fitting", "--suite", "adaptive", "--n", "32",
    "--batch-size", "16", "--quiet", "--set", "square.n_queries=60", "--set", "fab-t.n_iter=5", "--set", "apgd-t.n_iter=10",
]  # fmt: skip


def finish(out: Path) -> None:
    subprocess.run([*COMMAND, "--out", str(out)], check=True)


def same_records(first: Path, second: Path) -> None:
    plan = read_plan(first)
    assert plan.fingerprint == read_plan(second).fingerprint
    for unit in plan.units():
        (a, meta_a), (b, meta_b) = Ledger(first).read(unit.name), Ledger(second).read(unit.name)
        assert a.keys() == b.keys()
        for name in a:
            assert np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f"), f"{name} of {unit.name}"
        assert {k: v for k, v in meta_a.items() if k != "seconds"} == {
            k: v for k, v in meta_b.items() if k != "seconds"
        }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, float]:
    out = tmp_path_factory.mktemp("whole") / "run"
    started = time.monotonic()
    finish(out)
    return out, time.monotonic() - started


def test_two_runs_with_one_seed_agree_bit_for_bit(whole, tmp_path):
    finish(tmp_path / "again")
    same_records(whole[0], tmp_path / "again")


def test_killed_at_ten_random_moments_it_gives_the_same_records(whole, tmp_path):
    out, seconds = tmp_path / "killed", whole[1]
    moments = random.Random(20261121)
    killed = 0
    while killed < KILLS:
        process, started = subprocess.Popen([*COMMAND, "--out", str(out)]), time.monotonic()
        try:
            process.wait(timeout=moments.uniform(0.3, 0.95) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        else:  # it had come to its end between two kills: the next ones hit a fresh run
            assert process.returncode == 0
            same_records(whole[0], out)
            out = tmp_path / f"killed-{killed}"
            seconds = min(seconds, time.monotonic() - started)  # the machine was busier when the whole run was timed
        process.wait()
    finish(out)
    same_records(whole[0], out)
