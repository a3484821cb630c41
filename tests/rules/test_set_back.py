"""A clock that had run ahead is set back: nothing becomes free by that, and nothing stays blocked for years."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.call import Call
from rules.decide import decide
from rules.guards.counters import Pace, Rate, Slices, Stamps
from rules.state import Due, SetBack
from tests.rules.world import LOST, OK, START, WITHDRAWN, S, World, answered, call

RULES = """
tools:
  keyed: {match: POST https://api.example.com/keyed, upstream_key: Idempotency-Key}
rules:
  - {id: all, match: "https://**", allow: true, dedupe: {window: 1h, methods: [PATCH, DELETE]}}
  - {id: rate, match: "https://**", throttle: {rate: 4, per: 10min, by: method, wait: 5s}}
  - {id: pace, match: "https://**", throttle: {pace: 30/min, burst: 3}}
"""
YEARS = 10 * 365 * 86400

BACK = SetBack(START + 1000 * S, START + 400 * S)


@pytest.mark.parametrize(
    ("at_s", "moved_s"),
    [(0, 0), (400, 400), (401, 400), (1000, 400), (1001, 401), (5000, 4400)],
    ids=[
        "what is past stays",
        "now is past",
        "what the clock had not reached counts as just now",
        "so does what was now",
        "what is to come stays as far away",
        "however far",
    ],
)
def test_where_moments_stand_after_it(at_s: int, moved_s: int) -> None:
    assert BACK.moved(START + at_s * S) == START + moved_s * S


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_moments_keep_their_order(at_s: list[int]) -> None:
    moved = [BACK.moved(START + each * S) for each in sorted(at_s)]
    assert moved == sorted(moved)


def test_what_is_due_comes_up_in_order() -> None:
    due = Due()
    for second, key in ((700, "b"), (600, "c"), (800, "a"), (1100, "d"), (300, "e")):
        due.add(START + second * S, key)
    due.set_back(BACK)
    assert [due.pop(START + 400 * S) for _ in range(5)] == ["e", "a", "b", "c", None]
    assert due.pop(START + 500 * S) == "d"


def set_back(world: World, to_ns: int) -> None:
    world.record((SetBack(world.at_ns, to_ns).change(),))
    world.at_ns = to_ns


ASKED = [
    *[call(body=f'{{"n":{number}}}') for number in range(4)],
    call(path="/keyed", body='{"n":1}'),
    call("PATCH", "/orders/1", body='{"state":"open"}'),
    call("GET", "/orders"),
]
ANSWERS = [OK, LOST, WITHDRAWN, answered(422), answered(429, ("retry-after", "90")), answered(500), None]
"""None: it is still on its way."""

steps = st.tuples(st.integers(0, 300), st.sampled_from(ASKED), st.sampled_from(ANSWERS))


def lived(story: list[tuple[int, Call, object]], jump_after: int) -> World:
    """A world in which so many steps were made, some seconds apart, and then the clock jumped by ten years."""
    world = World(RULES)
    at_s = 0.0
    for number, (pause_s, asked, answer) in enumerate(story):
        at_s += pause_s + (YEARS if number == jump_after else 0)
        if world.ask(asked, at=at_s).action == "allow" and answer is not None:
            world.end(answer)  # type: ignore[arg-type]
    return world


def goes_out(world: World, asked: Call) -> bool:
    return decide(world.ruleset, world.state, asked, "probe", world.at_ns).action == "allow"


@given(st.lists(steps, max_size=30), st.integers(0, 30), st.integers(1, YEARS + 3600))
def test_it_frees_nothing(story: list[tuple[int, Call, object]], jump_after: int, back_s: int) -> None:
    world = lived(story, jump_after)
    refused = [asked for asked in ASKED if not goes_out(world, asked)]
    set_back(world, world.at_ns - back_s * S)
    assert [asked for asked in refused if goes_out(world, asked)] == []


@given(st.lists(steps, max_size=30), st.integers(0, 30), st.integers(1, YEARS + 3600))
def test_nothing_stays_blocked(story: list[tuple[int, Call, object]], jump_after: int, back_s: int) -> None:
    world = lived(story, jump_after)
    for call_id in list(world.out):
        world.end(OK, call_id)
    set_back(world, world.at_ns - back_s * S)
    world.at_ns += 3700 * S
    assert [asked for asked in ASKED if not goes_out(world, asked)] == []


@given(st.lists(steps, max_size=30), st.integers(0, 30), st.lists(steps, max_size=8))
def test_a_refolded_ledger_is_the_same_state(
    story: list[tuple[int, Call, object]], jump_after: int, after: list[tuple[int, Call, object]]
) -> None:
    world = lived(story, jump_after)
    set_back(world, START + 5000 * S)
    for pause_s, asked, answer in after:
        if world.ask(asked, at=(world.at_ns - START) / S + pause_s).action == "allow" and answer is not None:
            world.end(answer)  # type: ignore[arg-type]
    assert world.refold() == world.state


def test_a_key_of_unknown_age_is_not_relied_on() -> None:
    """A retry under it would do the effect twice, should the API have forgotten it."""
    asked = call(path="/keyed", body='{"n":1}')
    world = World(RULES)
    world.do(asked, LOST, at=YEARS)
    assert goes_out(world, asked)
    set_back(world, START)
    refused = world.ask(asked)
    assert (refused.code, refused.executed) == ("outcome-unknown", "unknown")


def test_a_key_that_was_sent_before_the_jump_is() -> None:
    asked = call(path="/keyed", body='{"n":1}')
    world = World(RULES)
    world.do(asked, LOST, at=0)
    world.record((SetBack(START + YEARS * S, START + 60 * S).change(),))
    world.at_ns = START + 60 * S
    assert goes_out(world, asked)


def test_a_call_that_waited_meanwhile_keeps_its_place_to_itself() -> None:
    """It was held back after the clock was set back. Its place is not where it was, so it stays taken."""
    world = World(RULES)
    for number in range(4):
        world.do(call("GET", f"/{number}"), at=YEARS + 2 * number)
    waits = world.ask(call("GET", "/5"), at=YEARS + 597)
    assert waits.send_at_ns == START + (YEARS + 600) * S
    set_back(world, START)
    world.end(WITHDRAWN)
    assert world.do(call("GET", "/6")) == "rate-limited"
    assert world.refold() == world.state


RATES = st.builds(Rate, st.integers(1, 5), st.just(100 * S), st.integers(1, 3))


@given(RATES, st.lists(st.integers(0, 999), max_size=8), st.integers(0, 998), st.sampled_from([Stamps, Pace]))
def test_a_place_becomes_free_no_earlier(
    rate: Rate, at_s: list[int], to_s: int, kind: type[Stamps] | type[Pace]
) -> None:
    counter = kind()
    for each in sorted(at_s):
        counter.add(rate, counter.place(rate, each * S))
    now_ns = 1000 * S
    before_ns = counter.place(rate, now_ns) - now_ns
    counter.set_back(rate, SetBack(now_ns, to_s * S))
    assert counter.place(rate, to_s * S) - to_s * S >= before_ns


@given(RATES, st.lists(st.integers(0, 999_999), max_size=8), st.integers(0, 999_999))
def test_slices_admit_no_more_than_exact_counting(rate: Rate, at_ms: list[int], to_ms: int) -> None:
    back = SetBack(1000 * S, to_ms * S // 1000)
    slices, stamps = Slices(), Stamps()
    for each in sorted(at_ms):
        for counter in (slices, stamps):
            counter.add(rate, each * S // 1000)
    for counter in (slices, stamps):
        counter.set_back(rate, back)
    assert slices.place(rate, back.to_ns) >= stamps.place(rate, back.to_ns)


def test_slices_that_wait_stay_ahead() -> None:
    rate = Rate(2000, 100 * S)
    slices = Slices({999: 1, 1000: 2, 1003: 4})
    slices.set_back(rate, SetBack(1000 * S + 5, 400 * S))
    assert slices.slices == {400: 3, 403: 4}


def test_what_is_unknown_becomes_free_after_its_time_and_not_years_later() -> None:
    """`unknown_after` goes by when the doubt began, which the clock that had run ahead put into the future."""
    world = World("rules: [{id: a, match: 'POST https://**', allow: true, dedupe: {window: 1d, unknown_after: 10min}}]")
    asked = call("POST", "/a", '{"n": 1}')
    assert world.do(asked, LOST, at=50_000) == "allow"
    set_back(world, START)
    assert world.do(asked, at=599) == "outcome-unknown"
    assert world.do(asked, at=600) == "allow"
