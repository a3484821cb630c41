"""Times and durations: how people may write them, and how they are shown."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from proxy.report.moments import LATEST_NS, MomentError, read_moment, read_span, show_minute, show_size, show_span

NOW_NS = 1_800_000_000_000_000_000  # 2027-01-15 08:00 UTC
SECOND_NS = 10**9


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An hour east of Greenwich, whatever this machine thinks."""
    monkeypatch.setenv("TZ", "XXX-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("3d", 259200), ("1w", 604800), ("0s", 0)],
)
def test_durations_count_back_from_now_or_ahead(text: str, seconds: int) -> None:
    assert read_span(text) == seconds * SECOND_NS
    assert read_moment(text, NOW_NS) == NOW_NS - seconds * SECOND_NS
    assert read_moment(text, NOW_NS, ahead=True) == NOW_NS + seconds * SECOND_NS


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("2027-01-15T08:00Z", 1_800_000_000),
        ("2027-01-15T09:00", 1_800_000_000),
        ("2027-01-15 09:00:30", 1_800_000_030),
        ("2027-01-15", 1_799_967_600),
        ("2027-01-15T10:00+02:00", 1_800_000_000),
        ("1900-01-01", 0),
    ],
)
def test_dates_and_times_are_local_unless_they_say_otherwise(text: str, second: int) -> None:
    assert read_moment(text, NOW_NS) == second * SECOND_NS


def test_what_no_ledger_can_hold_is_cut() -> None:
    assert read_moment("3000-01-01", NOW_NS) == LATEST_NS
    assert read_moment("999999w", NOW_NS) == 0


@pytest.mark.parametrize(
    "text", ["", "yesterday", "10", "m", "-5m", "1.5h", "10 m", "2027-13-01", "9999-12-31T24", "٣m"]
)
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(MomentError, match="is no time"):
        read_moment(text, NOW_NS)


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (850_000, "850 us"), (12_400_000, "12 ms"), (1_450_000_000, "1.4 s"), (59 * SECOND_NS, "59.0 s"),
        (60 * SECOND_NS, "1 min"), (7200 * SECOND_NS, "2 h"), (7500 * SECOND_NS, "2 h 5 min"),
        (86400 * 3 * SECOND_NS, "3 d"),
    ],
)  # fmt: skip
def test_durations_are_shown_with_the_digits_that_matter(ns: int, shown: str) -> None:
    assert show_span(ns) == shown


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20 << 20, "20 MiB"), (5 << 40, "5120 GiB")]
)
def test_sizes_have_their_unit(size: int, shown: str) -> None:
    assert show_size(size) == shown


def test_minutes_are_local() -> None:
    assert show_minute(NOW_NS) == "2027-01-15 09:00"
