"""Office hours: which moments lie within, over midnight and when clocks change, and what is wrong with bad ones."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from rules.during import During, parse_during
from rules.problems import RuleFileError
from rules.yamltree import parse


def during(text: str) -> During:
    return parse_during(parse(text, "rules.yaml"))


def ns(moment: str) -> int:
    """`2026-03-02 09:00:00 Europe/Berlin` in nanoseconds since 1970; `fold` for the second time of an hour."""
    day, time, zone, *fold = moment.split(" ")
    local = datetime.fromisoformat(f"{day} {time}").replace(tzinfo=ZoneInfo(zone), fold=len(fold))
    return int(local.timestamp()) * 10**9


OFFICE = "{days: mon-fri, from: '09:00', to: '17:30', zone: Europe/Berlin}"
NIGHT = "{days: [fri, sat], from: '22:00', to: '06:00', zone: UTC}"

# 2026-03-02 is a Monday
MOMENTS: list[tuple[str, str, str, bool]] = [
    ("the start counts", OFFICE, "2026-03-02 09:00:00 Europe/Berlin", True),
    ("a second before does not", OFFICE, "2026-03-02 08:59:59 Europe/Berlin", False),
    ("the last second counts", OFFICE, "2026-03-02 17:29:59 Europe/Berlin", True),
    ("the end does not", OFFICE, "2026-03-02 17:30:00 Europe/Berlin", False),
    ("the last day of a range counts", OFFICE, "2026-03-06 12:00:00 Europe/Berlin", True),
    ("the day behind it does not", OFFICE, "2026-03-07 12:00:00 Europe/Berlin", False),
    ("the zone's clock counts", OFFICE, "2026-03-02 08:30:00 UTC", True),
    ("in summer, too", OFFICE, "2026-07-06 07:00:00 UTC", True),
    ("in summer an hour earlier in UTC", OFFICE, "2026-07-06 15:30:00 UTC", False),
    ("its day counts, too", "{days: tue, zone: Asia/Tokyo}", "2026-03-02 15:00:00 UTC", True),
    ("over midnight: the evening", NIGHT, "2026-03-06 22:00:00 UTC", True),
    ("over midnight: the morning of the next day", NIGHT, "2026-03-07 05:59:59 UTC", True),
    ("over midnight: the end", NIGHT, "2026-03-07 06:00:00 UTC", False),
    ("over midnight: the last morning is another day", NIGHT, "2026-03-08 05:00:00 UTC", True),
    ("over midnight: no evening on another day", NIGHT, "2026-03-08 22:00:00 UTC", False),
    ("over midnight: no morning on the first day", NIGHT, "2026-03-06 05:00:00 UTC", False),
    (
        "over midnight: from Sunday to Monday",
        "{days: sun, from: '22:00', to: '02:00', zone: UTC}",
        "2026-03-02 01:00:00 UTC",
        True,
    ),
    ("days alone are whole days", "{days: sat, zone: UTC}", "2026-03-07 00:00:00 UTC", True),
    ("to the last second", "{days: sat, zone: UTC}", "2026-03-07 23:59:59 UTC", True),
    ("and no longer", "{days: sat, zone: UTC}", "2026-03-08 00:00:00 UTC", False),
    ("hours alone are on every day", "{from: '09:00', zone: UTC}", "2026-03-08 23:59:00 UTC", True),
    ("to alone starts at midnight", "{to: '09:00', zone: UTC}", "2026-03-08 00:00:00 UTC", True),
    ("to midnight", "{from: '20:00', to: '00:00', zone: UTC}", "2026-03-08 23:59:59 UTC", True),
    ("to midnight and no longer", "{from: '20:00', to: '24:00', zone: UTC}", "2026-03-08 00:00:00 UTC", False),
    ("a range over the week's end", "{days: sat-mon, zone: UTC}", "2026-03-02 12:00:00 UTC", True),
    ("a range over the week's end, outside", "{days: sat-mon, zone: UTC}", "2026-03-03 12:00:00 UTC", False),
    ("ranges in a list", "{days: [mon-tue, Friday], zone: UTC}", "2026-03-06 12:00:00 UTC", True),
    ("times need no quotes", "{from: 09:00, to: 10:00, zone: UTC}", "2026-03-02 09:30:00 UTC", True),
    # the clocks go forward in Berlin on 2026-03-29 at 02:00, back on 2026-10-25 at 03:00
    (
        "before the hour that is skipped",
        "{from: '02:00', to: '03:00', zone: Europe/Berlin}",
        "2026-03-29 00:59:59 UTC",
        False,
    ),
    (
        "an hour that is skipped is never",
        "{from: '02:00', to: '03:00', zone: Europe/Berlin}",
        "2026-03-29 01:00:00 UTC",
        False,
    ),
    (
        "an hour that is repeated counts",
        "{from: '02:00', to: '03:00', zone: Europe/Berlin}",
        "2026-10-25 00:30:00 UTC",
        True,
    ),
    ("both times", "{from: '02:00', to: '03:00', zone: Europe/Berlin}", "2026-10-25 01:30:00 UTC", True),
    ("and then is over", "{from: '02:00', to: '03:00', zone: Europe/Berlin}", "2026-10-25 02:00:00 UTC", False),
]


@pytest.mark.parametrize(("case", "text", "moment", "holds"), MOMENTS, ids=[row[0] for row in MOMENTS])
def test_which_moments_lie_within(case: str, text: str, moment: str, holds: bool) -> None:
    assert during(text).holds(ns(moment)) is holds, case


def test_the_last_nanosecond_before_the_end_lies_within() -> None:
    end = ns("2026-03-02 17:30:00 Europe/Berlin")
    assert during(OFFICE).holds(end - 1)
    assert not during(OFFICE).holds(end)


WRONG = [
    # text, column of the culprit, message, help
    ("mon-fri", 1, "`during` takes a mapping", "{days: mon-fri"),
    ("{days: mon, zon: 1, zone: UTC}", 13, "`zon` is not known in `during`", "did you mean `zone`?"),
    ("{days: mon, qqq: 1, zone: UTC}", 13, "`qqq` is not known in `during`", "known are `days`"),
    ("{days: mon}", 1, "names no zone", "zone: UTC"),
    ("{zone: UTC}", 1, "names neither days nor hours", "`days`"),
    ("{days: mo, zone: UTC}", 8, "`mo` is not a day", "mon, tue"),
    ("{days: [mon, fun-fri], zone: UTC}", 14, "`fun` is not a day", "mon, tue"),
    ("{days: mon-fri-sun, zone: UTC}", 8, "`fri-sun` is not a day", ""),
    ("{days: 1, zone: UTC}", 8, "`1` is not a day", ""),
    ("{days: [], zone: UTC}", 8, "`[]` is not a day", ""),
    ("{from: 9:00, zone: UTC}", 8, "`9:00` is not a time of day", "`09:00`"),
    ("{from: 9, zone: UTC}", 8, "`9` is not a time of day", "`09:00`"),
    ("{to: '25:00', zone: UTC}", 6, "`25:00` is not a time of day", ""),
    ("{to: '10:60', zone: UTC}", 6, "`10:60` is not a time of day", ""),
    ("{from: '24:00', to: '10:00', zone: UTC}", 8, "no day starts at `24:00`", "`00:00`"),
    ("{from: '10:00', to: '10:00', zone: UTC}", 8, "`from` and `to` are the same", "whole day"),
    ("{days: mon, zone: Europe/Berln}", 19, "`Europe/Berln` is not a time zone", "did you mean `Europe/Berlin`?"),
    ("{days: mon, zone: zzzz}", 19, "`zzzz` is not a time zone", "`UTC`"),
    ("{days: mon, zone: Europe}", 19, "`Europe` is not a time zone", ""),
    ("{days: mon, zone: ../UTC}", 19, "`../UTC` is not a time zone", ""),
    ("{days: mon, zone: 1}", 19, "`1` is not a time zone", ""),
]


@pytest.mark.parametrize(("text", "col", "message", "help"), WRONG)
def test_what_is_wrong_with_office_hours(text: str, col: int, message: str, help: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        during(text)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert help in problem.help
    assert (problem.code, problem.mark.col) == ("during", col)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(RuleFileError) as caught:
        during("{days: mo, from: 9, to: 10, zone: x}")
    assert [problem.mark.col for problem in caught.value.problems] == [8, 18, 25, 35]
