"""Office hours: `during: {days: mon-fri, from: "09:00", to: "17:30", zone: Europe/Berlin}`.

`from` counts, `to` does not. Without `days` every day counts, without `from` a day starts at 00:00, without `to` it
ends at 24:00. Hours that pass midnight (`from: "22:00", to: "06:00"`) belong to the day on which they start. The clock
is the wall clock of `zone`: an hour that summer time skips is never, one that it repeats is twice.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, timedelta  # noqa: TID251 -- calendar arithmetic only: the moment is an argument
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from rules.problems import Mark, Problem, RuleFileError
from rules.yamltree import Node

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN: Final = 24 * 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class During(msgspec.Struct, frozen=True):
    """Spans of the week. `days`: Monday is 0. `from_min`, `to_min`: from 00:00 on; `to_min` may be on the next day."""

    days: frozenset[int]
    from_min: int
    to_min: int
    zone: ZoneInfo

    def holds(self, now_ns: int) -> bool:
        """Whether the moment `now_ns` (since 1970, UTC) lies within."""
        local = (_EPOCH + timedelta(microseconds=now_ns // 1000)).astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        today, yesterday = local.weekday(), (local.weekday() - 1) % 7
        if today in self.days and self.from_min <= minute < self.to_min:
            return True
        return yesterday in self.days and minute + DAY_MIN < self.to_min


_KEYS: Final = ("days", "from", "to", "zone")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_FULL_NAMES: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def parse_during(node: Node) -> During:
    """The hours that `node` says. Raises `RuleFileError` with everything that is wrong with them."""
    if node.kind != "map":
        node.fail("during", "`during` takes a mapping", "write `{days: mon-fri, from: 09:00, to: 17:00, zone: UTC}`")
    problems: list[Problem] = []

    def report(mark: Mark, message: str, help: str = "") -> None:
        problems.append(Problem("during", message, mark, help))

    for key, _ in node.entries:
        if key.scalar not in _KEYS:
            near = difflib.get_close_matches(str(key.scalar), _KEYS, 1)
            known = "known are " + ", ".join(f"`{name}`" for name in _KEYS)
            report(
                key.mark, f"`{key.scalar}` is not known in `during`", f"did you mean `{near[0]}`?" if near else known
            )
    days_node, from_node, to_node, zone_node = map(node.get, _KEYS)
    days: set[int] = set()
    if days_node:
        for item in days_node.items or (days_node,):
            found = _days(item)
            if isinstance(found, str):
                report(item.mark, found, "write `mon-fri`, `sat` or a list of such: " + ", ".join(DAYS))
            else:
                days.update(found)
    start, end = _minute(from_node, 0), _minute(to_node, DAY_MIN)
    for clock, minute in ((from_node, start), (to_node, end)):
        if clock and minute is None:
            report(clock.mark, f"`{clock.plain()}` is not a time of day", "write hours and minutes: `09:00`")
    if from_node and start == DAY_MIN:
        report(from_node.mark, "no day starts at `24:00`", "write `00:00`")
    elif from_node and start is not None and start == end:
        report(from_node.mark, "`from` and `to` are the same", "leave both out for the whole day")
    if not (days_node or from_node or to_node):
        report(node.mark, "`during` names neither days nor hours", "add `days`, or `from` and `to`")
    zone: ZoneInfo | None = None
    if not zone_node:
        report(node.mark, "`during` names no zone", "add `zone: UTC`, or a place such as `Europe/Berlin`")
    else:
        try:
            zone = parse_zone(zone_node)
        except RuleFileError as error:
            problems.extend(error.problems)
    if problems or start is None or end is None or zone is None:
        raise RuleFileError(tuple(problems))
    return During(frozenset(days or range(7)), start, end if end > start else end + DAY_MIN, zone)


def _days(node: Node) -> set[int] | str:
    """The days that one text names, or what is wrong with it."""
    if not isinstance(node.scalar, str):
        return f"`{node.plain()}` is not a day"
    first, dash, last = node.scalar.lower().partition("-")
    ends = []
    for day in (first, last) if dash else (first,):
        short = day[:3] if day in _FULL_NAMES else day
        if short not in DAYS:
            return f"`{day}` is not a day"
        ends.append(DAYS.index(short))
    span = (ends[-1] - ends[0]) % 7 + 1
    return {(ends[0] + step) % 7 for step in range(span)}


def _minute(node: Node | None, default: int) -> int | None:
    if node is None:
        return default
    found = _TIME.fullmatch(node.scalar) if isinstance(node.scalar, str) else None
    if not found:
        return None
    return int(found[1]) * 60 + int(found[2]) if found[1] else DAY_MIN


def parse_zone(node: Node) -> ZoneInfo:
    """The time zone that `node` names. Raises `RuleFileError`."""
    try:
        if isinstance(node.scalar, str):
            return ZoneInfo(node.scalar)
    except (KeyError, ValueError, OSError):  # no such zone; not a name; a directory of zones
        pass
    near = difflib.get_close_matches(str(node.plain()), available_timezones(), 1)
    say = f"did you mean `{near[0]}`?" if near else "write a name such as `Europe/Berlin` or `UTC`"
    return node.fail("during", f"`{node.plain()}` is not a time zone", say)
