"""History: what is remembered of runs. Forgetting may only refuse, and what was sent is never forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rules import kept
from rules.decide import apply
from rules.decision import Change
from rules.guards import history
from rules.guards.history import IDLE_NS, RUNS, SEEN_NS, TIMES, TIMES_OF_ONE, History, done, past_of, sent
from rules.state import SetBack, State
from tests.rules.world import LOST, OK, START, S, World, call, form_body

DAY = IDLE_NS


def named(number: int) -> str:
    """The id of a run as a proxy makes it: sorts by its number."""
    return f"r_{number:026}"


def say(state: State, run: str, tool: str, now_ns: int, call_id: str = "c") -> None:
    apply(state, sent(state, run, call_id, (tool,), now_ns))


def knows(state: State, run: str) -> bool:
    return run in state.of(History).runs


def test_nothing_new_is_not_recorded() -> None:
    state = State()
    assert sent(state, "r", "c1", (), START) == ()
    for number, count in enumerate((1, 1, 0, 0)):
        changes = sent(state, "r", f"c{number}", ("web",), START)
        assert len(changes) == count
        apply(state, changes)
    assert done(state, "r", "c1", ("web",), ("k",), START) != ()
    apply(state, done(state, "r", "c1", ("web",), (), START))
    assert done(state, "r", "c2", ("web",), (), START) == ()


def test_that_a_run_is_active_is_recorded_now_and_then() -> None:
    state = State()
    say(state, "r", "web", START, "c1")
    say(state, "r", "web", START, "c2")
    assert sent(state, "r", "c3", ("web",), START + SEEN_NS - 1) == ()
    (change,) = sent(state, "r", "c3", ("web",), START + SEEN_NS)
    apply(state, (change,))
    assert state.of(History).runs["r"].seen_ns == START + SEEN_NS
    assert state.of(History).runs["r"].sent == {"web": ["c1", "c2"]}


def test_a_run_does_not_stand_in_plain_where_a_digest_does() -> None:
    (change,) = sent(State(), "nightly", "c1", ("web",), START)
    assert "nightly" not in change.key
    assert len(change.key) == 32


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "RUNS", 3)


@pytest.mark.usefixtures("few")
def test_the_run_that_was_idle_longest_is_dropped_and_then_counts_as_having_sent_everything() -> None:
    state = State()
    for number in range(3):
        say(state, named(number), "web", START + number)
    say(state, named(0), "mail", START + 5)
    say(state, named(3), "web", START + 2 * DAY)
    assert [knows(state, named(number)) for number in range(4)] == [True, False, True, True]
    back = past_of(state, named(1), "c9")
    assert back.sent(("anything",))
    assert not back.done(("web",))
    assert not back.met(("key",))
    say(state, named(1), "web", START + 2 * DAY)  # it does come back, and stays lost
    assert past_of(state, named(1), "c9").sent(("anything",))
    assert not past_of(state, named(4), "c9").sent(("web",))  # one that is new
    assert not past_of(state, "nightly", "c9").sent(("web",))  # one that is named is never dropped


@pytest.mark.usefixtures("few")
def test_runs_that_are_active_and_runs_that_somebody_named_are_kept() -> None:
    state = State()
    for run in ("nightly", named(1), named(2), named(3), named(4)):
        say(state, run, "web", START)
    assert len(state.of(History).runs) == 5
    for number in range(5, 9):
        say(state, named(number), "web", START + DAY)
    assert knows(state, "nightly")
    assert not knows(state, named(1))
    assert past_of(state, "nightly", "c9").sent(("web",))


def test_there_is_room_for_many_runs() -> None:
    assert RUNS >= 1000


def test_of_completed_calls_the_oldest_are_forgotten_first() -> None:
    state = State()
    for number in range(TIMES + 10):
        apply(state, done(state, "r", f"c{number}", (), (f"k{number % 800}",), START + number))
    past = state.of(History).runs["r"]
    assert past.times == sum(map(len, past.met.values())) == TIMES
    assert past_of(state, "r", "").met(("k200",)) == [START + 200, START + 1000]
    assert past_of(state, "r", "").met(("k209",)) == [START + 1009]
    assert past_of(state, "r", "").met(("k210",)) == []
    assert past_of(state, "r", "").met(("k211",)) == [START + 211]


def test_one_kind_of_call_does_not_drive_out_the_others() -> None:
    state = State()
    apply(state, done(state, "r", "first", (), ("other",), START))
    for number in range(TIMES * 2):
        apply(state, done(state, "r", f"c{number}", (), ("poll",), START + number))
    newest = [START + number for number in range(TIMES * 2 - TIMES_OF_ONE, TIMES * 2)]
    assert past_of(state, "r", "").met(("poll",)) == newest
    assert past_of(state, "r", "").met(("other",)) == [START]


def test_times_are_forgotten_one_by_one() -> None:
    state = State()
    for number in range(TIMES + 1):
        apply(state, done(state, "r", f"c{number}", (), (f"k{number // 2}",), START + number))
    assert past_of(state, "r", "").met(("k0",)) == [START + 1]
    for number in range(TIMES + 1, TIMES + 5):
        apply(state, done(state, "r", f"c{number}", (), (f"k{number // 2}",), START + number))
    past = state.of(History).runs["r"]
    assert list(past.met)[:2] == ["k2", "k3"], "of what is forgotten as a whole nothing is left"
    assert all(past.met.values())


# -- against a model ---------------------------------------------------------------------------------------------------

RULES = """
tools:
  web: GET https://api.example.com/**
  page: GET https://api.example.com/pages/{page}
  send: POST https://api.example.com/send
