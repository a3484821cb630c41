"""Ids sort by time, and are what they say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger.ids import new_id

times = st.integers(0, 2**48 - 1).map(lambda ms: ms * 1_000_000)
randoms = st.binary(min_size=10, max_size=10)


@given(times, randoms)
def test_an_id_is_a_prefix_and_26_digits(now_ns: int, random_bytes: bytes) -> None:
    assert re.fullmatch("c_[0-7][0-9a-hjkmnp-tv-z]{25}", new_id(now_ns, random_bytes))
    assert new_id(now_ns, random_bytes, "r").startswith("r_")


@given(times, times, randoms, randoms)
def test_ids_sort_by_time_then_by_randomness(one_ns: int, other_ns: int, one: bytes, other: bytes) -> None:
    assert (new_id(one_ns, one) < new_id(other_ns, other)) == ((one_ns, one) < (other_ns, other))


def test_it_takes_exactly_80_random_bits() -> None:
    with pytest.raises(ValueError, match="10 random bytes, not 9"):
        new_id(0, b"123456789")
