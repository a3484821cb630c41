"""What a protocol says in its answer of having failed, while HTTP says 200; and that `loop` takes it for an error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rules.call import UNREAD_BODY, Body, Call
from rules.decision import Answer
from rules.needs import needs
from rules.protocols import failure
from tests.rules.world import World, call, json_body, rules

TOOL_CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "send", "arguments": {}}}
MCP = call(path="/mcp", body=json.dumps(TOOL_CALL))
GRAPHQL = call(path="/graphql", body=json.dumps({"query": "mutation { close(id: 1) { id } }"}))
GRPC = call(path="/bank.Bank/Pay", headers=(("content-type", "application/grpc"),), body=Body("binary", size_bytes=5))
PLAIN = call(path="/mcp", body='{"a": 1}')


def said(body: Body, **given: Any) -> Answer:
    return Answer(200, complete=True, sent=True, stored=True, digest="x", body=body, **given)


def as_json(value: object) -> Answer:
    return said(json_body(json.dumps(value)))


def as_events(*values: object, end: str = "\n") -> Answer:
    events = [f"event: message{end}data: {json.dumps(value)}{end}{end}" for value in values]
    return said(Body("text", "text/event-stream", text="".join(events)))


def result(**given: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "result": {"content": [], **given}}


NOTE = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}


@pytest.mark.parametrize(
    ("asked", "answer", "expected"),
    [
        (MCP, as_json(result(isError=True)), "isError: true"),
        (MCP, as_json(result(isError=False)), ""),
        (MCP, as_json(result(isError="true")), ""),
        (MCP, as_json(result()), ""),
        (MCP, as_json({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "m"}}), "JSON-RPC error -32602"),
        (MCP, as_json({"jsonrpc": "2.0", "id": 1, "error": {"code": "x"}}), "a JSON-RPC error"),
        (MCP, as_json({"jsonrpc": "2.0", "id": 1, "error": "x", "result": []}), ""),
        (MCP, as_json([1]), ""),
        (MCP, as_events(NOTE, result(isError=True)), "isError: true"),
        (MCP, as_events(NOTE, result(isError=True), end="\r\n"), "isError: true"),
        (MCP, as_events(NOTE, result()), ""),
        (MCP, said(Body("text", "text/event-stream", text=": ping\n\ndata: {\n\ndata: 1")), ""),
        (MCP, said(Body("text", "text/event-stream", text="data: " + "[" * 100_000)), ""),
        (MCP, said(UNREAD_BODY), ""),
        (PLAIN, as_json(result(isError=True)), ""),
        (GRAPHQL, as_json({"errors": [{"message": "m"}]}), "GraphQL errors"),
        (GRAPHQL, as_json({"data": None, "errors": [{"type": "NOT_FOUND"}]}), "GraphQL errors (NOT_FOUND)"),
        (
            GRAPHQL,
            as_json({"data": {"close": None}, "errors": [{"extensions": {"code": "GONE"}}]}),
            "GraphQL errors (GONE)",
        ),
        (GRAPHQL, as_json({"errors": [{"type": "no code"}]}), "GraphQL errors"),
        (GRAPHQL, as_json({"errors": ["m"]}), "GraphQL errors"),
        (GRAPHQL, as_json({"data": {"close": {"id": 1}}, "errors": [{"message": "a part"}]}), ""),
        (GRAPHQL, as_json({"data": 1, "errors": [{"message": "odd"}]}), ""),
        (GRAPHQL, as_json({"data": {"close": {"id": 1}}, "errors": []}), ""),
        (GRAPHQL, as_json({"data": {"close": {"id": 1}}}), ""),
        (GRAPHQL, as_json([]), ""),
        (GRAPHQL, said(UNREAD_BODY), ""),
        (PLAIN, as_json({"errors": [{"message": "m"}]}), ""),
        (call(path="/graphql", query=(("query", "{a}"),), body="{}"), as_json({"errors": [1]}), ""),
        (GRPC, said(UNREAD_BODY, trailers=(("grpc-status", "5"),)), "gRPC status 5 (NOT_FOUND)"),
        (GRPC, said(UNREAD_BODY, trailers=(("grpc-status", "0"),)), ""),
        (GRPC, said(UNREAD_BODY), ""),
        (PLAIN, said(UNREAD_BODY, trailers=(("grpc-status", "5"),)), ""),
    ],
)
def test_what_a_protocol_says_of_having_failed(asked: Call, answer: Answer, expected: str) -> None:
    assert failure(asked, answer) == expected


RULES = """
tools:
  send: {match: {request: POST https://api.example.com/mcp, mcp: send}}
  close: {match: {request: POST https://api.example.com/graphql, graphql: mutation close}}
  pay: POST https://api.example.com/bank.Bank/Pay
  told: {match: {request: POST https://api.example.com/told, mcp: send}, expect: {status: 2xx}}
rules: [{id: all, tool: "*", allow: true, loop: true}]
"""


@pytest.mark.parametrize(
    ("asked", "answers", "words", "executed"),
    [
        (MCP, [as_json(result(isError=True, at=n)) for n in range(3)], "isError: true", "unknown"),
        (MCP, [as_events(result(isError=True, at=n)) for n in range(3)], "isError: true", "unknown"),
        (
            GRAPHQL,
            [as_json({"errors": [{"message": f"at {n}", "type": "GONE"}]}) for n in range(3)],
            "GraphQL errors (GONE)",
            "unknown",
        ),
        (
            GRPC,
            [said(UNREAD_BODY, trailers=(("grpc-status", "5"), ("grpc-message", str(n)))) for n in range(3)],
            "gRPC status 5 (NOT_FOUND)",
            "no",
        ),
    ],
    ids=["mcp", "mcp events", "graphql", "grpc"],
)
def test_loop_takes_it_for_the_same_error(asked: Call, answers: list[Answer], words: str, executed: str) -> None:
    made = World(RULES)
    assert [made.do(asked, each) for each in answers] == ["allow"] * 3
    stopped = made.ask(asked)
    assert (stopped.code, stopped.executed) == ("loop-detected", executed)
    assert f"each time with the same result: the API answered {words}." in stopped.detail
    assert made.refold() == made.state


def test_a_success_between_and_another_failure_are_other_results() -> None:
    made = World(RULES)
    failed, other = as_json(result(isError=True)), as_json({"jsonrpc": "2.0", "id": 1, "error": {"code": 1}})
    answers = [failed, failed, as_json(result()), failed, failed, other, other, failed]
    assert [made.do(MCP, each) for each in answers] == ["allow"] * 8


def test_what_the_tool_expects_goes_before_what_the_protocol_says() -> None:
    made = World(RULES)
    told = call(path="/told", body=json.dumps(TOOL_CALL))
    assert [made.do(told, as_json(result(isError=True))) for _ in range(5)] == ["allow"] * 5
    assert made.do(told) == "loop-detected"


def test_only_the_answers_to_messages_are_read_for_it() -> None:
    ruleset = rules(RULES)
    assert [needs(ruleset, each).answer for each in (MCP, GRAPHQL, GRPC)] == [True, True, False]
    assert not needs(rules(RULES.replace(", loop: true", "")), MCP).answer