rules:
  - {id: read, tool: web, allow: true, throttle: {rate: 3/min, by: run}}
  - {id: publish, tool: send, where: {body.kind: publish}, allow: true,
     require: {after: page, same: {body.page: path.page}, within: 5m, count: 2}}
  - {id: tell, tool: send, where: {body.kind: tell}, allow: true}
  - {id: tainted, tool: send, where: {body.kind: tell}, after: web, deny: No.}
"""

RUN = st.sampled_from(["r1", "r2", named(1)])
AGENT = st.sampled_from(["ann", "bob"])
PAGE = st.sampled_from(["a", "b"])


class Remembers(RuleBasedStateMachine):
    """The past against a list of everything that ever happened."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(RULES)
        self.let_out: list[str] = []
        self.completed: list[tuple[int, tuple[str, str, str]]] = []
        self.out: dict[str, tuple[str, str, str]] = {}

    @rule(run=RUN, agent=AGENT, page=PAGE)
    def read(self, run: str, agent: str, page: str) -> None:
        decision = self.world.ask(call("GET", f"/pages/{page}", run=run, agent=agent))
        if decision.action == "allow":
            self.let_out.append(run)
            self.out[f"call-{self.world.calls}"] = (run, agent, page)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), fine=st.booleans())
    def answer(self, data: st.DataObject, fine: bool) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.out)))
        run, agent, page = self.out.pop(call_id)
        self.world.end(OK if fine else LOST, call_id)
        if fine:
            self.completed.append((self.world.at_ns, (run, agent, page)))

    @rule(seconds=st.integers(0, 200))
    def time_passes(self, seconds: int) -> None:
        self.world.at_ns += seconds * S

    def _send(self, run: str, agent: str, kind: str, page: str = "") -> bool:
        fields = form_body(("kind", kind), ("page", page))
        return self.world.do(call("POST", "/send", fields, run=run, agent=agent)) == "allow"

    @rule(run=RUN, agent=AGENT, page=PAGE)
    def it_is_published_only_after_it_was_read(self, run: str, agent: str, page: str) -> None:
        since_ns = self.world.at_ns - 300 * S
        count = sum(at_ns > since_ns and what == (run, agent, page) for at_ns, what in self.completed)
        assert self._send(run, agent, "publish", page) is (count >= 2)

    @rule(run=RUN, agent=AGENT)
    def nothing_is_told_once_something_was_read(self, run: str, agent: str) -> None:
        assert self._send(run, agent, "tell") is (run not in self.let_out)

    @invariant()
    def the_ledger_tells_the_same(self) -> None:
        assert self.world.refold() == self.world.state


TestHistory = Remembers.TestCase
TestHistory.settings = settings(stateful_step_count=40)


