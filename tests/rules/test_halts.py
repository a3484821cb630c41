"""Halts: what a person has stopped is refused first of all, whatever the rules and their mode say."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.call import Body, Call
from rules.decide import recheck
from rules.decision import Decision
from rules.halts import Halt, Halts
from rules.state import SetBack
from rules.wording import cut_off
from tests.rules.world import START, S, World, call

RULES = """
mode: %s
tools:
  shop.order: POST https://api.example.com/orders
  shop.any: https://api.example.com/**
  shop.large: {match: {request: "POST https://api.example.com/orders", where: {body.total: {gt: 100}}}}
  shop.noted: {match: {request: "https://api.example.com/**", where: {body.note: {matches: "urgent.*"}}}}
rules:
  - {id: all, tool: shop.any, allow: true, dedupe: 1h}
  - {id: no-deletes, match: "DELETE https://**", deny: Never.}
"""


def world(*halts: Halt, mode: str = "enforce") -> World:
    made = World(RULES % mode)
    made.record(tuple(halt.begun() for halt in halts))
    return made


def halt(agent: str = "", tool: str = "", reason: str = "Too many refunds") -> Halt:
    return Halt(agent, tool, reason, "ada", START)


@pytest.mark.parametrize(
    ("what", "stopped"),
    [
        (halt(), True),
        (halt(agent="ann"), True),
        (halt(agent="a*"), True),
        (halt(agent="bob"), False),
        (halt(agent="A*"), False),
        (halt(tool="shop.order"), True),
        (halt(tool="shop.*"), True),
        (halt(tool="*"), True),
        (halt(tool="shop.any"), True),
        (halt(tool="shop.large"), False),
        (halt(tool="order"), False),
        (halt(agent="ann", tool="shop.*"), True),
        (halt(agent="bob", tool="shop.*"), False),
        (halt(agent="ann", tool="bank.*"), False),
    ],
    ids=[
        "all calls",
        "of this agent",
        "of agents like it",
        "not of another",
        "case counts",
        "to the tool that names it",
        "to tools like it",
        "to any tool",
        "to a tool that matches it, though another one names it",
        "not to a tool that does not match it",
        "a part of a name is not the name",
        "of the agent, to the tool",
        "not of another agent, to the tool",
        "not of the agent, to another tool",
    ],
)
def test_what_is_stopped(what: Halt, stopped: bool) -> None:
    decision = world(what).ask(call(body='{"total": 5}'))
    assert decision.code == ("halted" if stopped else "")


def test_the_agent_is_told_why_and_not_to_go_on() -> None:
    decision = world(halt()).ask(call())
    assert (decision.action, decision.code, decision.executed, decision.rules) == ("deny", "halted", "no", ())
    assert decision.detail == (
        "Too many refunds. A person has stopped such calls until further notice, and nothing was executed."
    )
    assert decision.next == ("Do not repeat this call.", "Stop here: only a person can let such calls go on.")
    assert decision.changes == ()


def test_a_call_to_no_tool_is_stopped_with_all_calls_only() -> None:
    elsewhere = call(host="other.example.com")
    assert world(halt(tool="*")).ask(elsewhere).code == "no-allow"
    assert world(halt()).ask(elsewhere).code == "halted"


def test_it_stands_before_every_deny() -> None:
    assert world(halt()).ask(call("DELETE", "/orders/1")).code == "halted"


def test_what_cannot_be_read_is_refused_for_that() -> None:
    broken = Body("undecodable", "application/json", problem="not JSON", size_bytes=9)
    assert world(halt()).ask(call(body=broken)).code == "ambiguous-request"


@pytest.mark.parametrize(
    ("tool", "body"),
    [("shop.large", '{"total": "many"}'), ("shop.noted", '{"note": "\\ud800"}')],
    ids=["what is no number", "what cannot be matched"],
)
def test_on_doubt_the_call_is_of_the_tool(tool: str, body: str) -> None:
    assert world(halt(tool=tool)).ask(call(body=body)).code == "halted"


def test_global_monitor_mode_does_not_lift_it() -> None:
    made = world(halt(), mode="monitor")
    assert made.ask(call()).code == "halted"
    assert made.ask(call("DELETE", "/orders/1")).code == "halted"
    assert recheck(made.ruleset, made.state, call(), "call-1", made.at_ns) is not None


def test_a_call_that_waited_its_turn_is_stopped() -> None:
    made = world()
    assert made.ask(call()).action == "allow"
    assert recheck(made.ruleset, made.state, call(), "call-1", made.at_ns) is None
    made.record((halt(agent="ann").begun(),))
    refused = recheck(made.ruleset, made.state, call(), "call-1", made.at_ns)
    assert isinstance(refused, Decision)
    assert refused.code == "halted"


def test_a_replay_is_stopped_and_outcomes_settle() -> None:
    made = world()
    out = made.ask(call())
    assert out.action == "allow"
    made.record((halt().begun(),))
    assert made.end().kind == "done"
    assert made.ask(call()).code == "halted"
    made.record((halt().ended(START),))
    assert made.ask(call()).action == "replay"


def test_another_halt_of_the_same_calls_replaces_it() -> None:
    made = world(halt(reason="First"), halt(reason="Second"))
    assert made.ask(call()).detail.startswith("Second. ")
    made.record((halt().ended(START),))
    assert made.ask(call()).action == "allow"


def test_resuming_some_leaves_the_others_stopped() -> None:
    made = world(halt(), halt(agent="ann"))
    made.record((halt().ended(START), halt(agent="bob").ended(START)))
    assert made.ask(call()).code == "halted"
    assert made.ask(call(agent="bob")).action == "allow"


def test_the_widest_is_told_whatever_came_first() -> None:
    halts = [halt(reason="all"), halt(agent="ann", reason="ann"), halt(tool="shop.*", reason="shop")]
    told = {world(*each).ask(call()).detail.split(".")[0] for each in permutations(halts)}
    assert told == {"all"}
    assert [each.calls for each in world(*halts).state.of(Halts).in_force()] == [
        "all calls", "calls to `shop.*`", "calls of agent `ann`",
    ]  # fmt: skip


GLOBS = st.sampled_from(["", "ann", "a*", "bob", "*", "shop.*", "shop.order"])
HALTS = st.builds(halt, GLOBS, GLOBS)
CALLS: st.SearchStrategy[Call] = st.builds(
    call, st.sampled_from(["POST", "GET", "DELETE"]), st.sampled_from(["/orders", "/x"]), agent=st.sampled_from("ab")
)


@given(st.lists(HALTS, max_size=3), CALLS)
def test_a_halt_can_only_refuse(halts: list[Halt], asked: Call) -> None:
    with_them, without = world(*halts).ask(asked), world().ask(asked)
    assert with_them.code in ("halted", without.code)
    assert with_them.code != "halted" or with_them.action == "deny"


@given(st.lists(st.tuples(HALTS, st.booleans()), max_size=8), st.integers(0, 10**9))
def test_a_refolded_ledger_has_the_same_halts(steps: list[tuple[Halt, bool]], back_s: int) -> None:
    made = world()
    for each, begins in steps:
        made.record((each.begun() if begins else each.ended(START),))
    made.record((SetBack(START + 10**9 * S, START + back_s * S).change(),))
    assert made.refold() == made.state
    assert {one.key for one in made.state.of(Halts).in_force()} == set(made.state.of(Halts).halts)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (call("POST", "/orders"), "Too many refunds."),
        (call("GET", "/a", host="other.example.com"), "No rule allows this call."),
        (
            call("POST", "/orders", body=Body("undecodable", problem="it is no JSON")),
            "The request is ambiguous: its body cannot be read (it is no JSON).",
        ),
    ],
)
def test_what_would_be_refused_now_is_told_otherwise_of_a_call_that_is_out(asked: Call, reason: str) -> None:
    made = world(halt(tool="shop.order"))
    refused = recheck(made.ruleset, made.state, asked, "c", START)
    assert refused is not None
    assert cut_off(refused.detail) == f"{reason} It was cut off while it went on; whether it took effect is not known."
