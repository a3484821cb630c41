"""breaker: an upstream that fails again and again is left alone, and used again as soon as it recovers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rules.decision import Answer, Change
from rules.guards.breaker import KEPT_NS, Circuits
from rules.guards.probe import PROBE_NS
from rules.needs import needs
from rules.state import SetBack
from tests.rules.world import LOST, OK, START, WITHDRAWN, S, World, answered, call, rules

RULES = "rules: [{id: all, match: ['https://**', 'https://**:8443/**'], allow: true, breaker: %s}]"
GET = call("GET", "/a")
REFUSED = Answer(0, complete=False, sent=False, error="connection refused")
TRUNCATED = Answer(200, complete=False, sent=True, error="the answer broke off")
LEFT = Answer(0, complete=False, sent=True, abandoned=True, error="its client left")
BAD = answered(503)


def world(breaker: str = "true") -> World:
    return World(RULES % breaker)


def opened(breaker: str = "true", failures: int = 5) -> World:
    made = world(breaker)
    assert [made.do(GET, BAD, at=0) for _ in range(failures)] == ["allow"] * failures
    return made


@pytest.mark.parametrize("failure", [REFUSED, LOST, TRUNCATED, answered(502), answered(503), answered(504)])
def test_five_failures_in_a_row_open_it(failure: Answer) -> None:
    made = world()
    assert [made.do(GET, failure) for _ in range(7)] == ["allow"] * 5 + ["circuit-open"] * 2


@pytest.mark.parametrize("status", [200, 204, 304, 400, 401, 403, 404, 408, 409, 422, 499, 500, 501])
def test_any_other_answer_is_no_failure_and_ends_the_row(status: int) -> None:
    made = world()
    assert [made.do(GET, answered(status)) for _ in range(9)] == ["allow"] * 9
    assert [made.do(GET, BAD) for _ in range(4)] == ["allow"] * 4
    assert made.do(GET, answered(status)) == "allow"
    assert [made.do(GET, BAD) for _ in range(6)] == ["allow"] * 5 + ["circuit-open"]


@pytest.mark.parametrize("ours", [LEFT, WITHDRAWN])
def test_what_we_broke_off_ourselves_counts_for_nothing(ours: Answer) -> None:
    made = world()
    assert [made.do(GET, ours) for _ in range(9)] == ["allow"] * 9
    assert [made.do(GET, BAD) for _ in range(4)] == ["allow"] * 4
    assert made.do(GET, ours) == "allow"
    assert [made.do(GET, BAD) for _ in range(2)] == ["allow", "circuit-open"]


def test_the_refusal_says_how_long() -> None:
    made = opened()
    refused = made.ask(GET, at=22.5)
    assert (refused.action, refused.code, refused.executed, refused.rules) == (
        "throttle",
        "circuit-open",
        "no",
        ("all",),
    )
    assert (refused.retry_after_ns, refused.changes) == (int(7.5 * S), ())
    assert "failed 5 times in a row" in refused.detail
    assert "8 s" in refused.detail


def test_one_goes_first_and_a_success_closes_it() -> None:
    made = opened()
    assert made.do(GET, at=30 - 1e-9) == "circuit-open"
    assert made.ask(GET, at=30).action == "allow"
    probe = list(made.out)[-1]
    refused = made.ask(GET, at=31)
    assert (refused.code, refused.retry_after_ns) == ("circuit-open", PROBE_NS - S)
    made.end(OK, probe)
    assert [made.do(GET, BAD) for _ in range(5)] == ["allow"] * 5, "the row begins anew"
    assert made.do(GET, at=60) == "circuit-open"
    assert made.do(GET, at=61) == "allow", "and so do the times"


def test_it_stays_open_longer_each_time_up_to_ten_times() -> None:
    made = opened()
    at, spans = 0, []
    for _ in range(12):
        wait_ns = made.ask(GET, at=at).retry_after_ns
        spans.append(wait_ns // S)
        at += wait_ns // S
        assert made.do(GET, BAD, at=at) == "allow"
    assert spans == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


def test_a_probe_that_took_too_long_and_told_nothing_lets_no_third_one_go() -> None:
    made = opened()
    made.ask(GET, at=30)
    slow = list(made.out)[-1]
    assert made.ask(GET, at=40).action == "allow"
    made.end(WITHDRAWN, slow)
    assert made.do(GET, at=41) == "circuit-open", "the second probe is still on its way"


def test_a_probe_that_takes_too_long_does_not_keep_the_others() -> None:
    made = opened()
    assert made.ask(GET, at=30).action == "allow"
    slow = list(made.out)[-1]
    assert made.do(GET, at=39.9) == "circuit-open"
    assert made.ask(GET, at=40).action == "allow"
    second = list(made.out)[-1]
    made.end(LOST, slow)
    assert made.do(GET, at=41) == "circuit-open", "the first probe says nothing any more"
    made.end(OK, second)
    assert made.do(GET, at=42) == "allow"


@pytest.mark.parametrize("ours", [LEFT, WITHDRAWN])
def test_a_probe_that_told_nothing_is_followed_by_another(ours: Answer) -> None:
    made = opened()
    assert made.do(GET, ours, at=30) == "allow"
    assert made.do(GET, BAD, at=31) == "allow"
    assert made.ask(GET, at=31).retry_after_ns == 60 * S


def test_what_was_on_its_way_when_it_opened_changes_nothing() -> None:
    made = world()
    for _ in range(8):
        made.ask(GET, at=0)
    first, *others = list(made.out)
    for each in others[:5]:
        made.end(BAD, each)
    made.end(OK, first)
    made.end(BAD, others[5])
    made.end(LEFT, others[6])
    assert made.ask(GET, at=0).retry_after_ns == 30 * S


@pytest.mark.parametrize(
    ("other", "then"),
    [
        ({"agent": "bob", "run": "other"}, "circuit-open"),
        ({"path": "/b", "method": "POST"}, "circuit-open"),
        ({"credential": "another"}, "allow"),
        ({"host": "api.example.org"}, "allow"),
        ({"port": 8443}, "allow"),
    ],
)
def test_who_is_behind_one_circuit(other: dict[str, Any], then: str) -> None:
    assert opened().do(call(**{"method": "GET", "path": "/a", **other})) == then


def test_failures_far_apart_are_not_in_a_row() -> None:
    made = world("{failures: 2}")
    assert made.do(GET, BAD, at=0) == "allow"
    assert made.do(GET, BAD, at=KEPT_NS // S) == "allow"
    assert made.do(GET, BAD, at=KEPT_NS // S + 1) == "allow"
    assert made.do(GET) == "circuit-open"


def test_the_long_form() -> None:
    made = opened("{failures: 2, open: 5m}", failures=2)
    assert made.ask(GET, at=1).retry_after_ns == 299 * S
    assert made.do(GET, BAD, at=300) == "allow"
    assert made.ask(GET, at=300).retry_after_ns == 600 * S


def test_a_rule_that_only_watches_opens_a_circuit_of_its_own() -> None:
    made = World("""
