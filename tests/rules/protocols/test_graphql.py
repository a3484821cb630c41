"""GraphQL: which operation a document asks for, with what arguments, and what can not be told."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from rules.call import Call
from rules.fields import ABSENT, ConditionError
from rules.problems import RuleFileError
from rules.protocols import arguments, shown_message
from rules.protocols.document import DIGITS_CAP, LENGTH_CAP, TOKENS_CAP
from rules.protocols.graphql import parse as parse_graphql
from rules.yamltree import parse
from tests.rules.world import World, call, rules

RULES = """
tools:
  read: {match: {request: "GET|POST https://api.example.com/graphql", graphql: query *}}
  issue: {match: {request: "POST https://api.example.com/graphql", graphql: mutation createIssue}}
  comment: {match: {request: "POST https://api.example.com/graphql", graphql: "mutation addComment|addReaction"}}
  write: {match: {request: "GET|POST https://api.example.com/graphql", graphql: mutation *}}
  delete: {match: {request: "GET|POST https://api.example.com/graphql", graphql: "mutation delete*"}}
rules:
  - {id: read, tool: read, allow: true}
  - {id: issue, tool: issue, where: {args.input.repo: {eq: ours}}, allow: true}
  - {id: comment, tool: comment, allow: true}
  - {id: no-delete, tool: delete, deny: Deleting is off.}
