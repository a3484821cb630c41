"""loop: the same call again and again with the same result is stopped, and what progresses never is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rules.call import Call
from rules.decision import Answer, Change
from rules.guards.loop import KEPT, REFUSALS, Rows
from rules.needs import needs
from rules.state import SetBack
from tests.rules.world import LOST, START, WITHDRAWN, S, World, answered, call, json_body, rules

RULES = """
tools:
  poll: {match: "GET https://api.example.com/poll", polling: true}
  read: GET|HEAD https://api.example.com/{name}
  write: POST https://api.example.com/{name}
rules: [{id: all, tool: "*", allow: true, loop: %s}]
"""
POST = call("POST", "/a", '{"n": 1}')
OTHER = call("POST", "/a", '{"n": 2}')
THIRD = call("POST", "/b", '{"n": 1}')
GET = call("GET", "/a")
POLL = call("GET", "/poll")
LEFT = Answer(0, complete=False, sent=True, abandoned=True, error="its client left")


def said(digest: str, status: int = 200, **given: Any) -> Answer:
    return Answer(status, complete=True, sent=True, digest=digest, **{"stored": True, **given})


SAME = said("same")


def world(loop: str = "true") -> World:
    return World(RULES % loop)


def times(made: World, asked: Call, answer: Answer, count: int, at: float | None = None) -> list[str]:
    return [made.do(asked, answer, at) for _ in range(count)]


def stopped_after(made: World, asked: Call, answer: Answer) -> int:
    """How often the call went out before it was stopped, of 50 tries."""
    decided = times(made, asked, answer, 50)
    count = decided.count("allow")
    assert decided == ["allow"] * count + ["loop-detected"] * (50 - count)
    return count


LOOPS: list[tuple[str, Call, Answer, int]] = [
    ("the same error three times", POST, answered(500), 3),
    ("whatever it is", POST, answered(404), 3),
    ("of a read as well", GET, answered(404), 3),
    ("of a poll as well", POLL, answered(404), 3),
    ("no answer is an error", POST, LOST, 3),
    ("no connection is one", POST, Answer(0, complete=False, sent=False), 3),
    ("the same answer five times", POST, SAME, 5),
    ("of a read ten times", GET, SAME, 10),
    ("of a HEAD as well", call("HEAD", "/a"), SAME, 10),
    ("a poll may ask for ever", POLL, SAME, 50),
    ("without a digest no answer is the same", POST, said(""), 50),
    ("429 that asks for no pause is an error", POST, answered(429, ("retry-after", "0")), 3),
]


@pytest.mark.parametrize(("case", "asked", "answer", "count"), LOOPS, ids=[row[0] for row in LOOPS])
def test_how_often_is_too_often(case: str, asked: Call, answer: Answer, count: int) -> None:
    assert stopped_after(world(), asked, answer) == count


def test_an_error_that_says_more_each_time_is_the_same_error() -> None:
    made = world()
    assert [made.do(POST, said(f"request-{n}", 400)) for n in range(4)] == ["allow"] * 3 + ["loop-detected"]


def test_a_new_key_in_the_body_does_not_hide_it() -> None:
    made = World("""
