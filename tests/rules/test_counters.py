"""Counters of calls: what coming back and forgetting leave behind. What they admit is specified in `test_throttle`."""

from __future__ import annotations

from rules.guards.counters import SLICES, Rate, Slices
from rules.units import SECOND_NS

RATE = Rate(quota=2000, window_ns=100 * SECOND_NS, burst=0)
"""A slice of it is one second."""


def test_a_place_that_comes_back_leaves_the_others_of_its_slice() -> None:
    counter = Slices()
    for at_ns in (0, 1, 5 * SECOND_NS):
        counter.add(RATE, at_ns)
    counter.give_back(RATE, 0)
    assert counter.slices == {0: 1, 5: 1}
    counter.give_back(RATE, 0)
    assert counter.slices == {5: 1}


def test_what_has_left_the_window_is_forgotten() -> None:
    counter = Slices()
    for at_ns in (0, 5 * SECOND_NS):
        counter.add(RATE, at_ns)
    counter.forget(RATE, 101 * SECOND_NS)
    assert counter.slices == {5: 1}


def test_calls_that_wait_at_the_far_end_of_the_window_leave_no_place_before_them() -> None:
    counter = Slices(slices={SLICES: RATE.quota})
    assert counter.place(RATE, 0) == (2 * SLICES + 1) * SECOND_NS
    counter = Slices(slices={SLICES + 1: RATE.quota})
    assert counter.place(RATE, 0) == 0
