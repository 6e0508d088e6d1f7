"""Streams keep to themselves."""

import random

import numpy as np
import pytest
import torch

from audit.rng import Stream, derive_seed


def draw() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.rand()), random.random()


def test_a_seed_is_31_bits_and_depends_on_every_part():
    seeds = {derive_seed(0, "a", 1), derive_seed(0, "a", 2), derive_seed(0, "b", 1), derive_seed(1, "a", 1)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_parts_do_not_run_together():
    assert derive_seed("ab", "c") != derive_seed("a", "bc")


def test_a_seed_is_the_same_on_every_machine():
    assert derive_seed(3, "pgd", 7) == 1872073800  # a record of an old run must keep its meaning


def test_a_stream_leaves_the_outer_sequence_alone():
    with Stream(1):
        expected = [draw(), draw()]
    with Stream(1):
        first = draw()
        with Stream(2):
            draw()
            torch.manual_seed(0)
            np.random.seed(0)
            random.seed(0)
        assert [first, draw()] == expected


def test_a_stream_continues_where_it_left_off():
    with Stream(5):
        expected = [draw(), draw()]
    stream = Stream(5)
    got = []
    for _ in range(2):
        with stream:
            got.append(draw())
        torch.rand(3)
    assert got == expected


def test_streams_nest_without_mixing():
    outer, inner = Stream(1), Stream(2)
    with outer:
        a = draw()
        with inner:
            b = draw()
        c = draw()
    with Stream(1):
        assert [a, c] == [draw(), draw()]
    with Stream(2):
        assert b == draw()


def test_a_stream_is_restored_after_an_exception():
    before = torch.get_rng_state()
    stream = Stream(3)
    with pytest.raises(TypeError), stream:
        float(torch.rand(4), "too many arguments")
    assert torch.equal(torch.get_rng_state(), before)
    with stream:  # and can be entered again
        pass


def test_entering_a_stream_twice_is_an_error():
    stream = Stream(0)
    with stream, pytest.raises(RuntimeError, match="active already"):
        stream.__enter__()
