"""Durations, rates and sizes as rule files write them: `30s`, `10/min`, `16MiB`. Exact integers: nanoseconds, bytes."""

from __future__ import annotations

import re

SECOND_NS = 1_000_000_000
_UNITS_NS = {
    "ms": SECOND_NS // 1000,
    "s": SECOND_NS,
    "sec": SECOND_NS,
    "second": SECOND_NS,
    "m": 60 * SECOND_NS,
    "min": 60 * SECOND_NS,
    "minute": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
    "hour": 3600 * SECOND_NS,
    "d": 86400 * SECOND_NS,
    "day": 86400 * SECOND_NS,
}
DAY_NS = 86400 * SECOND_NS
LONGEST_NS = 400 * DAY_NS
"""A duration above this is taken for a mistake."""

EVER_NS = 10**9 * DAY_NS
"""No duration that can be written is above this."""

_UNITS_BYTES = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "KiB": 1 << 10,
    "MB": 1000**2,
    "MiB": 1 << 20,
    "GB": 1000**3,
    "GiB": 1 << 30,
}

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|min|h|d)", re.ASCII)
_SIZE = re.compile(r"([1-9][0-9]{0,11})(B|kB|KB|KiB|MB|MiB|GB|GiB)", re.ASCII)
_RATE = re.compile(r"([0-9]{1,9})/([a-z]+)", re.ASCII)

DURATION_HELP = "write a number and a unit, such as `30s`, `10m`, `24h` or `7d`"
SIZE_HELP = "write a number and a unit, such as `512KiB` or `16MiB`"
FRACTION = re.compile(r"[0-9]*\.[0-9]+/[a-z]+", re.ASCII)
RATE_HELP = "write a number and a unit of time, such as `5/s`, `10/min`, `100/h` or `1000/d`"


def parse_duration(text: object, longest_ns: int = LONGEST_NS) -> int | None:
    """The nanoseconds of a text such as `24h`, more than 0; None when it is no such text, or above `longest_ns`."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if not found:
        return None
    value_ns = int(found[1]) * _UNITS_NS[found[2]]
    return value_ns if 0 < value_ns <= longest_ns else None


def parse_size(text: object) -> int | None:
    """The bytes of a text such as `16MiB`, more than 0; None when it is no such text."""
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    return int(found[1]) * _UNITS_BYTES[found[2]] if found else None


def parse_rate(text: object) -> tuple[int, int] | None:
    """(10, nanoseconds of a minute) for `10/min`; None when it is no such text."""
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    if not found or found[2] not in _UNITS_NS or not int(found[1]):
        return None
    return int(found[1]), _UNITS_NS[found[2]]


def show_duration(value_ns: int) -> str:
    """A duration for people: the largest unit that divides it, or seconds rounded up."""
    for unit in ("d", "h", "min", "s"):
        if value_ns and value_ns % _UNITS_NS[unit] == 0:
            return f"{value_ns // _UNITS_NS[unit]} {unit}"
    return f"{seconds_up(value_ns)} s"


def show_about(value_ns: int) -> str:
    """A duration for people who wait: in a unit that suits its length, rounded up, so never too short."""
    for unit in ("d", "h", "min"):
        if value_ns >= 2 * _UNITS_NS[unit]:
            return f"{-(-value_ns // _UNITS_NS[unit])} {unit}"
    return f"{seconds_up(value_ns)} s"


def seconds_up(value_ns: int) -> int:
    """Whole seconds, rounded up."""
    return -(-value_ns // SECOND_NS)
