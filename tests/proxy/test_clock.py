"""The clock never goes back: not when it is set back, and not over a restart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.clock import Clock


@given(st.lists(st.integers(0, 10**19), min_size=1))
def test_it_never_goes_back_and_never_lags_behind_the_wall(wall: list[int]) -> None:
    moments = iter(wall)
    clock = Clock(lambda: next(moments))
    given_ns = [clock.now_ns() for _ in wall]
    assert given_ns == sorted(given_ns)
    assert given_ns == [max(wall[: index + 1]) for index in range(len(wall))]


def test_what_is_recorded_counts_as_past() -> None:
    clock = Clock(lambda: 100)
    clock.advance(500)
    clock.advance(400)
    assert clock.now_ns() == 500