tools: {pay: {match: POST https://api.example.com/pay, upstream_key: {body: idempotency_key}}}
rules: [{id: all, tool: pay, allow: true, loop: true}]
""")
    tries = [call(path="/pay", body=f'{{"amount": 1, "idempotency_key": "{n}"}}') for n in range(4)]
    assert [made.do(each, answered(400)) for each in tries] == ["allow"] * 3 + ["loop-detected"]


def test_another_status_is_another_error() -> None:
    made = world()
    assert [made.do(POST, answered(status)) for status in (500, 500, 502, 502, 500, 500)] == ["allow"] * 6


def test_a_failure_behind_a_200_is_an_error() -> None:
    made = World("""
tools: {say: {match: POST https://api.example.com/say, expect: {body.ok: true}}}
rules: [{id: all, tool: say, allow: true, loop: true}]
""")
    failed = [said(f"at {n}", body=json_body('{"ok": false}')) for n in range(4)]
    assert [made.do(call(path="/say"), each) for each in failed] == ["allow"] * 3 + ["loop-detected"]
    assert "reported a failure" in made.ask(call(path="/say")).detail


def test_a_changed_answer_resets() -> None:
    made = world()
    assert [*times(made, POST, SAME, 4), made.do(POST, said("new")), *times(made, POST, SAME, 4)] == ["allow"] * 9
    assert times(made, POST, SAME, 2) == ["allow", "loop-detected"]


def test_other_calls_between_do_not_hide_it() -> None:
    made = world()
    for n in range(3):
        assert made.do(POST, answered(500)) == "allow"
        assert made.do(call("GET", f"/{n}"), SAME) == "allow"
        assert made.do(call("POST", "/a", f'{{"m": {n}}}'), said(f"{n}")) == "allow"
    assert made.do(POST) == "loop-detected"


def test_other_calls_are_not_affected() -> None:
    made = world()
    times(made, POST, answered(500), 4)
    assert [made.do(each) for each in (OTHER, THIRD, GET)] == ["allow"] * 3
    assert made.do(call("POST", "/a", '{"n": 1}', run="run-2")) == "allow", "nor other runs"
    assert made.do(call("POST", "/a", '{"n": 1}', agent="bob")) == "allow"


def test_two_runs_do_not_add_up() -> None:
    made = world()
    other = call("POST", "/a", '{"n": 1}', run="run-2")
    assert [made.do(each, answered(500)) for each in (POST, other) * 3] == ["allow"] * 6
    assert [made.do(each) for each in (POST, other)] == ["loop-detected"] * 2


@pytest.mark.parametrize(
    ("turn", "answers"),
    [
        ([POST, OTHER], [SAME, said("x")]),
        ([POST, OTHER, THIRD], [SAME, said("x"), said("y")]),
        ([POST, POST, OTHER], [SAME, SAME, said("x")]),
        ([POST, OTHER], [SAME, answered(404)]),
    ],
)
def test_calls_that_take_turns_three_times_are_stopped(turn: list[Call], answers: list[Answer]) -> None:
    made = world("{same_error: false, same_result: false}")
    decided = [made.do(asked, answer) for _ in range(3) for asked, answer in zip(turn, answers, strict=True)]
    assert decided == ["allow"] * len(decided)
    assert [made.do(each) for each in turn] == ["loop-detected"] * len(turn), "all of them"
    assert "took turns 3 times" in made.ask(turn[0]).detail


def test_turns_with_changing_answers_are_no_cycle() -> None:
    made = world("{same_error: false, same_result: false}")
    for n in range(20):
        assert made.do(POST, SAME) == "allow"
        assert made.do(OTHER, said(f"{n}")) == "allow"


def test_one_call_alone_is_no_cycle() -> None:
    assert stopped_after(world("{same_result: 20}"), GET, SAME) == 20


def test_a_poll_is_no_part_of_a_cycle_that_it_ends() -> None:
    made = World("""
tools: {work: {match: "https://api.example.com/{name}", polling: true}}
rules: [{id: all, tool: work, allow: true, loop: true}]
""")
    assert [made.do(each, SAME) for each in (POST, POLL) * 20] == ["allow"] * 40


def test_only_what_lies_within_the_time_counts() -> None:
    made = world("{within: 1m}")
    assert [made.do(POST, answered(500), at) for at in (0, 30, 60, 89, 90)] == ["allow"] * 4 + ["loop-detected"]


def test_it_goes_out_once_more_and_is_stopped_for_twice_as_long() -> None:
    made = world()
    times(made, POST, answered(500), 3, at=0)
    at, spans = 0.0, []
    for _ in range(6):
        assert made.do(POST, at=at) == "loop-detected"
        began = at
        while made.do(POST, answered(500), at) == "loop-detected":
            at += 30
        spans.append(at - began)
    assert spans == [60, 120, 240, 480, 900, 900]


def test_when_something_else_comes_of_it_it_is_free() -> None:
    made = world()
    times(made, POST, answered(500), 3, at=0)
    assert made.do(POST, answered(502), at=60) == "allow"
    assert times(made, POST, answered(502), 2) == ["allow", "allow"]
    assert made.do(POST, at=61) == "loop-detected"
    assert made.do(POST, at=119.9) == "loop-detected"
    assert made.do(POST, answered(502), at=120) == "allow"
    assert made.do(POST, at=121) == "loop-detected"


def test_the_others_wait_for_what_comes_of_the_one_that_goes_first() -> None:
    made = world()
    times(made, POST, answered(500), 3, at=0)
    assert made.ask(POST, at=60).action == "allow"
    assert made.do(POST, at=69.9) == "loop-detected"
    made.end(SAME, list(made.out)[-1])
    assert made.do(POST, at=69.9) == "allow"
    slow = world()
    times(slow, POST, answered(500), 3, at=0)
    assert slow.ask(POST, at=60).action == "allow"
    assert slow.ask(POST, at=70).action == "allow", "but not for ever"


def test_what_is_said() -> None:
    made = world()
    times(made, POST, answered(404), 3)
    refused = made.ask(POST)
    assert (refused.action, refused.code, refused.rules, refused.changes) == ("deny", "loop-detected", ("all",), ())
    assert refused.detail == (
        "This same call was made 3 times, each time with the same result: the API answered 404. It was not sent again."
    )
    assert (refused.executed, refused.retry_after_ns) == ("no", 0)
    assert refused.next[0].startswith("Do not repeat this call")
    assert refused.facts["loop.all"]


@pytest.mark.parametrize(
    ("answers", "asked", "executed"),
    [
        ([answered(404)] * 3, POST, "no"),
        ([answered(500)] * 3, POST, "unknown"),
        ([SAME, *[answered(404)] * 3], POST, "yes"),
        ([LOST, *[answered(404)] * 3], POST, "unknown"),
        ([SAME] * 5, POST, "yes"),
        ([SAME] * 10, GET, "no"),
        ([answered(500)] * 3, GET, "no"),
    ],
)
def test_nobody_is_told_that_nothing_happened_when_it_may_have(
    answers: list[Answer], asked: Call, executed: str
) -> None:
    made = world()
    for each in answers:
        assert made.do(asked, each) == "allow"
    assert made.ask(asked).executed == executed
    made.at_ns += 60 * S
    assert made.do(asked, answers[-1]) == "allow"
    assert made.ask(asked).executed == executed


DEDUPED = """
tools: {write: {match: "POST https://api.example.com/{name}"}}
rules: [{id: all, tool: write, allow: true, loop: true, dedupe: %s}]
"""


def test_replays_count() -> None:
    made = World(DEDUPED % "24h")
    assert times(made, POST, SAME, 7) == ["allow"] + ["replay"] * 4 + ["loop-detected"] * 2
    refused = made.ask(POST)
    assert (refused.executed, refused.changes) == ("yes", ())
    assert made.do(POST, at=60) == "replay", "once more"
    assert made.do(POST, at=61) == "loop-detected"
    assert made.refold() == made.state


def test_replays_of_an_answer_that_was_not_seen_are_counted_too() -> None:
    made = World(DEDUPED % "{window: 24h, key: path.name}")
    assert made.do(POST, SAME) == "allow"
    other_run = call("POST", "/a", '{"n": 1}', run="run-2")
    assert times(made, other_run, SAME, 6) == ["replay"] * 5 + ["loop-detected"]


@pytest.mark.parametrize(
    ("dedupe", "first", "refusal"),
    [
        ("24h", LOST, "outcome-unknown"),
        ("{on_duplicate: reject}", SAME, "duplicate"),
        ("24h", said("x", stored=False), "duplicate-not-replayable"),
    ],
)
def test_the_same_refusal_three_times_is_a_loop(dedupe: str, first: Answer, refusal: str) -> None:
    made = World(DEDUPED % dedupe)
    before = made.do(POST, first)
    assert [before, *times(made, POST, SAME, 5)] == ["allow"] + [refusal] * 3 + ["loop-detected"] * 2
    assert made.ask(POST).executed == ("unknown" if first is LOST else "yes")


def test_refusals_that_time_mends_are_none() -> None:
    made = World("""
tools: {write: {match: "POST https://api.example.com/{name}"}}
rules: [{id: all, tool: write, allow: true, loop: true, throttle: 1/h, breaker: {failures: 1}}]
""")
    assert times(made, POST, said("a"), 9) == ["allow"] + ["rate-limited"] * 8
    assert made.ask(POST).changes == ()


def test_refusals_change_the_state_only_so_often() -> None:
    """An agent that is refused with a new call each time does not fill the ledger with it."""
    made = World(DEDUPED.replace("dedupe: %s", "dedupe: {window: 24h, key: path.name, on_duplicate: reject}"))
    assert made.do(POST, SAME) == "allow"
    asked = [made.ask(call("POST", "/a", f'{{"m": {n}}}')) for n in range(REFUSALS + 20)]
    assert [len(each.changes) for each in asked] == [1] * REFUSALS + [0] * 20
    assert {each.code for each in asked} == {"duplicate"}
    assert len(made.ask(call("POST", "/a", '{"m": -1}'), at=61).changes) == 1


@pytest.mark.parametrize("ours", [LEFT, WITHDRAWN, answered(429, ("retry-after", "1")), answered(429)])
def test_what_says_nothing_of_the_call_counts_for_nothing(ours: Answer) -> None:
    made = world()
    assert [made.do(POST, answered(500), at) for at in (0, 1)] == ["allow"] * 2
    assert made.do(POST, ours, at=2) == "allow"
    assert [made.do(POST, answered(500), at) for at in (90, 91)] == ["allow", "loop-detected"]


def test_limits_can_be_set_and_left_out() -> None:
    assert stopped_after(world("{same_error: 2}"), POST, answered(500)) == 2
    assert stopped_after(world("{same_error: false}"), POST, answered(500)) == 50
    assert stopped_after(world("{same_result: 4}"), GET, SAME) == 4
    assert stopped_after(world("{same_result: false}"), POST, SAME) == 50
    assert stopped_after(world("{polling: true}"), POST, SAME) == 50
    assert stopped_after(world("{polling: true}"), GET, SAME) == 50
    assert stopped_after(world("{polling: true}"), POST, answered(500)) == 3
    assert stopped_after(world("{polling: false}"), POST, SAME) == 5
    cool = world("{cool_down: 1h}")
    times(cool, POST, answered(500), 3, at=0)
    assert [cool.do(POST, at=at) for at in (3599, 3600)] == ["loop-detected", "allow"]
    assert [(world("{cycle: 2}").do(each)) for each in (POST, OTHER)] == ["allow"] * 2
    two = world("{cycle: 2}")
    assert [two.do(each, SAME) for each in (POST, OTHER, POST, OTHER, POST)] == ["allow"] * 4 + ["loop-detected"]


def test_a_rule_that_only_watches_counts_for_itself() -> None:
    made = World("""
rules:
  - {id: all, match: "https://**", allow: true}
  - {id: trial, match: "https://**", mode: monitor, loop: {same_error: 2}}
""")
    assert times(made, POST, answered(500), 3) == ["allow"] * 3
    assert [each.code for each in made.ask(POST).would] == ["loop-detected"]


def test_it_needs_the_body_to_know_the_call() -> None:
    asked = needs(rules(RULES % "true"), POST)
    assert (asked.body, asked.claim, asked.answer) == (True, False, False)


def test_a_restart_changes_nothing() -> None:
    made = world()
    times(made, POST, answered(500), 3, at=0)
    made.ask(POST, at=61)
    times(made, GET, SAME, 4)
    assert made.refold() == made.state


def test_a_clock_that_is_set_back_frees_nothing() -> None:
    made = world()
    times(made, POST, answered(500), 3, at=100)
    times(made, OTHER, answered(500), 2, at=100)
    made.record((SetBack(made.at_ns, START + 10 * S).change(),))
    assert made.do(POST, at=60) == "loop-detected"
    assert [made.do(OTHER, answered(500), at=60) for _ in range(2)] == ["allow", "loop-detected"]
    assert made.do(POST, at=70) == "allow"


def saw(call_id: str, at_ns: int, **more: Any) -> dict[str, Any]:
    usual = {
        "at_ns": at_ns, "call": call_id, "result": "answer:200:x", "error": False, "of": "c", "executed": "no",
        "within_ns": 600 * S, "stop": {},
    }  # fmt: skip
    return {**usual, **more}


def test_memory_is_bounded_and_what_is_over_is_forgotten() -> None:
    table = Rows()
    for n in range(3 * KEPT):
        table.apply(Change("loop", "r", "k", "saw", saw(f"{n}", n)))
    assert [each.call for each in table.rows["k"].seen] == [f"{n}" for n in range(2 * KEPT, 3 * KEPT)]
    for n in range(20):
        table.apply(Change("loop", "r", f"k{n}", "saw", saw("c", n * S)))
    table.apply(Change("loop", "r", "k", "saw", saw("c", 100 * S)))
    for _ in range(20):
        table.apply(Change("loop", "r", "x", "sent", {"at_ns": 650 * S, "call": "c"}))
    assert list(table.rows) == ["k"]
    table.apply(Change("loop", "r", "x", "sent", {"at_ns": 700 * S, "call": "c"}))
    assert (table.rows, table.due.heap) == ({}, [])


class Agent(RuleBasedStateMachine):
    """An agent that calls two tools, in any order, at an API that answers as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.world = world()
        self.at = 0.0
        self.progress = 0
        self.sent: dict[str, list[str]] = {}

    @rule(seconds=st.sampled_from([0, 1, 30, 61, 200]))
    def wait(self, seconds: int) -> None:
        self.at += seconds

    @rule(asked=st.sampled_from([POST, OTHER, GET]), status=st.sampled_from([200, 404, 500]))
    def repeat(self, asked: Call, status: int) -> None:
        decided = self.world.do(asked, said("same", status), self.at)
        if decided != "allow":
            assert decided == "loop-detected"

    @rule()
    def poll(self) -> None:
        """A poll whose answer changes each time is never refused, whatever else goes on."""
        self.progress += 1
        assert self.world.do(call("GET", "/progress"), said(f"{self.progress}"), self.at) == "allow"

    @rule(count=st.integers(4, 9))
    def hammer(self, count: int) -> None:
        """Of the same call at one moment, that fails each time, no more than three go out."""
        decided = times(self.world, call("POST", "/hammer", '{"x": 1}'), answered(503), count, self.at)
        assert decided.count("allow") <= 3

    @rule()
    def come_back(self) -> None:
        """Whatever was stopped is sent once more, at the latest after the longest stop."""
        self.at += 901
        for asked in (POST, OTHER, GET):
            assert self.world.do(asked, said(f"new {self.at}"), self.at) == "allow"

    @invariant()
    def restart_changes_nothing(self) -> None:
        assert self.world.refold() == self.world.state


TestAgent = Agent.TestCase
