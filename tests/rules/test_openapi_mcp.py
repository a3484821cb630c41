"""`rules import` of what an MCP server answers to `tools/list`: the tools that it writes, and what they let through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rules.decide import decide
from rules.load import Source, load
from rules.openapi.document import OpenApiError
from rules.openapi.notes import LEFT_OUT, WIDER, Note
from rules.openapi.tools import Imported, Options, tools_of
from rules.state import State
from tests.rules.world import START, call

HERE = Path(__file__).parent / "openapi"
SERVER = "https://api.example.com/mcp"
LISTED = (HERE / "mcp.json").read_text()


def imported(text: str, **options: Any) -> Imported:
    return tools_of(text, "tools.json", Options(**{"server": SERVER, **options}), lambda _, __: None)


def listing(*tools: object, **more: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, **more}})


def tool(name: object = "one", schema: object = None, **more: object) -> dict[str, object]:
    return {"name": name, "inputSchema": {"type": "object", "properties": {}} if schema is None else schema, **more}


def body(found: Imported) -> str:
    return found.text.partition("tools:\n")[2]


def test_the_file_is_as_a_person_wants_to_keep_it() -> None:
    found = imported(LISTED, prefix="shop")
    assert found.text == (HERE / "mcp.tools.yaml").read_text()
    assert (found.tools, found.wanted, found.unit) == (6, 5, "MCP tool")
    assert found.notes == (
        ("shop.search", Note(WIDER, "`patternProperties` cannot be said", "args.filter")),
        ("shop.search", Note(WIDER, "an object of any members", "args.filter")),
    )


@pytest.mark.parametrize(
    ("name", "arguments", "decision"),
    [
        ("order", {"items": [{"sku": "a", "count": 2}], "note": None}, "allow"),
        ("order", {"items": [{"sku": "a", "price": 2}]}, "parameters-invalid"),
        ("order", {"items": [{"sku": "a"}], "speed": "fsat"}, "parameters-invalid"),
        ("order", {}, "parameters-invalid"),
        ("ping", {}, "allow"),
        ("ping", {"host": "x"}, "parameters-invalid"),
        ("contact", {"mail": "a@b.example"}, "allow"),
        ("contact", {}, "parameters-invalid"),
        ("search", {"filter": {"any": 1}}, "allow"),
        ("files/read", {"args.path": "x"}, "allow"),
        ("other", {}, "no-allow"),
    ],
)
def test_what_the_tools_let_through(name: str, arguments: dict[str, object], decision: str) -> None:
    text = imported(LISTED, prefix="shop").text + "rules: [{id: all, tool: 'shop.*', allow: true}]\n"
    ruleset = load([Source("tools.yaml", text)], {}).ruleset
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    found = decide(ruleset, State(), call(path="/mcp", body=json.dumps(message)), "call-1", START)
    assert (found.code or found.action) == decision


def test_a_client_can_open_its_session() -> None:
    text = imported(LISTED).text + "rules: [{id: all, tool: session, allow: true}]\n"
    ruleset = load([Source("tools.yaml", text)], {}).ruleset
    for asked in (
        call(path="/mcp", body=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})),
        call("GET", "/mcp"),
        call("DELETE", "/mcp"),
    ):
        assert decide(ruleset, State(), asked, "call-1", START).action == "allow"


@pytest.mark.parametrize(
    "text",
    [
        listing(tool()),
        json.dumps({"tools": [tool()]}),
        json.dumps([tool()]),
        f"event: message\ndata: {listing(tool())}\n\n",
        f'data: {{"jsonrpc": "2.0", "method": "notifications/message"}}\n\nid: 7\ndata: {listing(tool())}\n\n',
        f": ping\r\n\r\nevent: message\r\ndata: {listing(tool())}\r\n\r\n",
        json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": [tool()]}}, indent=1).join(("\ufeff", "")),
    ],
)
def test_an_answer_is_taken_as_it_was_saved(text: str) -> None:
    assert body(imported(text)) == (
        "  # Everything else of the protocol: opening, listing, reading, notes. It only reads.\n"
        f'  session: {{match: {{request: "{SERVER}", mcp: session}}}}\n\n'
        f'  one: {{match: {{request: "POST {SERVER}", mcp: one}}, params: {{}}}}\n'
    )


def test_what_is_left_out_is_told() -> None:
    several = [tool(), tool(), tool("session"), tool("a*"), tool(""), tool(7), tool("sp ace"), "none"]
    found = imported(listing(*several, nextCursor="x"))
    assert found.tools == 2
    assert found.notes == (
        ("one", Note(LEFT_OUT, "`one` is the same calls")),
        ("session", Note(LEFT_OUT, "`mcp: session` would mean other messages, too")),
        ("a*", Note(LEFT_OUT, "`mcp: a*` would mean other messages, too")),
        ("", Note(LEFT_OUT, "it has no name")),
        ("7", Note(LEFT_OUT, "it has no name")),
        ("sp ace", Note(LEFT_OUT, "`mcp` names no tool")),
        ("None", Note(LEFT_OUT, "it has no name")),
        ("nextCursor", Note(LEFT_OUT, "the list goes on at another page, which is a file of its own")),
    )


def test_a_tool_that_is_called_session_after_a_prefix_does_not_take_the_name() -> None:
    found = imported(listing(tool("Session")), prefix="shop")
    assert '  shop.session: {match: {request: "https://api.example.com/mcp", mcp: session}}' in found.text
    assert "  shop.Session.2: {match: " in found.text


def test_only_some_and_without_params() -> None:
    found = imported(LISTED, only=("o*",), params=False)
    assert body(found).endswith(f'  order: {{match: {{request: "POST {SERVER}", mcp: order}}}}\n')
    assert (found.tools, found.wanted) == (2, 1)


def test_too_many_arguments_are_left_out() -> None:
    many = {"type": "object", "properties": {f"a{n}": {"type": "string"} for n in range(400)}}
    found = imported(listing(tool("many", many), tool()))
    assert found.notes == (("many", Note(LEFT_OUT, "it has more parameters than a person would read")),)


def test_deep_arguments_are_left_open_from_some_depth_on() -> None:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(6):
        schema = {"type": "object", "properties": {f"{name}": schema for name in "abcd"}}
    found = imported(listing(tool("deep", schema)))
    assert {note.what for _, note in found.notes} == {"nested too deep: anything passes"}


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ({"const": nested(7)}, ""),
        ({"const": nested(8)}, "a value as large as this is not written out"),
        ({"const": nested(900)}, "a value as large as this is not written out"),
        ({"const": {"a": list(range(900))}}, "a value as large as this is not written out"),
        ({"enum": [nested(900)]}, "a list of more than 500 values is not written out"),
        ({"enum": [[n] * 300 for n in range(3)]}, "a list of more than 500 values is not written out"),
    ],
)
def test_a_value_that_nobody_would_read_is_left_open(schema: object, what: str) -> None:
    found = imported(listing(tool("one", {"type": "object", "properties": {"a": schema}})))
    assert [note.what for _, note in found.notes] == ([what] if what else [])
    assert set(load([Source("tools.yaml", found.text + "rules: []\n")], {}).ruleset.tools) == {"session", "one"}


def test_a_tool_that_the_file_cannot_hold_is_left_out_and_told() -> None:
    long = {"type": "object", "properties": {"a" * 3000: {"type": "string"}}}
    wants = {"type": "object", "additionalProperties": True, "required": [f"r{n}" for n in range(400)]}
    found = imported(listing(tool("long", long), tool("wants", wants), tool()))
    assert found.notes == (
        ("long", Note(LEFT_OUT, "it cannot be written: a `:` is not expected here")),
        ("wants", Note(LEFT_OUT, "it has more parameters than a person would read")),
    )


UNFOLDING = "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 9))])
MERGING = "\n".join(["a0: &a0 {b: 1}", *(f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 9}]}}" for n in range(1, 9))])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (listing(tool()), {"server": ""}, "a list of tools does not say where its server is"),
        (listing(tool()), {"only": ("x*",)}, "no tool has such a name"),
        (listing(), {}, "no tool has such a name"),
        (listing(tool("a*")), {}, "nothing is left to import"),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": 1}}), {}, "nor the answer of an MCP server"),
        (json.dumps([{"name": "x"}]), {}, "nor the answer of an MCP server"),
        ("[]", {}, "nor the answer of an MCP server"),
        ("data: {", {}, "this is neither JSON nor YAML"),
        (UNFOLDING, {}, "its aliases stand for too much"),
        (MERGING, {}, "its aliases stand for too much"),
        ("tools: &a [*a]", {}, "nested too deep"),
        ("tools: [*a]", {}, "neither JSON nor YAML: found undefined alias"),
        ('{"a": 1e999999999}', {}, "a number out of range"),
        (f'{{"a": {"9" * 401}}}', {}, "a number out of range"),
        ("a: 1e999999999", {}, "a number out of range"),
        (f"a: {'9' * 401}", {}, "a number out of range"),
        ("a: !!float .inf", {}, "neither JSON nor YAML"),
        ('{"a": NaN}', {}, "NaN is no number"),
    ],
)
def test_what_can_not_be_imported(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OpenApiError, match=message):
        imported(text, **options)


def test_what_a_server_says_stays_a_comment() -> None:
    nasty = tool("one", description="x\n  y: {match: 'https://**'}\n\u202e\x1b[31m\x85z")
    text = imported(listing(nasty)).text + "rules: []\n"
    assert set(load([Source("tools.yaml", text)], {}).ruleset.tools) == {"session", "one"}
