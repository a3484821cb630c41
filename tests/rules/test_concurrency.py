"""concurrency: never more than so many on their way, and nothing refused that fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rules.decide import abandon, resolve
from rules.decision import Answer, Change
from rules.guards.concurrency import Concurrency, Leases
from rules.needs import needs
from rules.problems import RuleFileError
from rules.state import SetBack
from rules.yamltree import parse
from tests.rules.world import LOST, OK, START, WITHDRAWN, S, World, answered, call, rules

RULES = """
rules:
  - {id: two, match: "GET https://**", allow: true, concurrency: %s}
"""


def world(concurrency: str) -> World:
    return World(RULES % concurrency)


def get(**given: Any) -> Any:
    return call("GET", "/search", **given)


def asked(made: World, count: int, **given: Any) -> list[str]:
    """So many calls are asked for, and none of them ends."""
    decisions = [made.ask(get(**given)) for _ in range(count)]
    return [decision.code or decision.action for decision in decisions]


def test_at_most_so_many_are_on_their_way() -> None:
    made = world("2")
    assert asked(made, 4) == ["allow", "allow", "concurrency", "concurrency"]
    made.end()
    assert asked(made, 2) == ["allow", "concurrency"]


def test_a_refusal_says_what_the_limit_is_and_that_waiting_helps() -> None:
    made = world("2")
    asked(made, 2)
    refused = made.ask(get())
    assert (refused.action, refused.code, refused.rules, refused.executed) == (
        "throttle",
        "concurrency",
        ("two",),
        "no",
    )
    assert (refused.retry_after_ns, refused.wait, refused.changes) == (2 * S, None, ())
    assert refused.violations[0].limit == "2 at the same time"
    assert "2 calls of this kind are on the way" in refused.detail
    one = world("1")
    asked(one, 1)
    assert "1 call of this kind is on the way" in one.ask(get()).detail


ENDS = {
    "answered": OK,
    "refused by the API": answered(422),
    "failed at the API": answered(500),
    "broken off": LOST,
    "not reached": Answer(0, complete=False, sent=False, error="connection refused"),
    "withdrawn": WITHDRAWN,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))
def test_the_lease_comes_back_however_the_call_ends(end: Answer) -> None:
    made = world("1")
    assert asked(made, 2) == ["allow", "concurrency"]
    made.end(end)
    assert asked(made, 1) == ["allow"]
    assert made.refold() == made.state


def test_what_a_dead_proxy_left_out_is_free_after_the_restart() -> None:
    made = world("2")
    asked(made, 2)
    made.record(abandon(made.state, made.at_ns))
    assert asked(made, 3) == ["allow", "allow", "concurrency"]
    assert made.refold() == made.state


def test_given_back_twice_frees_one() -> None:
    made = world("2")
    asked(made, 2)
    made.end(LOST, "call-1")
    again = [change for change in made.ledger if change.op == "release"]
    made.record(tuple(again))
    assert asked(made, 2) == ["allow", "concurrency"]
    made.record((Change("concurrency", "two", "no such counter", "release", {"at_ns": 0, "call": "x"}),))
    assert made.refold() == made.state


def test_a_lease_says_nothing_of_an_unknown_outcome() -> None:
    made = World("rules: [{id: r, match: 'https://**', allow: true, dedupe: 1h, concurrency: 1}]")
    made.ask(call())
    made.end(LOST)
    changes = resolve(made.state, "call-1", True, made.at_ns)
    assert [change.guard for change in changes] == ["dedupe"]
    assert Leases().told(changes[0]) == ()


def test_what_is_refused_takes_nothing() -> None:
    made = World(RULES % "1" + "  - {id: slow, match: 'https://**', throttle: 1/min}")
    assert made.do(get(), at=0) == "allow"
    assert made.do(get(), at=1) == "rate-limited"
    assert made.do(get(), at=60) == "allow", "the refused call holds no lease"
    made.ask(get(), at=120)
    assert made.ask(get(), at=180).code == "concurrency"
    made.end()
    assert made.do(get(), at=180) == "allow", "nor has the other one used up the quota"


def test_a_call_may_wait_for_the_lease_of_another() -> None:
    made = world("{max: 1, wait: 5s}")
    made.ask(get())
    waits = made.ask(get())
    assert waits.wait is not None
    assert (waits.wait.at_most_ns, waits.wait.crowd, waits.changes) == (5 * S, 50, ())
    ended = made.end()
    assert set(waits.wait.on) == {(change.guard, change.key) for change in ended.changes}, "what wakes it"
    assert made.do(get()) == "allow"


def test_a_call_that_waits_for_two_is_woken_by_either() -> None:
    made = World(RULES % "{max: 1, wait: 5s}" + "  - {id: all, match: 'https://**', concurrency: {max: 1, wait: 2s}}")
    made.ask(get())
    waits = made.ask(get())
    assert waits.wait is not None
    assert (len(set(waits.wait.on)), waits.wait.at_most_ns, waits.rules) == (2, 2 * S, ("all", "two"))


BY = [
    ("", {"agent": "bob", "run": "x"}, "concurrency"),
    ("agent", {"agent": "bob"}, "allow"),
    ("agent", {"run": "x"}, "concurrency"),
    ("[agent, query.q]", {"query": (("q", "2"),)}, "allow"),
]


@pytest.mark.parametrize(("by", "other", "then"), BY)
def test_each_key_has_a_counter_of_its_own(by: str, other: dict[str, Any], then: str) -> None:
    made = world(f"{{max: 1, by: {by}}}" if by else "{max: 1, wait: 0}")
    assert asked(made, 2) == ["allow", "concurrency"]
    assert asked(made, 1, **other) == [then]


def test_the_body_is_needed_when_a_counter_reads_it() -> None:
    assert not needs(rules(RULES % "1"), get()).body
    assert needs(rules(RULES % "{max: 1, by: body.user}"), get()).body
    assert not needs(rules(RULES % "1"), get()).claim


def test_a_new_limit_counts_those_that_are_out() -> None:
    made = world("3")
    asked(made, 3)
    made.ruleset = rules(RULES % "2")
    made.end()
    assert asked(made, 1) == ["concurrency"]
    made.end()
    assert asked(made, 1) == ["allow"]


def test_a_clock_that_is_set_back_frees_nothing() -> None:
    made = world("1")
    asked(made, 1)
    made.record((SetBack(START + 3600 * S, START).change(),))
    assert asked(made, 1) == ["concurrency"]
    assert made.refold() == made.state


def test_monitored_and_enforced_leases_are_apart() -> None:
    made = World(RULES % "1, mode: monitor" + "  - {id: get, match: 'GET https://**', allow: true}")
    decisions = [made.ask(get()) for _ in range(3)]
    assert [each.action for each in decisions] == ["allow"] * 3
    assert [[one.code for one in each.would] for each in decisions] == [[], ["concurrency"], ["concurrency"]]
    made.end(call_id="call-1")
    assert made.ask(get()).would == ()
    made.ruleset = rules(RULES % "1")
    assert asked(made, 2) == ["allow", "concurrency"]


def test_all_of_it_in_monitor_mode_holds_nobody() -> None:
    made = World("mode: monitor" + RULES % "{max: 1, wait: 5s}")
    decisions = [made.ask(get()) for _ in range(2)]
    assert [(each.action, each.wait, [one.code for one in each.would]) for each in decisions] == [
        ("allow", None, []),
        ("allow", None, ["concurrency"]),
    ]


PARSED = {
    "2": Concurrency("r", 2),
    "{max: 3}": Concurrency("r", 3),
    "{max: 3, wait: 0s}": Concurrency("r", 3),
    "{max: 3, wait: 2m}": Concurrency("r", 3, wait_ns=120 * S),
}


@pytest.mark.parametrize(("text", "guard"), PARSED.items())
def test_forms(text: str, guard: Concurrency) -> None:
    assert Concurrency.parse(parse(text, "test.yaml"), "r") == guard


@pytest.mark.parametrize(
    "text", ["0", "-1", "false", "2.0", "two", "true", "{}", "{max: 1000001}", "{max: [2]}", "[2]"]
)
def test_what_is_no_number_of_calls_is_refused(text: str) -> None:
    with pytest.raises(RuleFileError):
        Concurrency.parse(parse(text, "test.yaml"), "r")


ANSWERS = st.sampled_from(list(ENDS.values()))
AGENTS = st.sampled_from(["ann", "bob"])


class Calls(RuleBasedStateMachine):
    """Calls of two agents come and go, and the proxy dies now and then; beside it stands who is out."""

    @initialize(most=st.integers(1, 3))
    def begin(self, most: int) -> None:
        self.most = most
        self.world = world(f"{{max: {most}, by: agent}}")
        self.model: dict[str, set[str]] = {"ann": set(), "bob": set()}

    @rule(agent=AGENTS)
    def comes(self, agent: str) -> None:
        """Let out if it fits, and only then."""
        fits = len(self.model[agent]) < self.most
        decision = self.world.ask(get(agent=agent))
        assert (decision.action == "allow") == fits
        if fits:
            self.model[agent].add(f"call-{self.world.calls}")

    @precondition(lambda self: any(self.model.values()))
    @rule(data=st.data(), answer=ANSWERS)
    def ends(self, data: st.DataObject, answer: Answer) -> None:
        call_id = data.draw(st.sampled_from(sorted(set.union(*self.model.values()))))
        self.world.end(answer, call_id)
        for out in self.model.values():
            out.discard(call_id)

    @rule()
    def dies(self) -> None:
        self.world.record(abandon(self.world.state, self.world.at_ns))
        self.world.out.clear()
        self.model = {"ann": set(), "bob": set()}

    @invariant()
    def as_the_model(self) -> None:
        if hasattr(self, "model"):
            rows = self.world.state.of(Leases).rows
            assert sorted(map(sorted, rows.values())) == sorted(sorted(out) for out in self.model.values() if out)
            assert self.world.refold() == self.world.state


TestCalls = Calls.TestCase
