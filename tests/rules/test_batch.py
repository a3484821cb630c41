"""Batches: every message by itself, and the whole goes out or nothing does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rules.batch import MOST
from rules.call import Body, Call
from rules.decide import recheck
from tests.rules.world import World, call, rules

RULES = """
tools:
  any: {match: {request: "POST https://api.example.com/mcp", mcp: "*"}}
  session: {match: {request: "https://api.example.com/mcp", mcp: session}}
  pay: {match: {request: "POST https://api.example.com/mcp", mcp: pay}}
rules:
  - {id: tools, tool: any, allow: true}
  - {id: session, tool: session, allow: true}
  - {id: no-delete, match: {request: "POST https://api.example.com/mcp", mcp: delete}, deny: No.}
  - {id: pay-once, tool: pay, dedupe: 24h}
"""


def tool(name: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": {"name": name, "arguments": {"x": 1}}}


def batch(*names: str, path: str = "/mcp") -> Call:
    return call(path=path, body=json.dumps([tool(name) for name in names]))


def test_a_batch_goes_out_if_each_message_would() -> None:
    decision = World(RULES).ask(batch("read", "list"))
    assert (decision.action, decision.rules, decision.tool) == ("allow", ("tools",), "any")
    assert decision.facts["[1].message"] == "tools/call read"
    assert decision.facts["[2].message"] == "tools/call list"


def test_messages_of_several_tools_have_no_one_name() -> None:
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    decision = World(RULES).ask(call(path="/mcp", body=json.dumps([tool("read"), listing])))
    assert (decision.action, decision.rules, decision.tool) == ("allow", ("tools", "session"), "")


@pytest.mark.parametrize("names", [("delete", "read"), ("read", "delete"), ("read", "read", "delete")])
def test_one_message_that_is_refused_refuses_the_batch(names: tuple[str, ...]) -> None:
    decision = World(RULES).ask(batch(*names))
    place = names.index("delete") + 1
    assert (decision.action, decision.code, decision.rules) == ("deny", "policy-denied", ("no-delete",))
    assert decision.detail.startswith(f"Message {place} of {len(names)} in this batch: No.")
    assert decision.detail.endswith("No message of the batch was sent.")
    assert decision.changes == ()


@pytest.mark.parametrize("names", [("pay",), ("pay", "read"), ("read", "pay")])
def test_what_a_guard_counts_goes_by_itself(names: tuple[str, ...]) -> None:
    world = World(RULES)
    decision = world.ask(batch(*names))
    assert (decision.code, decision.rules) == ("batch-refused", ("pay-once",))
    assert world.do(call(path="/mcp", body=json.dumps(tool("pay")))) == "allow"


def test_a_duplicate_in_a_batch_is_told_to_have_been_executed() -> None:
    world = World(RULES)
    world.do(call(path="/mcp", body=json.dumps(tool("pay"))))
    decision = world.ask(batch("read", "pay"))
    assert (decision.action, decision.code, decision.executed) == ("deny", "duplicate", "yes")
    assert [one.rule for one in decision.violations] == ["pay-once"]


def test_nobody_waits_with_a_batch() -> None:
    world = World(RULES)
    world.ask(call(path="/mcp", body=json.dumps(tool("pay"))))
    decision = world.ask(batch("pay"))
    assert (decision.code, decision.wait) == ("duplicate-in-flight", None)


def test_a_guard_in_monitor_mode_stops_no_batch() -> None:
    world = World(RULES.replace("dedupe: 24h", "dedupe: 24h, mode: monitor"))
    assert world.do(batch("pay", "read")) == "allow"


def test_in_global_monitor_mode_a_batch_goes_out_and_what_would_have_been_is_on_record() -> None:
    world = World("mode: monitor\n" + RULES)
    decision = world.ask(batch("delete", "pay"))
    assert decision.action == "allow"
    assert [one.code for one in decision.would] == ["policy-denied"]


def test_an_empty_batch_is_no_message() -> None:
    assert World(RULES).do(batch()) == "policy-denied"


def test_a_batch_in_a_batch_is_no_message() -> None:
    assert World(RULES).do(call(path="/mcp", body=json.dumps([[tool("read")]]))) == "policy-denied"


def test_a_list_is_no_batch_where_nothing_reads_messages() -> None:
    world = World(RULES + '  - {id: lists, match: "POST https://api.example.com/lists", allow: true, dedupe: 24h}\n')
    assert world.do(batch("delete", path="/lists")) == "allow"
    assert world.do(batch("delete", path="/lists")) == "replay"


def test_a_batch_that_waited_is_looked_at_again_message_by_message() -> None:
    world = World(RULES)
    refusal = recheck(rules(RULES), world.state, batch("read", "delete"), "call-1", world.at_ns)
    assert refusal is not None
    assert refusal.code == "policy-denied"
    assert recheck(rules(RULES), world.state, batch("read", "list"), "call-1", world.at_ns) is None


def test_a_batch_of_too_many_messages_is_refused() -> None:
    world = World(RULES)
    assert world.do(batch(*["read"] * MOST)) == "allow"
    decision = world.ask(batch(*["read"] * (MOST + 1)))
    assert (decision.action, decision.code, decision.rules, decision.changes) == ("deny", "batch-refused", (), ())
    assert World("mode: monitor\n" + RULES).do(batch(*["read"] * (MOST + 1))) == "batch-refused"


def test_of_a_batch_that_is_too_large_no_more_is_read_than_that() -> None:
    class Counted(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            assert index.stop == MOST + 1
            return super().__getitem__(index)

    whole = call(path="/mcp", body=Body("json", "application/json", json=Counted([1] * 1_000_000)))
    assert World(RULES).do(whole) == "batch-refused"