"""


def body(query: object, variables: object = None, **more: object) -> dict[str, Any]:
    made: dict[str, Any] = {"query": query, **more}
    return made if variables is None else {**made, "variables": variables}


def sent(content: object, **given: Any) -> Call:
    return call(path="/graphql", body=json.dumps(content), **given)


def ask(query: object, variables: object = None, **more: object) -> Call:
    return sent(body(query, variables, **more))


def get(*query: tuple[str, str]) -> Call:
    return call("GET", "/graphql", query=query)


OURS = 'mutation { createIssue(input: {repo: "ours"}) { id } }'
DELETE = "mutation { deleteIssue(id: 1) { id } }"
BOTH = "query A { viewer { login } } mutation B { deleteIssue(id: 1) { id } }"


@pytest.mark.parametrize(
    ("asked", "named", "decided"),
    [
        (ask("{ viewer { login } }"), "read", "allow"),
        (ask("query createIssue { viewer { login } }"), "read", "allow"),
        (ask("subscription { events { id } }"), "", "no-allow"),
        (ask(OURS), "issue", "allow"),
        (ask("mutation($r: String) { createIssue(input: {repo: $r}) { id } }", {"r": "ours"}), "issue", "allow"),
        (ask("mutation($i: In) { createIssue(input: $i) { id } }", {"i": {"repo": "ours"}}), "issue", "allow"),
        (ask('mutation($r: String = "ours") { createIssue(input: {repo: $r}) { id } }'), "issue", "allow"),
        (ask('mutation { createIssue(input: {repo: "theirs"}) { id } }'), "issue", "no-allow"),
        (ask("mutation($r: String) { createIssue(input: {repo: $r}) { id } }", {"r": "theirs"}), "issue", "no-allow"),
        (ask("mutation($r: String) { createIssue(input: {repo: $r}) { id } }"), "issue", "no-allow"),
        (ask("mutation { addComment(id: 1) { id } addReaction(id: 1) { id } }"), "comment", "allow"),
        (ask("mutation { addComment(id: 1) { id } other { id } }"), "write", "no-allow"),
        (ask("mutation { addComment: deleteIssue(id: 1) { id } }"), "delete", "policy-denied"),
        (ask("mutation { addComment(id: 1) { id } deleteIssue(id: 1) { id } }"), "write", "policy-denied"),
        (ask("mutation { ...F } fragment F on Mutation { deleteIssue(id: 1) { id } }"), "delete", "policy-denied"),
        (ask("mutation { ... on Mutation { deleteIssue(id: 1) { id } } }"), "delete", "policy-denied"),
        (ask(BOTH, operationName="A"), "read", "allow"),
        (ask(BOTH, operationName="B"), "delete", "policy-denied"),
        (get(("query", "{ viewer { login } }")), "read", "allow"),
        (get(("query", "query($n: Int) { a(n: $n) }"), ("variables", '{"n": 1}')), "read", "allow"),
        (get(("query", DELETE)), "delete", "policy-denied"),
    ],
)  # fmt: skip
def test_the_document_names_the_tool(asked: Call, named: str, decided: str) -> None:
    decision = World(RULES).ask(asked)
    assert (decision.tool, decision.code or decision.action) == (named, decided)


UNTOLD: list[Any] = [
    1,
    [],
    {},
    {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "ab"}}},
    body(7),
    body(""),
    body("{"),
    body("{ }"),
    body("type A { b: Int }"),
    body("{ a } type A { b: Int }"),
    body("{ ...Missing }"),
    body("{ ...F } fragment F on Query { ...F }"),
    body("query A { a } query B { b }"),
    body("query A { a }", operationName="B"),
    body("query A { a } query A { b }", operationName="A"),
    body("{ a }", operationName=7),
    body("{ a }", [1]),
    body("{ a }", jsonrpc="2.0"),
    body("{ a }" + " " * LENGTH_CAP),
    body("{ " + "viewer " * TOKENS_CAP + "}"),
    body("{ " + "a " * 25_000 + "}"),
    body("{ a" * 5_000 + "}" * 5_000),
]


@pytest.mark.parametrize("content", UNTOLD)
def test_what_can_not_be_told_is_allowed_by_nothing(content: object) -> None:
    decision = World(RULES).ask(sent(content))
    assert (decision.action, decision.tool) == ("deny", "")
    assert arguments(sent(content)) is ABSENT
    assert shown_message(sent(content)) == ""


@pytest.mark.parametrize(
    "asked",
    [
        get(),
        get(("query", "{ a }"), ("query", "{ b }")),
        get(("query", "{ a }"), ("variables", "{")),
        get(("query", "{ a }"), ("variables", '{"a": 1, "a": 2}')),
        get(("query", "{ a }"), ("variables", '{"a": NaN}')),
        get(("query", "{ a }"), ("variables", "[1]")),
    ],
)
def test_what_can_not_be_told_of_a_get_is_allowed_by_nothing(asked: Call) -> None:
    assert World(RULES).do(asked) == "policy-denied"  # and a deny sees it


def test_two_documents_are_ambiguous() -> None:
    asked = sent(body("{ a }"), query=(("query", DELETE),))
    assert World(RULES).do(asked) == "ambiguous-request"


@pytest.mark.parametrize(
    ("query", "decided"),
    [
        ((("operationName", "B"),), "ambiguous-request"),
        ((("variables", "{}"),), "ambiguous-request"),
        ((("extensions", "{}"),), "ambiguous-request"),
        ((("operationName", "A"), ("operationName", "B")), "ambiguous-request"),
        ((("operationName", "A"),), "allow"),
        ((("trace", "1"),), "allow"),
    ],
)
def test_what_the_query_says_is_not_another_than_the_body(query: tuple[tuple[str, str], ...], decided: str) -> None:
    assert World(RULES).do(sent(body(BOTH, operationName="A"), query=query)) == decided


def test_fragments_that_hold_one_another_twice_are_read_once() -> None:
    many = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(200))
    asked = ask(f"{{ ...F0 }} {many} fragment F200 on Query {{ viewer {{ login }} }}")
    assert shown_message(asked) == "query viewer"
    assert World(RULES).do(asked) == "allow"


def test_a_large_variable_is_not_unfolded_again_and_again() -> None:
    large = ["x" * 1000] * 1000
    assert args("query($v: [S]) { a(x: $v, y: {z: [$v]}) }", {"v": large}) == {"x": large, "y": {"z": [large]}}
    with pytest.raises(ConditionError, match="too often"):
        args(f"query($v: [S]) {{ a(x: [{'$v ' * 2000}]) }}", {"v": large})
    assert args(f"query($v: [S]) {{ a(x: [{'$v ' * 2000}]) }}", {"v": 1}) == {"x": [1] * 2000}
    default = f"query($v: [S] = [{'1 ' * 2000}]) {{ a(x: [$v, {{times}}]) }}"
    with pytest.raises(ConditionError, match="too often"):
        args(default.replace("{times}", "$v " * 1000), {})
    assert args(default.replace("{times}", "$w"), {}) == {"x": [[1] * 2000, None]}


@pytest.mark.parametrize("number", ["1e309", "-1.5E3000000", "1e-999999999"])
def test_a_number_out_of_range_is_not_unfolded(number: str) -> None:
    tool = 'q: {match: {request: "GET|POST https://api.example.com/graphql", graphql: item}, params: {n: number}}'
    world = World(f"tools: {{{tool}}}\nrules: [{{id: q, tool: q, allow: true}}]")
    variables = (("query", "query($n: Float) { item(n: $n) }"), ("variables", f'{{"n": {number}}}'))
    assert world.do(get(*variables)) == "no-allow"
    assert world.do(get(("query", f"{{ item(n: {number}) }}"))) == "parameters-invalid"
    assert world.do(get(("query", "{ item(n: 1e308) }"))) == "allow"


def test_where_a_deny_asks_for_arguments_that_can_not_be_told_it_holds() -> None:
    denying = rules(
        RULES
        + """
  - {id: broad, match: "POST https://api.example.com/**", allow: true}
  - {id: not-theirs, tool: issue, where: {args.input.repo: {eq: theirs}}, deny: No.}
