"""Periods of budgets: rolling (`24h`: whatever stretch of time you look at) or by the calendar of a zone (`day`).

A period answers two questions: from when on does what was spent count now, and when will it count no more. Days, weeks
and months begin at midnight as the zone's clocks show it, so a day may have 23 or 25 hours. Weeks begin on Monday.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta  # noqa: TID251 -- calendar arithmetic only: moments are arguments
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from rules.during import parse_zone
from rules.guards.reading import shown
from rules.units import DURATION_HELP, SECOND_NS, parse_duration
from rules.yamltree import Node

type Unit = Literal["day", "week", "month"]
UNITS: tuple[Unit, ...] = ("day", "week", "month")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Rolling(msgspec.Struct, frozen=True):
    """Any stretch of `length_ns`, written `text`. What was spent exactly that long ago counts no more."""

    length_ns: int
    text: str

    @property
    def longest_ns(self) -> int:
        """An amount counts for no longer than this."""
        return self.length_ns

    def since_ns(self, now_ns: int) -> int:
        """What was spent at this moment or later counts at `now_ns`."""
        return now_ns - self.length_ns + 1

    def until_ns(self, at_ns: int) -> int:
        """From this moment on, what was spent at `at_ns` counts no more."""
        return at_ns + self.length_ns

    def __str__(self) -> str:
        return f"in any {self.text}"


class Calendar(msgspec.Struct, frozen=True):
    """The day, week or month of `zone` in which a moment lies."""

    unit: Unit
    zone: ZoneInfo

    @property
    def longest_ns(self) -> int:
        """As for `Rolling`. A day longer than the longest, for clocks that are set back."""
        return {"day": 2, "week": 8, "month": 32}[self.unit] * 86_400 * SECOND_NS

    def since_ns(self, now_ns: int) -> int:
        """As for `Rolling`."""
        return self._begins_ns(self._first(now_ns))

    def until_ns(self, at_ns: int) -> int:
        """As for `Rolling`."""
        first = self._first(at_ns)
        if self.unit == "day":
            return self._begins_ns(first + timedelta(days=1))
        if self.unit == "week":
            return self._begins_ns(first + timedelta(days=7))
        return self._begins_ns((first + timedelta(days=31)).replace(day=1))

    def _first(self, at_ns: int) -> date:
        """The first day of the period that holds `at_ns`."""
        day = (_EPOCH + timedelta(microseconds=at_ns // 1000)).astimezone(self.zone).date()
        if self.unit == "week":
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self.unit == "month" else day

    def _begins_ns(self, day: date) -> int:
        """When `day` begins: at midnight, or when midnight was skipped, with the first moment after it."""
        begins = datetime(day.year, day.month, day.day, tzinfo=self.zone) - _EPOCH
        return (begins // timedelta(microseconds=1)) * 1000

    def __str__(self) -> str:
        zone = "" if self.zone.key == "UTC" else f" of {self.zone.key}"
        return f"in a {self.unit}{zone}"


type Period = Rolling | Calendar


def parse_period(per: Node, zone: Node | None) -> Period:
    """`24h`, or `day`, `week` or `month` with an optional zone. Raises `RuleFileError` pointing into the nodes."""
    for unit in UNITS:
        if per.scalar == unit:
            return Calendar(unit, ZoneInfo("UTC") if zone is None else parse_zone(zone))
    length_ns = parse_duration(per.scalar)
    if length_ns is None:
        per.fail("duration", f"{shown(per)} is no period", f"{DURATION_HELP}; or `day`, `week` or `month`")
    if zone is not None:
        mend = "remove it; or write `per: day`, which goes by the calendar"
        zone.fail("conflict", "a rolling period is the same in every zone", mend)
    return Rolling(length_ns, str(per.scalar))
