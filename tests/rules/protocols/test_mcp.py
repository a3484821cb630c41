"""MCP: which tool a message calls, with what arguments, and what is no message of the protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rules.call import UNREAD_BODY, Call
from rules.fields import ABSENT, ConditionError
from rules.problems import RuleFileError
from rules.protocols import arguments, shown_message
from rules.protocols.mcp import parse as parse_mcp
from rules.protocols.mcp import read_message
from rules.yamltree import parse
from tests.rules.world import World, call

RULES = """
tools:
  session: {match: {request: "https://api.example.com/mcp", mcp: session}}
  any: {match: {request: "POST https://api.example.com/mcp", mcp: "*"}}
  delete: {match: {request: "POST https://api.example.com/mcp", mcp: "delete_*"}}
  delete.page: {match: {request: "POST https://api.example.com/mcp", mcp: delete_page}}
  report: {match: {request: "POST https://api.example.com/mcp", mcp: send_report}}
rules:
  - {id: session, tool: session, allow: true}
  - {id: tools, tool: any, allow: true}
  - {id: no-delete, tool: delete, unless: {tool: delete.page}, deny: Deleting is off.}
  - {id: no-acme, tool: any, where: {args.customer: {eq: acme}}, deny: Not that customer.}
  - {id: report-once, tool: report, dedupe: {window: 24h, key: [args.customer, args.month]}}
"""


def message(
    method: str = "tools/call", *, name: object = "read", args: object = None, **more: object
) -> dict[str, Any]:
    made: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method, **more}
    if method == "tools/call":
        made["params"] = {"name": name, "arguments": args or {}}
    return made


def sent(content: object, **given: Any) -> Call:
    return call(path="/mcp", body=json.dumps(content), **given)


def tool(name: str, args: object = None, **given: Any) -> Call:
    return sent(message(name=name, args=args), **given)


@pytest.mark.parametrize(
    ("asked", "named", "decided"),
    [
        (tool("read"), "any", "allow"),
        (tool("delete_page"), "delete.page", "allow"),
        (tool("delete_space"), "delete", "policy-denied"),
        (tool("Delete_space"), "any", "allow"),
        (tool("send_report", {"customer": "x", "month": "may"}), "report", "allow"),
        (tool("read", {"customer": "acme"}), "any", "policy-denied"),
        (sent(message("initialize", params={})), "session", "allow"),
        (sent(message("tools/list")), "session", "allow"),
        (sent({"jsonrpc": "2.0", "method": "notifications/initialized"}), "session", "allow"),
        (sent({"jsonrpc": "2.0", "id": 4, "result": {}}), "session", "allow"),
        (sent({"jsonrpc": "2.0", "id": 4, "error": {"code": 1, "message": "no"}}), "session", "allow"),
        (call("GET", "/mcp"), "session", "allow"),
        (call("DELETE", "/mcp"), "session", "allow"),
        (call("PUT", "/mcp"), "", "no-allow"),
    ],
)
def test_the_message_names_the_tool(asked: Call, named: str, decided: str) -> None:
    decision = World(RULES).ask(asked)
    assert (decision.tool, decision.code or decision.action) == (named, decided)


NO_MESSAGES: list[Any] = [
    1,
    [],
    {},
    {"method": "tools/call", "params": {"name": "read"}},
    {"jsonrpc": "1.0", "id": 1, "method": "tools/list"},
    {"jsonrpc": "2.0", "id": 1},
    {"jsonrpc": "2.0", "id": 1, "method": 7},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call"},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": []},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 7}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read", "arguments": [1]}},
    {"jsonrpc": "2.0", "id": 1, "method": "Tools/Call", "params": {"name": "delete_space"}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call ", "params": {"name": "delete_space"}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read", "Name": "delete_space"}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"NAME": "read"}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read", "argument\u017f": {"a": 1}}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "query": "{ a }"},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "result": {}},
    {"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}},
    {"jsonrpc": "2.0", "id": 1, "result": {}, "params": {}},
]


@pytest.mark.parametrize("content", NO_MESSAGES)
def test_what_is_no_message_is_allowed_by_nothing(content: object) -> None:
    assert read_message(sent(content)) is None
    assert World(RULES).do(sent(content)) != "allow"


def test_a_deny_sees_what_can_not_be_told() -> None:
    rules = RULES + '  - {id: broad, match: "POST https://api.example.com/**", allow: true}\n'
    assert World(rules).do(sent({"name": "delete_space"})) == "policy-denied"


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ((("mcp-method", "tools/list"),), "`Mcp-Method` says `tools/list` and the body `tools/call`"),
        ((("mcp-name", "delete_page"),), "`Mcp-Name` says another name than the body"),
        ((("mcp-name", "read"), ("mcp-name", "delete_page")), "`Mcp-Name` says another name than the body"),
        ((("mcp-name", "=?base64?%%%?="),), "`Mcp-Name` says another name than the body"),
        ((("mcp-name", "=?base64?cmVhZA==?="), ("mcp-method", "tools/call")), ""),
        ((("mcp-name", "read"),), ""),
    ],
)
def test_headers_agree_with_the_body(headers: tuple[tuple[str, str], ...], problem: str) -> None:
    decision = World(RULES).ask(tool("read", headers=headers))
    assert decision.code == ("ambiguous-request" if problem else "")
    assert problem in decision.detail


def test_a_name_in_the_header_of_a_message_without_one() -> None:
    assert World(RULES).do(sent(message("tools/list"), headers=(("mcp-name", "x"),))) == "ambiguous-request"


def test_arguments() -> None:
    assert arguments(tool("read", {"a": 1})) == {"a": 1}
    assert arguments(sent({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read"}})) == {}
    assert arguments(sent(message("tools/list"))) is ABSENT
    with pytest.raises(ConditionError, match="was not read"):
        arguments(call(path="/mcp", body=UNREAD_BODY))


def test_the_message_is_on_record() -> None:
    assert World(RULES).ask(tool("delete_page")).facts["message"] == "tools/call delete_page"
    assert shown_message(sent({"jsonrpc": "2.0", "id": 4, "result": {}})) == "an answer"
    assert shown_message(call()) == ""


def test_a_report_goes_out_once_whatever_id_it_has() -> None:
    world = World(RULES)
    asked = {"customer": "x", "month": "may", "note": "first"}
    again = sent({**message(name="send_report", args={**asked, "note": "second"}), "id": "other"})
    assert world.do(tool("send_report", asked)) == "allow"
    assert world.do(again) == "replay"
    assert world.do(tool("send_report", {**asked, "month": "june"})) == "allow"


def test_the_session_only_reads() -> None:
    tools = World(RULES).ruleset.tools
    assert {name: one.effect for name, one in tools.items() if one.effect} == {"session": "read"}


@pytest.mark.parametrize("text", ["7", "[a]", "{a: b}", "'two words'", "'" + "x" * 129 + "'"])
def test_what_is_wrong_with_a_name(text: str) -> None:
    with pytest.raises(RuleFileError) as error:
        parse_mcp(parse(text, "rules.yaml"))
    assert [problem.code for problem in error.value.problems] == ["mcp"]
