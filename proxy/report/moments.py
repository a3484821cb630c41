"""Times and durations as people write and read them. Inside, they are integer nanoseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

SECOND_NS = 1_000_000_000
UNITS_NS = {
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
    "d": 86400 * SECOND_NS,
    "w": 7 * 86400 * SECOND_NS,
}

LATEST_NS = 2**63 - 1 - UNITS_NS["d"]
"""Later moments (after April 2262) do not fit into a ledger, and are taken for this one."""

_SPAN = re.compile(r"(?:[0-9]{1,6}[smhdw])+")
_PART = re.compile(r"([0-9]+)([smhdw])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MomentError(ValueError):
    """The text is no time. Its message is one line."""


def read_span(text: str) -> int:
    """A duration such as `90s`, `10m`, `1h30m`, `3d` in nanoseconds."""
    if _SPAN.fullmatch(text) is None:
        raise MomentError(f"`{text}` is no duration: write one such as `90s`, `10m`, `2h`, `3d`")
    return sum(int(number) * UNITS_NS[unit] for number, unit in _PART.findall(text))


def read_moment(text: str, now_ns: int, *, ahead: bool = False) -> int:
    """A moment in nanoseconds since the epoch: a duration before now (or `ahead` of it), or an ISO date or time.

    A time without a zone is in the zone of this machine, as the tables show it.
    """
    if _SPAN.fullmatch(text):
        return _within(now_ns + read_span(text) * (1 if ahead else -1))
    try:
        moment = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise MomentError(f"`{text}` is no time: write `10m`, `2h`, `3d`, or `2026-01-31T12:00`") from None
    return _within((moment - _EPOCH) // timedelta(microseconds=1) * 1000)


def show_minute(at_ns: int) -> str:
    """A moment in local time, to the minute."""
    return (_EPOCH + timedelta(microseconds=at_ns // 1000)).astimezone().strftime("%Y-%m-%d %H:%M")


def show_second(at_ns: int) -> str:
    """A moment in local time with its zone, to the second."""
    return (_EPOCH + timedelta(microseconds=at_ns // 1000)).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def show_span(ns: int) -> str:
    """A duration with two or three digits that matter: `850 us`, `12 ms`, `1.4 s`, `3 min`, `2 h 5 min`."""
    if ns < 1_000_000:
        return f"{ns // 1000} us"
    if ns < SECOND_NS:
        return f"{ns // 1_000_000} ms"
    if ns < 60 * SECOND_NS:
        tenths = ns // 100_000_000
        return f"{tenths // 10}.{tenths % 10} s"
    minutes = ns // UNITS_NS["m"]
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"


def show_size(size_bytes: int) -> str:
    """A size with its unit: `512 B`, `1.5 KiB`, `20 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    tenths = size_bytes * 10 // 1024
    for unit in ("KiB", "MiB", "GiB"):
        if tenths < 10240 or unit == "GiB":
            break
        tenths //= 1024
    return f"{tenths // 10}.{tenths % 10} {unit}" if tenths < 100 else f"{tenths // 10} {unit}"


def _within(at_ns: int) -> int:
    return min(max(at_ns, 0), LATEST_NS)