rules:
  - {id: all, match: "https://**", allow: true}
  - {id: trial, match: "https://**", mode: monitor, breaker: {failures: 2}}
""")
    assert [made.do(GET, BAD) for _ in range(3)] == ["allow"] * 3
    assert [each.code for each in made.ask(GET).would] == ["circuit-open"]


def test_it_needs_nothing_of_bodies() -> None:
    asked = needs(rules(RULES % "true"), call())
    assert (asked.body, asked.claim, asked.answer) == (False, False, False)


def test_a_restart_keeps_it_open() -> None:
    made = opened()
    made.ask(GET, at=30)
    assert made.refold() == made.state


def test_a_clock_that_is_set_back_keeps_it_open_no_longer() -> None:
    made = opened()
    made.ask(GET, at=30)
    made.record((SetBack(made.at_ns, START + 10 * S).change(),))
    assert made.ask(GET, at=15).retry_after_ns == 5 * S, "the probe is still waited for"
    assert made.do(GET, BAD, at=20) == "allow"


def test_what_is_over_is_forgotten() -> None:
    table = Circuits()
    for n in range(50):
        table.apply(Change("breaker", "r", f"k{n}", "failed", {"at_ns": n * S, "call": "c"}))
    table.apply(Change("breaker", "r", "k0", "failed", {"at_ns": 60 * S, "call": "c"}))
    for n in range(60):
        table.apply(Change("breaker", "r", "x", "sent", {"at_ns": KEPT_NS + 55 * S + n, "call": "c"}))
    assert list(table.rows) == ["k0"]
    table.apply(Change("breaker", "r", "k0", "probe", {"at_ns": KEPT_NS + 55 * S, "call": "c", "until_ns": 0}))
    table.apply(Change("breaker", "r", "x", "closed", {"at_ns": KEPT_NS + 60 * S, "call": "c"}))
    assert (table.rows, table.due.heap) == ({}, [])


def test_a_row_that_is_over_and_not_yet_forgotten_begins_anew() -> None:
    table = Circuits()
    for n in range(9):
        table.apply(Change("breaker", "r", f"k{n}", "failed", {"at_ns": n, "call": "c"}))
    table.apply(Change("breaker", "r", "k8", "open", {"at_ns": KEPT_NS + 9, "call": "c", "until_ns": KEPT_NS + 10}))
    assert (table.rows["k8"].failures, table.rows["k8"].opened) == (1, 1)
    table.apply(Change("breaker", "r", "k8", "probe", {"at_ns": KEPT_NS + 10, "call": "p", "until_ns": KEPT_NS + 99}))
    before = table.rows["k8"].pause
    table.apply(Change("breaker", "r", "k8", "lost", {"at_ns": KEPT_NS + 10, "call": "another"}))
    assert table.rows["k8"].pause == before
    table.apply(Change("breaker", "r", "k7", "failed", {"at_ns": KEPT_NS + 10, "call": "c"}))
    table.set_back(SetBack(KEPT_NS + 10, 5))
    assert [table.rows[key].seen_ns for key in ("k7", "k8")] == [5, 5]


class Upstream(RuleBasedStateMachine):
    """An upstream that is up or down, and calls to it at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.world = world("{failures: 3, open: 10s}")
        self.up = True
        self.row = 0
        self.at = 0
        self.last = "allow"

    @rule(seconds=st.integers(0, 40))
    def wait(self, seconds: int) -> None:
        self.at += seconds

    @rule()
    def break_down(self) -> None:
        self.up = False

    @rule()
    def recover(self) -> None:
        self.up = True

    @rule(status=st.sampled_from([200, 404, 429, 500]))
    def ask(self, status: int) -> None:
        self.last = self.world.do(GET, answered(status, ("retry-after", "0")) if self.up else BAD, self.at)
        if self.last == "allow":
            self.row = 0 if self.up else self.row + 1
        else:
            assert self.last == "circuit-open"
            assert self.row >= 3, "it never opens on less than three failures in a row"

    @rule()
    def come_back_later(self) -> None:
        """An upstream that has recovered is used again, at the latest after the longest pause."""
        self.at += 101
        self.up = True
        assert self.world.do(GET, OK, self.at) == "allow"
        assert self.world.do(GET, OK, self.at) == "allow"
        self.row = 0

    @invariant()
    def restart_changes_nothing(self) -> None:
        assert self.world.refold() == self.world.state


TestUpstream = Upstream.TestCase
