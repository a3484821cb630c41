"""throttle: never more than so many calls in any window, and nothing refused that fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rules.decision import Change, Limit
from rules.guards.counters import SLICES, Counter, Pace, Rate, Slices, Stamps
from rules.guards.throttle import Rows, Throttle
from rules.needs import needs
from rules.problems import RuleFileError
from rules.units import parse_duration, parse_rate, show_duration
from rules.yamltree import parse
from tests.rules.world import LOST, START, WITHDRAWN, S, World, call, rules

RULES = """
rules:
  - {id: pace, match: "GET https://**", allow: true, throttle: %s}
"""


def world(throttle: str) -> World:
    return World(RULES % throttle)


def get(**given: Any) -> Any:
    return call("GET", "/search", **given)


def decided(made: World, *at: float) -> list[str]:
    return [made.do(get(), at=second) for second in at]


def test_at_most_so_many_in_any_minute() -> None:
    made = world("3/min")
    assert decided(made, 0, 1, 2, 3, 59) == ["allow", "allow", "allow", "rate-limited", "rate-limited"]
    assert decided(made, 60 - 1e-9, 60, 60, 61, 61) == [
        "rate-limited",
        "allow",
        "rate-limited",
        "allow",
        "rate-limited",
    ]


def test_a_refusal_says_when_the_next_call_fits() -> None:
    made = world("2/min")
    decided(made, 0, 10)
    refused = made.ask(get(), at=18.5)
    assert (refused.action, refused.code, refused.rules) == ("throttle", "rate-limited", ("pace",))
    assert (refused.retry_after_ns, refused.executed) == (int(41.5 * S), "no")
    assert refused.limits == (Limit("pace", 2, 60, 0, 42),)
    assert "42 s" in refused.detail
    assert refused.changes == ()


def test_a_rate_can_be_over_any_time() -> None:
    assert decided(world("{rate: 2, per: 8s}"), 0, 0, 7.9, 8) == ["allow", "allow", "rate-limited", "allow"]


def test_what_fails_upstream_counts() -> None:
    made = world("1/min")
    assert made.do(get(), LOST) == "allow"
    assert made.do(get()) == "rate-limited"


def test_what_is_refused_does_not_count() -> None:
    made = World(RULES % "1/min" + "  - {id: no, match: 'https://**', agent: bob, deny: No.}")
    assert [made.do(get(agent="bob")), made.do(get(agent="bob")), made.do(get())] == ["policy-denied"] * 2 + ["allow"]


def test_all_limits_are_consumed_or_none() -> None:
    made = World(RULES % "1/min" + "  - {id: wide, match: 'https://**', throttle: 2/min}")
    refused = [made.ask(get(), at=second) for second in (0, 1, 2)][-1]
    assert [each.rule for each in refused.violations] == ["pace"]
    assert made.do(get(), at=60) == "allow", "the refused calls left `wide` alone"
    both = made.ask(get(), at=60)
    assert [each.rule for each in both.violations] == ["pace"]


def test_every_limit_that_is_reached_is_told() -> None:
    made = World(RULES % "1/min" + "  - {id: hour, match: 'https://**', throttle: 1/h}")
    decided(made, 0)
    refused = made.ask(get(), at=10)
    assert [each.rule for each in refused.violations] == ["hour", "pace"]
    assert refused.rules == ("hour", "pace")
    assert refused.retry_after_ns == 3590 * S
    assert [each.reset_s for each in refused.limits] == [3590, 50]


BY = [
    ("", {"agent": "bob", "run": "x", "credential": "y", "host": "other.example"}, "rate-limited"),
    ("agent", {"agent": "bob"}, "allow"),
    ("agent", {"run": "x", "credential": "y"}, "rate-limited"),
    ("run", {"run": "x"}, "allow"),
    ("credential", {"credential": "y"}, "allow"),
    ("host", {"host": "other.example"}, "allow"),
    ("[agent, host]", {"host": "other.example"}, "allow"),
    ("query.user", {"query": (("user", "2"),)}, "allow"),
    ("query.user", {"agent": "bob"}, "rate-limited"),
    ("tool", {"host": "other.example"}, "rate-limited"),
]


@pytest.mark.parametrize(("by", "other", "then"), BY)
def test_each_key_has_a_counter_of_its_own(by: str, other: dict[str, Any], then: str) -> None:
    made = world(f"{{rate: 1/min, by: {by}}}" if by else "1/min")
    assert made.do(get()) == "allow"
    assert made.do(get(**other)) == then


def test_each_tool_has_a_counter_with_by_tool() -> None:
    made = World("""
