"""Equal refusals beyond a hundred a minute become one entry; nothing is lost count of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger.entries import DecisionEntry
from proxy.ledger.tally import MAX_GROUPS, Tally
from rules.decision import Change
from tests.proxy.ledger.samples import NOW_NS, decision, refusal

S = 1_000_000_000


def test_the_first_hundred_of_a_minute_are_recorded_one_by_one() -> None:
    tally = Tally()
    for n in range(100):
        entry = refusal(f"c_{n}")
        assert tally.offer(entry) == (entry,)
    assert tally.offer(refusal("c_100")) == ()


def test_calls_that_are_held_again_and_again_are_counted_too() -> None:
    """The first has asked a person, which changes something; the others only find that nobody has answered."""
    tally = Tally(limit=0)
    again = refusal("c_1", action="hold", code="approval-required")
    assert tally.offer(again) == ()
    asked = refusal("c_0", action="hold", changes=(Change("approve", "r", "k", "ask", {}),), count=0)
    assert tally.offer(asked) == (asked,)


def test_the_rest_comes_out_as_one_entry_when_the_minute_is_over() -> None:
    tally = Tally(limit=1)
    for n in range(5):
        tally.offer(refusal(f"c_{n}", at_ns=NOW_NS + n * S))
    assert tally.flush(NOW_NS + 60 * S - 1) == ()
    (counted,) = tally.flush(NOW_NS + 60 * S)
    assert (counted.id, counted.count, counted.at_ns) == ("c_1", 4, NOW_NS + 60 * S)
    assert tally.flush(NOW_NS + 61 * S) == ()


def test_a_later_decision_brings_out_what_is_due_before_itself() -> None:
    tally = Tally(limit=1)
    tally.offer(refusal("c_0"))
    tally.offer(refusal("c_1"))
    later = decision("c_2", at_ns=NOW_NS + 60 * S)
    assert [(entry.id, entry.at_ns) for entry in tally.offer(later)] == [("c_1", later.at_ns), ("c_2", later.at_ns)]


def test_at_the_end_everything_comes_out() -> None:
    tally = Tally(limit=0)
    tally.offer(refusal("c_0"))
    assert [entry.count for entry in tally.flush(NOW_NS, everything=True)] == [1]


NEVER_HELD = {
    "a call that goes out": decision(),
    "a replay": decision(action="replay", replay_of="c_0", status=200),
    "a refusal that changes the state": refusal(changes=(Change("loop", "r", "k", "seen", {}),)),
    "a refusal that speaks of another call": refusal(replay_of="c_0", code="duplicate-in-flight"),
}


@pytest.mark.parametrize("entry", NEVER_HELD.values(), ids=list(NEVER_HELD))
def test_never_held_back(entry: DecisionEntry) -> None:
    assert Tally(limit=0).offer(entry) == (entry,)


DIFFERENCES: dict[str, Any] = {
    "agent": "b",
    "run": "r_2",
    "tool": "x",
    "path": "/",
    "code": "no-allow",
    "rules": ("x",),
    "status": 429,
}


@pytest.mark.parametrize("field", DIFFERENCES)
def test_refusals_that_differ_are_not_counted_together(field: str) -> None:
    tally = Tally(limit=0)
    tally.offer(refusal())
    tally.offer(refusal(**{field: DIFFERENCES[field]}))
    assert [entry.count for entry in tally.flush(NOW_NS, everything=True)] == [1, 1]


def test_an_agent_that_varies_its_calls_does_not_fill_the_memory() -> None:
    tally = Tally(limit=0)
    for n in range(MAX_GROUPS):
        assert tally.offer(refusal(path=f"/{n}")) == ()
    beyond = refusal(path="/beyond")
    assert tally.offer(beyond) == (beyond,)


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab"), st.sampled_from(["/x", "/y"])), max_size=60))
def test_every_refusal_is_counted_once_and_time_does_not_go_back(steps: list[tuple[int, str, str]]) -> None:
    tally, now_ns, written = Tally(limit=2), NOW_NS, list[DecisionEntry]()
    for wait_s, agent, path in steps:
        now_ns += wait_s * S
        written.extend(tally.offer(refusal(at_ns=now_ns, agent=agent, path=path)))
    written.extend(tally.flush(now_ns, everything=True))
    assert sum(entry.count for entry in written) == len(steps)
    assert [entry.at_ns for entry in written] == sorted(entry.at_ns for entry in written)