class Forgets(RuleBasedStateMachine):
    """With room for few runs: memory is bounded, and forgetting never permits what remembering would not."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.changes: list[Change] = []
        self.now_ns = self.recorded_ns = START
        self.sent: set[tuple[str, str]] = set()
        self.done: set[tuple[str, str]] = set()
        self.met: dict[tuple[str, str], list[int]] = {}
        self.number = 0
        self.room = history.RUNS
        history.RUNS = 3

    def teardown(self) -> None:
        history.RUNS = self.room

    runs = st.one_of(st.integers(0, 12).map(named), st.just("nightly"))
    tools = st.sampled_from(["web", "mail"])

    def _record(self, changes: tuple[Change, ...]) -> None:
        apply(self.state, changes)
        self.changes += changes
        self.recorded_ns = self.now_ns

    @rule(run=runs, tool=tools)
    def send(self, run: str, tool: str) -> None:
        self.number += 1
        self._record(sent(self.state, run, f"c{self.number}", (tool,), self.now_ns))
        self.sent.add((run, tool))

    @rule(run=runs, tool=tools, key=st.sampled_from(["k1", "k2"]))
    def complete(self, run: str, tool: str, key: str) -> None:
        self.number += 1
        self._record(done(self.state, run, f"c{self.number}", (tool,), (key,), self.now_ns))
        self.done.add((run, tool))
        self.met.setdefault((run, key), []).append(self.now_ns)

    @rule(hours=st.integers(0, 30))
    def time_passes(self, hours: int) -> None:
        self.now_ns += hours * 3600 * S

    @rule(run=runs, tool=tools, key=st.sampled_from(["k1", "k2"]))
    def forgetting_only_refuses(self, run: str, tool: str, key: str) -> None:
        past = past_of(self.state, run, "new")
        assert past.sent((tool,)) or (run, tool) not in self.sent
        assert not past.done((tool,)) or (run, tool) in self.done
        assert set(past.met((key,))) <= set(self.met.get((run, key), []))

    @invariant()
    def memory_is_bounded(self) -> None:
        runs = self.state.of(History).runs  # they are given up when something is recorded, not when time passes
        idle = [run for run, past in runs.items() if run != "nightly" and self.recorded_ns - past.seen_ns >= DAY]
        assert len(runs) <= 4 or len(idle) < len(runs)
        assert all(past.times <= TIMES for past in runs.values())

    @invariant()
    def the_ledger_tells_the_same(self) -> None:
        again = State()
        apply(again, self.changes)
        assert again == self.state


TestForgetting = Forgets.TestCase


@pytest.mark.parametrize("op", ["sent", "done", "of another version"])
def test_the_fold_is_total(op: str) -> None:
    state = State()
    data: dict[str, Any] = {"at_ns": START, "call": "c1", "run": "r", "tools": ["web"]}
    change = Change("history", "", "0" * 32, op, data)
    apply(state, (change, change))
    assert state.of(History).runs["r"].sent in ({}, {"web": ["c1"]})
    assert knows(state, "r")


def test_what_was_done_while_the_clock_ran_ahead_has_to_be_done_again() -> None:
    state = State()
    say(state, "r", "web", START + 60 * S, "c1")
    for number, seconds in enumerate((10, 20, 90)):
        apply(state, done(state, "r", f"c{number}", ("web",), ("k", f"k{number}"), START + seconds * S))
    state.set_back(SetBack(START + 100 * S, START + 20 * S))
    past = past_of(state, "r", "c9")
    assert past.met(("k",)) == [START + 10 * S, START + 20 * S]
    assert state.of(History).runs["r"].times == 4
    assert "k2" not in state.of(History).runs["r"].met
    assert state.of(History).runs["r"].seen_ns == START + 20 * S
    assert past.sent(("web",))
    assert past.done(("web",))


def test_it_can_be_written_down_and_read_back() -> None:
    state = State()
    say(state, "r1", "web", START, "c1")
    apply(state, done(state, "r1", "c1", ("web",), ("k1", "k2"), START + 1))
    apply(state, done(state, "r1", "c2", ("web",), ("k1",), START + 2))
    say(state, named(1), "mail", START + 3, "c3")
    again = kept.read(list(kept.write(state)))
    assert again == state
    assert list(again.of(History).runs) == ["r1", named(1)]
    assert list(again.of(History).runs["r1"].met) == ["k2", "k1"]


def test_every_message_of_a_batch_taints() -> None:
    world = World("""
tools:
  read: {match: {request: "POST https://api.example.com/mcp", mcp: read}}
  list: {match: {request: "POST https://api.example.com/mcp", mcp: list}}
  send: POST https://api.example.com/send
rules:
  - {id: open, tool: [read, list, send], allow: true}
  - {id: tainted, tool: send, after: list, deny: No.}
""")
    messages = [{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": n}} for n in ("read", "list")]
    assert world.do(call("POST", "/mcp", json.dumps(messages[:1]))) == "allow"
    assert world.do(call("POST", "/send")) == "allow"
    assert world.do(call("POST", "/mcp", json.dumps(messages))) == "allow"
    assert world.do(call("POST", "/send")) == "policy-denied"
    assert world.refold() == world.state