tools: {a: GET https://api.example.com/a, b: GET https://api.example.com/b}
rules: [{id: r, tool: "*", allow: true, throttle: {rate: 1/min, by: tool}}]
""")
    assert [made.do(call("GET", path)) for path in ("/a", "/b", "/a")] == ["allow", "allow", "rate-limited"]


def test_it_needs_the_body_only_for_a_key_in_it() -> None:
    assert needs(rules(RULES % "{rate: 1/min, by: body.user}"), get()).body
    assert needs(rules(RULES % "{rate: 1/min, by: [agent, body.user]}"), get()).body
    assert not needs(rules(RULES % "{rate: 1/min, by: agent}"), get()).body
    assert not needs(rules(RULES % "1/min"), get()).claim


def send_at(made: World, at: float) -> float | str:
    decision = made.ask(get(), at=at)
    if decision.action != "allow":
        return decision.code
    return (decision.send_at_ns - START) / S if decision.send_at_ns else at


def test_waiting_takes_the_next_places_in_order() -> None:
    made = world("{rate: 2/min, wait: 90s}")
    assert [send_at(made, at) for at in (0, 5, 6, 7, 8)] == [0, 5, 60, 65, "rate-limited"]
    assert [send_at(made, at) for at in (60, 65)] == [120, 125]


def test_a_place_that_is_withdrawn_is_free_again() -> None:
    made = world("{rate: 1/min, wait: 60s}")
    assert [send_at(made, at) for at in (0, 1, 2)] == [0, 60, "rate-limited"]
    made.end(WITHDRAWN, "call-2")
    assert send_at(made, 3) == 60
    assert made.refold() == made.state


def test_a_call_that_was_sent_gives_nothing_back() -> None:
    made = world("{rate: 1/min, wait: 60s}")
    send_at(made, 0)
    made.end(LOST)
    assert send_at(made, 1) == 60


def test_at_most_fifty_wait() -> None:
    made = world("{rate: 1/s, wait: 1h}")
    places = [send_at(made, 0) for _ in range(53)]
    assert places == [*range(51), "rate-limited", "rate-limited"]
    assert send_at(made, 1) == 51
    paced = world("{pace: 1/s, wait: 1h}")
    assert [send_at(paced, 0) for _ in range(53)] == places


def test_a_delay_by_one_limit_is_kept_by_the_others() -> None:
    """Two limits: the call is counted in both when it is sent, not when it was asked for."""
    made = World(RULES % "{rate: 1/min, wait: 60s}" + "  - {id: burst, match: 'https://**', throttle: 1/s}")
    made.ask(get(), at=0)
    late = made.ask(get(), at=10)
    assert (late.action, late.send_at_ns) == ("allow", START + 60 * S)
    assert {change.data["place_ns"] for change in late.changes} == {START + 60 * S}
    other = call("POST", "/x", host="x.example")
    made.ruleset = rules(
        RULES % "{rate: 1/min, wait: 60s}"
        + """  - {id: burst, match: "https://**", throttle: 1/s}
  - {id: post, match: "POST https://**", allow: true}
"""
    )
    assert made.do(other, at=59) == "allow", "a second before"
    assert made.do(other, at=59.5) == "rate-limited"
    assert made.do(other, at=60.5) == "rate-limited", "too near the call that waits for 60"
    assert made.do(other, at=61) == "allow"


def test_a_pace_is_even_but_for_its_burst() -> None:
    made = world("{pace: 6/min, burst: 3}")
    assert decided(made, 0, 0, 0, 0, 9.9, 10, 10) == ["allow"] * 3 + ["rate-limited"] * 2 + ["allow", "rate-limited"]
    assert decided(made, 30, 30, 30) == ["allow", "allow", "rate-limited"]
    assert decided(world("{pace: 6/min}"), 0, 9, 10) == ["allow", "rate-limited", "allow"]


def test_only_the_latest_place_of_a_pace_comes_back() -> None:
    made = world("{pace: 1/min, wait: 5m}")
    assert [send_at(made, 0) for _ in range(3)] == [0, 60, 120]
    made.end(WITHDRAWN, "call-2")
    assert send_at(made, 1) == 180
    made.end(WITHDRAWN, "call-4")
    assert send_at(made, 2) == 180
    assert made.refold() == made.state


def test_a_pace_never_drifts() -> None:
    """7 a minute does not divide: after an hour of asking every second it has admitted neither more nor less."""
    made = world("{pace: 7/min, burst: 2}")
    admitted = decided(made, *range(3600)).count("allow")
    assert admitted == 7 * 60 + 1


def test_a_clock_that_goes_back_frees_nothing() -> None:
    made = world("2/min")
    assert decided(made, 0, 100, 130) == ["allow"] * 3
    assert decided(made, 10) == ["rate-limited"]
    assert made.ask(get(), at=20).retry_after_ns == 140 * S


def test_a_new_limit_counts_what_went_before() -> None:
    made = world("5/min")
    decided(made, 0, 1, 2)
    made.ruleset = rules(RULES % "3/min")
    assert decided(made, 3, 60) == ["rate-limited", "allow"]


def test_counters_are_forgotten_when_they_are_as_good_as_new() -> None:
    made = world("{rate: 2/min, by: run}")
    for n in range(500):
        made.do(get(run=f"run-{n}"), at=n)
    rows = made.state.of(Rows)
    assert len(rows.rows) <= 62
    assert len(rows.due.heap) <= 62
    assert made.refold() == made.state


def test_monitored_and_enforced_counters_are_apart() -> None:
    made = World(RULES % "1/min, mode: monitor" + "  - {id: get, match: 'GET https://**', allow: true}")
    first, second = made.ask(get(), at=0), made.ask(get(), at=1)
    assert (first.would, second.action) == ((), "allow")
    assert [(each.rule, each.code) for each in second.would] == [("pace", "rate-limited")]
    made.ruleset = rules(RULES % "1/min")
    assert decided(made, 2, 3) == ["allow", "rate-limited"]


# --- the counters, against plain definitions ---


def fits(stamps: list[int], at: int, rate: Rate) -> bool:
    """The definition: with one more call at `at`, no window holds more than the quota."""
    every = [*stamps, at]
    return all(sum(start <= each < start + rate.window_ns for each in every) <= rate.quota for start in every)


class ExactWindow(RuleBasedStateMachine):
    """Calls, some of them waiting, some withdrawn: all windows hold, and nothing is refused that fits."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = Rate(3, 10)
        self.counter = Stamps()
        self.now = 100
        self.all: list[int] = []

    @rule(step=st.integers(0, 12))
    def later(self, step: int) -> None:
        self.now += step

    @rule(wait=st.integers(0, 25), delay=st.sampled_from([0, 0, 0, 3, 14]))
    def ask(self, wait: int, delay: int) -> None:
        wanted = self.now + delay
        place = self.counter.place(self.rate, wanted)
        assert place == next(at for at in range(wanted, wanted + 1000) if fits(self.all, at, self.rate))
        if place <= wanted + wait:
            self.counter.forget(self.rate, self.now)
            self.counter.add(self.rate, place)
            self.all.append(place)

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        waiting = [each for each in self.all if each > self.now]
        assert self.counter.waiting(self.rate, self.now) == len(waiting)
        if waiting:
            gone = data.draw(st.sampled_from(waiting))
            self.all.remove(gone)
            self.counter.give_back(self.rate, gone)

    @invariant()
    def never_more_than_the_quota_in_any_window(self) -> None:
        assert all(sum(start <= each < start + 10 for each in self.all) <= 3 for start in self.all)


TestExactWindow = ExactWindow.TestCase


class SlicedWindow(RuleBasedStateMachine):
    """The counter for large quotas never admits more than exact counting; a place comes at most one slice later."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = Rate(4, 1000)
        self.counter = Slices()
        self.now = 100_000
        self.all: list[int] = []

    @rule(step=st.one_of(st.integers(0, 40), st.integers(0, 1200)))
    def later(self, step: int) -> None:
        self.now += step

    @rule(wait=st.sampled_from([0, 0, 500]))
    def ask(self, wait: int) -> None:
        place = self.counter.place(self.rate, self.now)
        assert fits(self.all, place, self.rate)
        if all(each <= self.now for each in self.all):
            earliest = next(at for at in range(self.now, self.now + 3000) if fits(self.all, at, self.rate))
            assert place <= earliest + 1000 // SLICES
        if place <= self.now + wait:
            self.counter.forget(self.rate, self.now)
            self.counter.add(self.rate, place)
            self.all.append(place)

    @rule()
    def withdraw(self) -> None:
        if self.all and self.all[-1] > self.now + 1000 // SLICES:
            assert self.counter.waiting(self.rate, self.now) > 0
            self.counter.give_back(self.rate, self.all.pop())


TestSlicedWindow = SlicedWindow.TestCase


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 5), st.integers(1, 4))
def test_a_pace_admits_what_gcra_admits(steps: list[int], quota: int, burst: int) -> None:
    """Against the textbook's leaky bucket: each call pours in `window`, `quota` flows out a nanosecond."""
    rate, counter = Rate(quota, 20, burst), Pace()
    now = level = 0
    for step in steps:
        now += step
        level = max(0, level - step * quota)
        room = level + 20 <= burst * 20
        assert (counter.place(rate, now) == now) is room
        if room:
            counter.add(rate, now)
            level += 20


@pytest.mark.parametrize("kind", [Stamps, Slices, Pace])
def test_an_empty_counter_is_due_at_once_and_has_room(kind: type[Counter]) -> None:
    rate = Rate(2, 100, 1)
    counter = kind()
    assert (counter.due_ns(rate), counter.waiting(rate, 5), counter.place(rate, 5)) == (0, 0, 5)
    if kind is not Pace:
        counter.give_back(rate, 50)
        assert counter == kind(), "what was not there cannot come back"
    counter.add(rate, 5)
    assert counter.due_ns(rate) >= 55


def test_a_place_that_comes_back_to_a_forgotten_counter_is_ignored() -> None:
    rows = Rows()
    rows.apply(Change("throttle", "r", "no-such-key", "give-back", {"at_ns": 1, "place_ns": 1}))
    assert rows == Rows()


def test_large_quotas_are_counted_in_slices() -> None:
    made = world("1001/min")
    assert decided(made, *[0] * 1001, 0, 59.9, 61) == ["allow"] * 1001 + ["rate-limited"] * 2 + ["allow"]
    row = next(iter(made.state.of(Rows).rows.values()))
    assert row.kind == "slices"
    assert made.refold() == made.state
    assert decided(made, 300) == ["allow"]
    assert isinstance(row.counter, Slices)
    assert len(row.counter.slices) == 1


# --- rule files ---

GOOD = [
    ("10/min", Throttle("r", Rate(10, 60 * S))),
    ("5/s", Throttle("r", Rate(5, S))),
    ("{rate: 10/h}", Throttle("r", Rate(10, 3600 * S))),
    ("{rate: 3, per: 8s, wait: 5s}", Throttle("r", Rate(3, 8 * S), wait_ns=5 * S)),
    ("{rate: 3/d, wait: 0}", Throttle("r", Rate(3, 86400 * S))),
    ("{pace: 10/min}", Throttle("r", Rate(10, 60 * S, 1))),
    ("{pace: 10/min, burst: 3}", Throttle("r", Rate(10, 60 * S, 3))),
]


@pytest.mark.parametrize(("text", "meant"), GOOD)
def test_what_is_written_and_what_it_means(text: str, meant: Throttle) -> None:
    assert Throttle.parse(parse(text, "test"), "r") == meant


BAD = [
    ("10", "rate", "`10` is no rate"),
    ("0/min", "rate", "`0/min` is no rate"),
    ("10/fortnight", "rate", "`10/fortnight` is no rate"),
    ("[1/s]", "rate", "this is no rate"),
    ("{}", "throttle", "`throttle` needs either `rate` or `pace`"),
    ("{rate: 1/s, pace: 1/s}", "throttle", "`throttle` needs either `rate` or `pace`"),
    ("{rate: 3/s, per: 8s}", "rate", "`rate` beside `per` is no whole number above 0"),
    ("{rate: 0, per: 8s}", "rate", "`rate` beside `per` is no whole number above 0"),
    ("{rate: 3, per: 8}", "duration", "`8` is no duration"),
    ("{pace: 1/s, per: 8s}", "conflict", "`per` stands beside `pace`"),
    ("{rate: 1/s, burst: 2}", "conflict", "`burst` stands beside `rate`"),
    ("{pace: 1/s, burst: 0}", "burst", "`burst` is no whole number above 0"),
    ("{pace: 1/s, burst: true}", "burst", "`burst` is no whole number above 0"),
    ("{rate: 1/s, wait: 5}", "duration", "`5` is no duration"),
    ("{rate: 1/s, bye: agent}", "unknown-key", "`throttle` has no key `bye`"),
    ("{rate: 1/s, by: agnt}", "field", "`agnt` is not a field"),
]


@pytest.mark.parametrize(("text", "code", "message"), BAD)
def test_mistakes_are_named(text: str, code: str, message: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        Throttle.parse(parse(text, "test"), "r")
    assert [(problem.code, problem.message) for problem in caught.value.problems] == [(code, message)]


@pytest.mark.parametrize(
    ("text", "value"),
    [("30s", 30 * S), ("500ms", S // 2), ("7d", 7 * 86400 * S), ("0s", None), ("401d", None), (5, None)],
)
def test_durations(text: object, value: int | None) -> None:
    assert parse_duration(text) == value


def test_rates_and_how_durations_are_shown() -> None:
    assert parse_rate(None) is None
    assert [show_duration(each) for each in (S, 90 * S, 3600 * S, 86400 * S, S // 2)] == [
        "1 s",
        "90 s",
        "1 h",
        "1 d",
        "1 s",
    ]
