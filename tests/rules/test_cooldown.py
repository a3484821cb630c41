"""cooldown: when an upstream asks for a pause, all who share the host and the credential make one."""

from __future__ import annotations

from typing import Any

import pytest

from rules.decision import Answer, Change
from rules.guards.cooldown import Cooldowns, pause_until
from tests.rules.world import LOST, OK, START, WITHDRAWN, S, World, answered, call

GET = call("GET", "/a")
RULES = "rules: [{id: all, match: '**', allow: true}]".replace("'**'", "'https://**'")
AT = START // S

PAUSES: list[tuple[str, Answer, float]] = [
    ("429 says for how long", answered(429, ("retry-after", "7")), 7),
    ("429 does not say", answered(429), 60),
    ("429 says nonsense", answered(429, ("retry-after", "soon")), 60),
    ("429 says zero", answered(429, ("retry-after", "0")), 0),
    ("no longer than an hour", answered(429, ("retry-after", "86400")), 3600),
    ("503 says", answered(503, ("retry-after", " 5 ")), 5),
    ("a bare 503", answered(503), 0),
    ("a date", answered(429, ("retry-after", "Mon, 05 Jan 2026 12:00:30 GMT")), 30),
    ("a date in the past", answered(429, ("retry-after", "Mon, 05 Jan 2026 11:00:30 GMT")), 0),
    ("a month that is none", answered(429, ("retry-after", "Mon, 05 Jen 2026 12:00:30 GMT")), 60),
    ("403 of an exhausted quota", answered(403, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", str(AT + 9))), 9),
    ("its reset as a delay", answered(403, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "12")), 12),
    ("its reset is nonsense", answered(403, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "-")), 60),
    ("Retry-After comes first", answered(429, ("retry-after", "3"), ("x-ratelimit-remaining", "0")), 3),
    ("403 with quota left", answered(403, ("x-ratelimit-remaining", "1")), 0),
    ("403 for another reason", answered(403), 0),
    ("200 with no quota left", answered(200, ("x-ratelimit-remaining", "0")), 0),
    ("no answer", LOST, 0),
    ("the first of two headers counts", answered(429, ("retry-after", "3"), ("retry-after", "30")), 3),
]


@pytest.mark.parametrize(("case", "answer", "seconds"), PAUSES, ids=[row[0] for row in PAUSES])
def test_how_long_an_answer_asks_to_pause(case: str, answer: Answer, seconds: float) -> None:
    asked = pause_until(answer, START)
    assert max(asked - START, 0) == seconds * S


def test_a_pause_refuses_with_the_time_that_is_left() -> None:
    world = World(RULES)
    world.do(GET, answered(429, ("retry-after", "7")), at=0)
    refused = world.ask(GET, at=2.5)
    assert (refused.action, refused.code, refused.executed, refused.rules) == (
        "throttle",
        "upstream-cooldown",
        "no",
        (),
    )
    assert (refused.retry_after_ns, refused.changes) == (int(4.5 * S), ())
    assert "5 s" in refused.detail
    assert world.do(GET, at=7) == "allow"


@pytest.mark.parametrize(
    ("other", "then"),
    [
        ({"agent": "bob", "run": "other"}, "upstream-cooldown"),
        ({"path": "/b", "method": "POST"}, "upstream-cooldown"),
        ({"credential": "another"}, "allow"),
        ({"host": "api.example.org"}, "allow"),
        ({"port": 8443}, "allow"),
    ],
)
def test_who_pauses(other: dict[str, Any], then: str) -> None:
    world = World("rules: [{id: all, match: ['https://**', 'https://**:8443/**'], allow: true}]")
    world.do(GET, answered(429))
    assert world.do(call(**{"method": "GET", "path": "/a", **other})) == then


def test_one_goes_first_and_the_others_follow_its_answer() -> None:
    world = World(RULES)
    world.do(GET, answered(429, ("retry-after", "5")), at=0)
    assert world.ask(GET, at=5).action == "allow"
    behind = world.ask(GET, at=6)
    assert (behind.code, behind.retry_after_ns) == ("upstream-cooldown", 9 * S)
    world.end(OK)
    assert [world.ask(GET, at=6).action for _ in range(2)] == ["allow", "allow"]
    assert world.refold() == world.state


@pytest.mark.parametrize("end", [LOST, WITHDRAWN])
def test_when_the_first_gets_no_answer_another_goes_first(end: Answer) -> None:
    world = World(RULES)
    world.do(GET, answered(429, ("retry-after", "5")), at=0)
    world.do(GET, end, at=5)
    assert [world.ask(GET, at=6).action for _ in range(2)] == ["allow", "throttle"]


def test_a_slow_first_call_holds_nobody_for_long() -> None:
    world = World(RULES)
    world.do(GET, answered(429, ("retry-after", "5")), at=0)
    world.ask(GET, at=5)
    assert world.ask(GET, at=14.9).code == "upstream-cooldown"
    assert world.ask(GET, at=15).action == "allow"


def test_another_request_to_slow_down_starts_again() -> None:
    world = World(RULES)
    world.do(GET, answered(429, ("retry-after", "5")), at=0)
    world.do(GET, answered(429, ("retry-after", "20")), at=5)
    assert world.do(GET, at=24.9) == "upstream-cooldown"
    assert world.do(GET, at=25) == "allow"


def test_a_pause_is_never_made_shorter_by_another_answer() -> None:
    world = World(RULES)
    world.ask(GET, at=0)
    world.ask(GET)
    world.end(answered(429, ("retry-after", "30")), "call-1")
    world.end(answered(429, ("retry-after", "1")), "call-2")
    assert world.do(GET, at=29) == "upstream-cooldown"


def test_a_minute_after_the_pause_it_is_forgotten() -> None:
    world = World(RULES)
    world.do(GET, answered(429, ("retry-after", "5")), at=0)
    assert [world.ask(GET, at=65).action for _ in range(2)] == ["allow", "allow"]
    for n in range(100):
        world.do(call("GET", credential=f"c{n}"), answered(429, ("retry-after", "5")), at=100 + n)
    pauses = world.state.of(Cooldowns)
    assert len(pauses.pauses) <= 67
    assert len(pauses.due.heap) <= 67
    assert world.refold() == world.state


def test_changes_of_a_pause_that_is_gone_are_ignored() -> None:
    cooldowns = Cooldowns()
    for op in ("probe", "clear", "no-answer"):
        cooldowns.apply(Change("cooldown", "", "k", op, {"at_ns": 1, "call": "x", "until_ns": 2}))
    assert cooldowns == Cooldowns()