"""
    )
    hashed = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "ab"}}}
    by_hash = World(denying).ask(sent(hashed))
    assert "not-theirs" in [violation.rule for violation in by_hash.violations]
    assert World(denying).do(ask(OURS)) == "allow"
    assert World(denying).do(ask("{ viewer { login } }")) == "allow"


def args(query: str, variables: object = None) -> Any:
    return arguments(ask(query, variables))


def test_arguments_are_those_of_the_root_field() -> None:
    literal = '{ a(i: 1, f: 1.50, s: "x", b: true, n: null, e: RED, l: [1, $x], o: {p: $x, q: {r: 2}}) }'
    expected = {
        "i": 1, "f": Decimal("1.50"), "s": "x", "b": True, "n": None, "e": "RED", "l": [1, None], "o": {"q": {"r": 2}},
    }  # fmt: skip
    assert args(f"query($x: Int) {literal}") == expected
    assert args("query($x: Int, $y: Int = 4) { a(x: $x, y: $y) }", {"x": 3}) == {"x": 3, "y": 4}
    assert args("{ a }") == {}
    assert args("{ a(x: 1) b(x: 2) }") == [{"x": 1}, {"x": 2}]


def test_an_argument_of_several_root_fields_is_ambiguous_to_an_allow_and_seen_by_a_deny() -> None:
    two = ask('mutation { createIssue(input: {repo: "ours"}) { id } b: createIssue(input: {repo: "theirs"}) { id } }')
    assert World(RULES).do(two) == "no-allow"
    denying = rules(RULES + "  - {id: not-theirs, tool: issue, where: {args.input.repo: {eq: theirs}}, deny: No.}\n")
    assert World(denying).do(two) == "policy-denied"
    assert World(denying).do(ask(OURS)) == "allow"


def test_a_number_that_is_too_long_is_refused() -> None:
    long = ask(f"mutation {{ createIssue(input: {{repo: {'9' * (DIGITS_CAP + 1)}}}) {{ id }} }}")
    with pytest.raises(ConditionError):
        arguments(long)
    assert World(RULES).do(long) == "policy-error"


def test_the_operation_is_on_record() -> None:
    assert World(RULES).ask(ask(OURS)).facts["message"] == "mutation createIssue"


def test_a_query_only_reads() -> None:
    tools = World(RULES).ruleset.tools
    assert {name: one.effect for name, one in tools.items() if one.effect} == {"read": "read"}


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("mutation createIssue", "graphql: mutation createIssue"),
        ("query a|b*", "graphql: query a|b*"),
        ("query", "graphql: query *"),
        ("'*'", "graphql: * *"),
        ("'* viewer'", "graphql: * viewer"),
        ("viewer", "graphql: * viewer"),
        ("' mutation   x '", "graphql: mutation x"),
    ],
)
def test_a_saying_and_its_normal_spelling(text: str, spelled: str) -> None:
    assert parse_graphql(parse(text, "rules.yaml")).text == spelled


@pytest.mark.parametrize("text", ["7", "''", "[a]", "mutation create-issue", "'mutation a b'", "'a|'"])
def test_what_is_wrong_with_a_saying(text: str) -> None:
    with pytest.raises(RuleFileError) as error:
        parse_graphql(parse(text, "rules.yaml"))
    assert [problem.code for problem in error.value.problems] == ["graphql"]
