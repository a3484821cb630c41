"""params of messages: what the arguments of an MCP tool or a GraphQL root field may be, and what is said of others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rules.call import UNREAD_BODY, Body, Call
from rules.decide import decide
from rules.decision import Decision
from rules.load import Source, load
from rules.problems import RuleFileError
from rules.state import State
from tests.rules.world import START, call, rules

REFUND = (
    "{charge: {pattern: ^ch_, required: true}, amount: {type: integer, minimum: 1}, note: {properties: {text: string}}}"
)


def tool(params: str, says: str = "mcp: refund", more: str = "") -> str:
    return f"""
tools:
  refund:
    match: {{request: "https://api.example.com/rpc", {says}}}
    {more}
    params: {params}
rules: [{{id: all, match: "https://**", allow: true}}]
"""


def mcp(args: object = None, name: str = "refund", **given: Any) -> Call:
    params = {"name": name} if args is None else {"name": name, "arguments": args}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**params, "_meta": {"progressToken": 7}}}
    return call(body=json.dumps(message), **{"path": "/rpc", **given})


def graphql(document: str, variables: object = None) -> Call:
    return call(path="/rpc", body=json.dumps({"query": document, "variables": variables}))


def decided(text: str, asked: Call) -> Decision:
    return decide(rules(text), State(), asked, "call-1", START)


def wrong(text: str, asked: Call) -> list[str]:
    """The fields in which `asked` does not fit; nothing when it goes out."""
    decision = decided(text, asked)
    assert decision.code in ("", "parameters-invalid"), decision.detail
    assert (decision.action == "allow") is (not decision.violations)
    assert decision.tool == "refund"
    return [each.field for each in decision.violations]


@pytest.mark.parametrize(
    ("args", "fields"),
    [
        ({"charge": "ch_1"}, []),
        ({"charge": "ch_1", "amount": 5, "note": {"text": "x"}}, []),
        ({"charge": "ch_1", "amount": 5.0}, []),
        (None, ["args.charge"]),
        ({}, ["args.charge"]),
        ({"charge": "x"}, ["args.charge"]),
        ({"charge": "ch_1", "amount": "5"}, ["args.amount"]),
        ({"charge": "ch_1", "amount": True}, ["args.amount"]),
        ({"charge": "ch_1", "amount": 0}, ["args.amount"]),
        ({"charge": "ch_1", "amuont": 5}, ["args.amuont"]),
        ({"charge": ["ch_1", "ch_2"]}, ["args.charge"]),
        ({"charge": "ch_1", "note": {"txt": "x"}}, ["args.note.txt"]),
        ({"charge": "ch_1", "a b": 1}, ['args["a b"]']),
    ],
)
def test_what_the_arguments_of_an_mcp_tool_may_be(args: object, fields: list[str]) -> None:
    assert wrong(tool(REFUND), mcp(args)) == fields


@pytest.mark.parametrize(
    ("document", "variables", "fields"),
    [
        ('mutation { refund(charge: "ch_1", amount: 5) { id } }', None, []),
        ("mutation($c: ID!) { refund(charge: $c) { id } }", {"c": "ch_1"}, []),
        ("mutation($c: ID!) { refund(charge: $c) { id } }", {"c": "ch_1", "unused": 1}, []),
        ('mutation($c: ID = "ch_1") { refund(charge: $c) { id } }', None, []),
        ("mutation($c: ID) { refund(charge: $c) { id } }", None, ["args.charge"]),
        ("mutation($c: ID) { refund(charge: $c) { id } }", {"c": None}, ["args.charge"]),
        (
            "mutation($c: ID, $a: Int) { refund(charge: $c, amount: $a) { id } }",
            {"c": "ch_1", "a": "5"},
            ["args.amount"],
        ),
        ('mutation { refund(charge: "ch_1", amuont: 5) { id } }', None, ["args.amuont"]),
        ('mutation { refund(charge: "ch_1", note: {txt: "x"}) { id } }', None, ["args.note.txt"]),
        ("mutation { refund { id } }", None, ["args.charge"]),
        ('mutation { a: refund(charge: "ch_1") { id } b: refund(charge: "ch_2") { id } }', None, []),
        (
            'mutation { a: refund(charge: "ch_1") { id } b: refund(charge: "x", amuont: 5) { id } c: refund { id } }',
            None,
            ["args[1].amuont", "args[1].charge", "args[2].charge"],
        ),
    ],
)
def test_what_the_arguments_of_a_root_field_may_be(document: str, variables: object, fields: list[str]) -> None:
    assert wrong(tool(REFUND, "graphql: mutation refund"), graphql(document, variables)) == fields


def test_one_sentence_says_everything_that_is_wrong_and_what_was_meant() -> None:
    decision = decided(tool(REFUND), mcp({"amuont": 5, "note": "x", "why": 1}))
    assert decision.detail == (
        "This call does not fit the parameters of `refund`: "
        "`amuont` is no argument (did you mean `amount`?); "
        "`charge` is missing: it has to be a text that matches ^ch_; "
        '`note` has to be an object with `text`, and it is "x"; '
        "`why` is no argument here: there are `charge`, `amount` and `note` only. Nothing was executed."
    )
    assert (decision.action, decision.code, decision.executed) == ("deny", "parameters-invalid", "no")
    assert decision.facts["args.amuont"] == 5


def test_an_argument_of_the_second_root_field_is_named_with_its_place() -> None:
    asked = graphql('mutation { a: refund(charge: "ch_1") { id } b: refund(charge: "ch_2", amuont: 5) { id } }')
    decision = decided(tool(REFUND, "graphql: mutation refund"), asked)
    assert "`args[1].amuont` is no argument (did you mean `amount`?)" in decision.detail
    assert (decision.facts["args[0].charge"], decision.facts["args[1].charge"]) == ("ch_1", "ch_2")


def test_a_tool_without_arguments_takes_none() -> None:
    assert wrong(tool("{}"), mcp()) == []
    decision = decided(tool("{}"), mcp({"a": 1}))
    assert "`a` is no argument here: `args` has none." in decision.detail


def test_the_arguments_as_a_whole() -> None:
    whole = tool(
        "{$args: {properties: {mail: string, phone: string}, anyOf: [{required: [mail]}, {required: [phone]}]}}"
    )
    assert wrong(whole, mcp({"mail": "x"})) == []
    assert wrong(whole, mcp({"mail": "x", "fax": "y"})) == ["args.fax"]
    assert "the call lacks `mail` or `phone`" in decided(whole, mcp()).detail
    assert wrong(tool("{$args: {}}"), mcp({"any": ["thing"]})) == []
    some = tool("{$args: {minProperties: 1, additionalProperties: string}}")
    assert "`args` has to be an object of at least 1 members, and it is {}" in decided(some, mcp({})).detail


def test_other_places_are_closed_and_the_envelope_is_the_protocols() -> None:
    assert wrong(tool(REFUND), mcp({"charge": "ch_1"}, query=(("trace", "1"),))) == ["query.trace"]
    assert wrong(tool("{query.trace: string}"), mcp(query=(("trace", "1"),))) == []
    keyed = tool("{}", more="credential: query.key")
    assert wrong(keyed, mcp(query=(("key", "secret"),))) == []
    decision = decided(tool(REFUND), mcp({"charge": "ch_1"}, query=(("amount", "1"),)))
    assert "`query.amount` is no parameter here: it belongs into `args`" in decision.detail
    decision = decided(tool("{query.dry: boolean}"), mcp({"dry": True}))
    assert "`dry` is no argument here: it belongs into the query" in decision.detail


def test_a_query_that_holds_the_message_is_no_parameter() -> None:
    text = tool("{id: {type: integer, required: true}}", "graphql: query refund")
    asked = (("query", "query A($n: Int) { refund(id: $n) { id } }"), ("variables", '{"n": 5}'), ("operationName", "A"))
    assert wrong(text, call("GET", "/rpc", query=asked)) == []
    assert wrong(text, call("GET", "/rpc", query=(*asked, ("id", "5")))) == ["query.id"]
    assert wrong(text, call("GET", "/rpc", query=(("query", "{ refund(id: true) { id } }"),))) == ["args.id"]


def test_a_part_of_the_path_is_a_parameter_too() -> None:
    text = tool("{path.shop: [ours], a: string}").replace("/rpc", "/{shop}")
    assert wrong(text, mcp({"a": "x"}, path="/ours", segments=("ours",))) == []
    assert wrong(text, mcp({"a": "x"}, path="/theirs", segments=("theirs",))) == ["path.shop"]


@pytest.mark.parametrize(
    ("document", "twice"),
    [
        ('mutation { refund(charge: "ch_1", charge: "ch_2") { id } }', "`charge`"),
        ('mutation { refund(charge: "ch_1", note: {text: "a", text: "b"}) { id } }', "`text`"),
        ('mutation { refund(charge: "ch_1", note: [[{a: {b: 1, b: 2}}]]) { id } }', "`b`"),
        ('mutation { x: refund(charge: "ch_1") { id } y: refund(amount: 1, amount: 9) { id } }', "`amount`"),
        ('mutation($c: ID = "ch_1", $c: ID = "ch_2") { refund(charge: $c) { id } }', "`$c`"),
        ('mutation { ...F } fragment F on Mutation { refund(charge: "ch_1", charge: "ch_2") { id } }', "`charge`"),
    ],
)
@pytest.mark.parametrize("params", [REFUND, "{$args: {}}"])
def test_what_stands_twice_in_a_document_can_be_read_in_two_ways(document: str, twice: str, params: str) -> None:
    decision = decided(tool(params, "graphql: mutation refund"), graphql(document))
    assert (decision.action, decision.code) == ("deny", "ambiguous-request")
    assert f"its document says {twice} twice" in decision.detail


def test_what_stands_twice_in_another_operation_or_object_is_no_matter() -> None:
    document = (
        'mutation A { refund(charge: "ch_1", note: {text: "a"}) { b(text: 1) { c } } }'
        " mutation B { refund(charge: 1, charge: 2) { id } }"
    )
    body = json.dumps({"query": document, "operationName": "A"})
    assert wrong(tool(REFUND, "graphql: mutation refund"), call(path="/rpc", body=body)) == []


def test_arguments_that_cannot_be_read_do_not_fit() -> None:
    named = ", ".join(f"a{n}: $big" for n in range(12))
    document = f"mutation($big: String) {{ refund({named}) {{ id }} }}"
    text = tool("{$args: {}}", "graphql: mutation refund")
    decision = decided(text, graphql(document, {"big": "x" * 100_000}))
    assert decision.code == "parameters-invalid"
    assert "the arguments cannot be read: its document names large variables too often" in decision.detail


def test_a_message_of_another_tool_is_not_looked_at() -> None:
    assert decided(tool(REFUND), mcp({"any": 1}, name="other")).action == "allow"


def test_a_message_that_is_none_is_not_of_the_tool() -> None:
    for body in (Body("none"), UNREAD_BODY, Body("text", "text/plain", text="x", size_bytes=1)):
        decision = decided(tool(REFUND).replace('match: "https://**"', "tool: refund"), call(path="/rpc", body=body))
        assert decision.action == "deny"


def test_monitor_records_and_refuses_nothing() -> None:
    decision = decided(tool(REFUND, more="params_mode: monitor"), mcp({"amuont": 5}))
    assert decision.action == "allow"
    assert [each.field for each in decision.would] == ["args.amuont", "args.charge"]


def test_each_message_of_a_batch_is_looked_at() -> None:
    batch = [mcp({"charge": "ch_1"}).body.json, mcp({"amuont": 1}).body.json]
    decision = decided(tool(REFUND), call(path="/rpc", body=json.dumps(batch)))
    assert decision.code == "parameters-invalid"
    assert decision.detail.startswith("Message 2 of 2 in this batch: This call does not fit the parameters of `refund`")


@pytest.mark.parametrize(
    ("text", "message", "help"),
    [
        (
            tool("{body.charge: string}"),
            "`body.charge` is in the body, which is a message here: its arguments are parameters",
            "write `args.charge`",
        ),
        (
            tool("{$body: {}}"),
            "`$body` is in the body, which is a message here: its arguments are parameters",
            "write `$args`",
        ),
        (
            tool("{args.a: string}", "where: {query.x: {eq: '1'}}"),
            "`args.a` is never set: the calls of this tool have no arguments",
            "only a tool whose every match says `mcp` (not `session`) or `graphql` has arguments",
        ),
        (
            tool("{$args: {}}", "where: {query.x: {eq: '1'}}"),
            "`$args` is never set: the calls of this tool have no arguments",
            "only a tool whose every match says `mcp` (not `session`) or `graphql` has arguments",
        ),
        (
            tool("{}", "mcp: session"),
            "`mcp: session` has no arguments",
            "remove `params`, or name the tool that they are of: `mcp: NAME`",
        ),
        (
            tool("{}").replace("match: {", "match: [GET https://api.example.com/, {").replace("refund}", "refund}]"),
            "some matches of this tool have arguments, others not",
            "give what has arguments a tool of its own",
        ),
        (
            tool("{$args: {}, a: string}"),
            "`$args` stands beside other arguments",
            "put them into the `properties` of `$args`",
        ),
        (tool("{args.a.b: string}"), "`args.a.b` is a member of a parameter", "write `a: {properties: {...}}`, or"),
        (tool("{a: string, args.a: string}"), "`a` of `args` is named twice", "name each parameter once"),
        (tool('{"args[]": string}'), "`args[]` is no parameter", "write `$args: {type: array, items: ...}`"),
    ],
)
def test_mistakes_are_told(text: str, message: str, help: str) -> None:
    with pytest.raises(RuleFileError) as error:
        rules(text)
    (problem,) = error.value.problems
    assert (problem.code, problem.message) == ("params", message)
    assert problem.help.startswith(help)


def test_a_condition_on_an_argument_that_params_refuse_is_warned_of() -> None:
    text = tool(REFUND) + "".join(
        f"  - {{id: {name}, tool: refund, where: {{{field}: {{exists: true}}}}, deny: No.}}\n"
        for name, field in (("a", "args.amuont"), ("b", "args.amount"), ("c", "body.x"), ("d", "args"))
    )
    text = text.replace(
        'rules: [{id: all, match: "https://**", allow: true}]',
        "rules:\n  - {id: all, match: 'GET https://**', allow: true}",
    )
    warnings = load([Source("test.yaml", f"version: 1\n{text}")], {}).warnings
    assert [(each.code, each.message, each.help) for each in warnings] == [
        (
            "unnamed-field",
            "`args.amuont` is never there: the `params` of `refund` refuse it",
            "did you mean `args.amount`?",
        )
    ]


def test_a_budget_of_an_argument_that_may_be_left_out_is_warned_of() -> None:
    text = tool(REFUND).replace(
        "[{id: all", "[{id: sum, tool: refund, budget: {sum: args.amount, max: 5, per: 1h}}, {id: all"
    )
    warnings = load([Source("test.yaml", f"version: 1\n{text}")], {}).warnings
    assert "optional-amount" in [each.code for each in warnings]
