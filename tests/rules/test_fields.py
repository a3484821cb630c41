"""Fields: how they are spelled, and what each reads from a call."""

from __future__ import annotations

import hashlib
from decimal import Decimal

import msgspec
import pytest

from rules.call import NO_BODY, UNREAD_BODY, Body, Call, Json, Part
from rules.fields import ABSENT, ConditionError, Many, Value, WireText, parse_field, plain, read_field
from rules.fields import Field as ParsedField
from rules.problems import Mark, RuleFileError
from rules.yamltree import Node, parse

CALL = Call(
    agent="support",
    run="r1",
    method="POST",
    scheme="https",
    host="api.a.io",
    port=443,
    path="/x/7",
    segments=("x", "7"),
    query=(("q", "1"), ("tag", "a"), ("tag", "b"), ("a[b]", "3")),
    headers=(("x-one", "v"), ("accept", "a"), ("accept", "b")),
    credential="c0ffee",
)


def field(text: str) -> ParsedField:
    return parse_field(text, Node("scalar", Mark("rules.yaml", 1, 1), text))


def read(text: str, body: Body = NO_BODY) -> Value:
    return read_field(msgspec.structs.replace(CALL, body=body), {"id": "7"}, field(text), "stripe.refund")


def json(value: Json) -> Body:
    return Body("json", json=value)


def form(*pairs: tuple[str, str]) -> Body:
    return Body("form", fields=pairs)


def part(name: str, text: str, filename: str = "") -> Part:
    return Part(name, filename, "text/plain", hashlib.sha256(text.encode()).digest(), "" if filename else text)


SPELLED = [
    ("path.id", "path.id", False),
    ("query.page-token", "query.page-token", False),
    ('query["a.b"]', 'query["a.b"]', False),
    ('query["plain"]', "query.plain", False),
    ("query.tag[]", "query.tag[]", False),
    ("header.X-Amz-Target", "header.x-amz-target", False),
    ("body", "body", True),
    ("body.a.b", "body.a.b", True),
    ("body.to[].email", "body.to[].email", True),
    ("body[].id", "body[].id", True),
    ('body["odd.name"][].x', 'body["odd.name"][].x', True),
    ('body["say \\"hi\\""]', 'body["say \\"hi\\""]', True),
    ('body[""]', 'body[""]', True),
    ("body.$ref.@type", "body.$ref.@type", True),
    ("agent", "agent", False),
    ("credential", "credential", False),
]


@pytest.mark.parametrize(("text", "normal", "needs_body"), SPELLED)
def test_how_fields_are_spelled(text: str, normal: str, needs_body: bool) -> None:
    assert str(field(text)) == normal
    assert field(normal) == field(text)
    assert field(text).needs_body is needs_body


WRONG = [
    # text, column of the culprit (the text starts at column 2, behind its quote), message, help, code
    ("bdy.amount", 2, "`bdy.amount` is not a field", "did you mean `body.amount`?", "field"),
    ("agnt", 2, "`agnt` is not a field", "did you mean `agent`?", "field"),
    ("amount", 2, "`amount` is not a field", "`body.amount` or `query.amount`", "field"),
    ("", 2, "`` is not a field", "fields start with", "field"),
    ("body.", 6, "`.` in `body.` can not be read", 'body["odd.name"]', "field"),
    ("body.a b", 8, "` b` in `body.a b` can not be read", 'body["odd.name"]', "field"),
    ("body.a[0]", 8, "`[0]` in `body.a[0]` can not be read", "", "field"),
    ('body["a\\x"]', 6, "is not a quoted name", "as in JSON", "field"),
    ("agent.name", 7, "`agent` has no members", "`agent` alone", "field"),
    ("query", 7, "`query` names no query parameter", "query.NAME", "field"),
    ("header", 8, "`header` names no header", "header.NAME", "field"),
    ("path[]", 6, "`path[]` names no part of the path", "path.NAME", "field"),
    ("path.id[]", 6, "a part of the path has no members", "", "field"),
    ("query.a.b", 7, "a query parameter has no members", 'query["a.b"]', "field"),
    ("query.a[].b", 7, "a query parameter has no members", "", "field"),
]


@pytest.mark.parametrize(("text", "col", "message", "help", "code"), WRONG)
def test_what_is_wrong_with_a_field(text: str, col: int, message: str, help: str, code: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        parse_field(text, parse(f"'{text}'", "rules.yaml"))
    (problem,) = caught.value.problems
    assert message in problem.message
    assert help in problem.help
    assert (problem.code, problem.mark.col) == (code, col)


def test_a_field_that_is_part_of_a_text_is_blamed_where_it_stands() -> None:
    with pytest.raises(RuleFileError) as caught:
        parse_field("bdy.b", parse("body.a|bdy.b", "rules.yaml"))
    assert caught.value.problems[0].mark.col == 8


def test_a_field_in_a_list_is_blamed_at_the_list() -> None:
    with pytest.raises(RuleFileError) as caught:
        parse_field("bdy.b", parse("[bdy.b]", "rules.yaml"))
    assert caught.value.problems[0].mark.col == 1


HEADS: list[tuple[str, Value]] = [
    ("agent", "support"),
    ("run", "r1"),
    ("method", "POST"),
    ("host", "api.a.io"),
    ("tool", "stripe.refund"),
    ("credential", "c0ffee"),
    ("path.id", "7"),
    ("path.other", ABSENT),
    ("query.q", "1"),
    ("query.none", ABSENT),
    ("query.tag", Many(("a", "b"), ambiguous=True)),
    ("query.tag[]", Many(("a", "b"))),
    ("query.q[]", Many(("1",))),
    ("query.none[]", ABSENT),
    ('query["a[b]"]', "3"),
    ("query.a", ABSENT),
    ("header.X-One", "v"),
    ("header.x-two", ABSENT),
    ("header.accept", Many(("a", "b"), ambiguous=True)),
]


@pytest.mark.parametrize(("text", "value"), HEADS)
def test_what_a_field_reads_from_the_head(text: str, value: Value) -> None:
    assert read(text) == value


def test_nothing_known_is_absent() -> None:
    bare = msgspec.structs.replace(CALL, run="", credential="")
    assert [read_field(bare, {}, field(text)) for text in ("run", "credential", "tool")] == [ABSENT] * 3


JSON: list[tuple[str, str, Json, Value]] = [
    ("a member", "body.a", {"a": 5}, 5),
    ("a member in a member", "body.a.b", {"a": {"b": "x"}}, "x"),
    ("null is a value", "body.a", {"a": None}, None),
    ("a member that is not there", "body.a", {"b": 1}, ABSENT),
    ("a member of null", "body.a.b", {"a": None}, ABSENT),
    ("a member of a text", "body.a.b", {"a": "b"}, ABSENT),
    ("an odd name", 'body["a.b"]', {"a.b": 1, "a": {"b": 2}}, 1),
    ("an empty name", 'body[""]', {"": 1}, 1),
    ("the whole body", "body", {"a": [1, {"b": Decimal("1.5")}]}, {"a": [1, {"b": Decimal("1.5")}]}),
    ("a body that is no object", "body", "x", "x"),
    ("a list as it is", "body.a", {"a": [1, 2]}, [1, 2]),
    ("every element", "body.a[]", {"a": [1, 2]}, Many((1, 2))),
    ("every element of the body", "body[].id", [{"id": 1}, {"id": 2}], Many((1, 2))),
    ("a member of every element", "body.to[].email", {"to": [{"email": "x"}, {"email": "y"}]}, Many(("x", "y"))),
    ("every element of every element", "body.a[].b[]", {"a": [{"b": [1]}, {"b": [2, 3]}]}, Many((1, 2, 3))),
    ("an element without the member", "body.to[].email", {"to": [{"email": "x"}, {}]}, Many(("x", ABSENT))),
    ("an element that is empty", "body.a[].b[]", {"a": [{"b": []}, {"b": [1]}]}, Many((ABSENT, 1))),
    ("no elements", "body.a[]", {"a": []}, ABSENT),
    ("no element with the member", "body.a[].b", {"a": [{}, {"c": 1}]}, ABSENT),
    ("one value where a list is expected", "body.to[]", {"to": "x"}, Many(("x",), ambiguous=True)),
    ("one object where a list is expected", "body.to[].e", {"to": {"e": "x"}}, Many(("x",), ambiguous=True)),
    ("a list where an object is expected", "body.to.e", {"to": [{"e": "x"}]}, Many(("x",), ambiguous=True)),
    ("an empty list where an object is expected", "body.to.e", {"to": []}, ABSENT),
]


@pytest.mark.parametrize(
    ("case", "text", "body", "value"), JSON, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_a_field_reads_from_json(case: str, text: str, body: Json, value: Value) -> None:
    assert read(text, json(body)) == value, case


FORMS: list[tuple[str, str, tuple[tuple[str, str], ...], Value]] = [
    ("a name", "body.a", (("a", "1"),), "1"),
    ("an empty text is a value", "body.a", (("a", ""),), ""),
    ("no such name", "body.b", (("a", "1"),), ABSENT),
    ("an object", "body.a.b", (("a[b]", "1"),), "1"),
    ("an object three deep", "body.a.b.c", (("a[b][c]", "1"),), "1"),
    ("a name with brackets, quoted", 'body["a[b]"]', (("a[b]", "1"),), "1"),
    ("a list", "body.a[]", (("a[]", "1"), ("a[]", "2")), Many(("1", "2"))),
    ("a list by index, in its order", "body.a[]", (("a[10]", "2"), ("a[9]", "1")), Many(("1", "2"))),
    ("objects in a list", "body.a[].b", (("a[0][b]", "1"), ("a[1][b]", "2")), Many(("1", "2"))),
    ("a member with a number for a name", "body.meta.7", (("meta[7]", "x"),), "x"),
    ("the whole body", "body", (("a[0]", "1"), ("b[c]", "2")), {"a": ["1"], "b": {"c": "2"}}),
    ("a name twice", "body.a", (("a", "1"), ("a", "2")), Many(("1", "2"), ambiguous=True)),
    ("a name twice, as a list", "body.a[]", (("a", "1"), ("a", "2")), Many(("1", "2"), ambiguous=True)),
    ("a value beside the member", "body.a.b", (("a", "1"), ("a[b]", "2")), Many((ABSENT, "2"), ambiguous=True)),
    ("members beside the value", "body.a", (("a", "1"), ("a[b]", "2")), Many(("1", {"b": "2"}), ambiguous=True)),
    ("a member that is in no reading", "body.a.c", (("a", "1"), ("a[b]", "2")), ABSENT),
    ("doubt inside an object", "body.a", (("a[b]", "1"), ("a[b]", "2")), Many(({"b": ["1", "2"]},), ambiguous=True)),
    (
        "doubt inside a list",
        "body.a",
        (("a[][b]", "1"), ("a[c]", "2")),
        Many(([{"b": "1"}], {"c": "2"}), ambiguous=True),
    ),
    ("doubt inside the body", "body", (("a", "1"), ("a", "2")), Many(({"a": ["1", "2"]},), ambiguous=True)),
    ("doubt elsewhere", "body.b", (("a", "1"), ("a", "2"), ("b", "3")), "3"),
]


@pytest.mark.parametrize(
    ("case", "text", "pairs", "value"), FORMS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_a_field_reads_from_a_form(case: str, text: str, pairs: tuple[tuple[str, str], ...], value: Value) -> None:
    assert read(text, form(*pairs)) == value, case


def test_what_a_field_reads_from_a_multipart_body() -> None:
    logo = part("logo", "pixels", filename="logo.png")
    body = Body("multipart", parts=(part("a", "1"), part("b[c]", "2"), part("empty", ""), logo))
    file = {"filename": "logo.png", "media_type": "text/plain", "sha256": logo.sha256.hex()}
    values = {"body.a": "1", "body.b.c": "2", "body.empty": "", "body.logo": file, "body.logo.filename": "logo.png"}
    assert {text: read(text, body) for text in values} == values
    assert read("body.a", Body("multipart", parts=(part("a", "1"), part("a", "2")))) == Many(("1", "2"), ambiguous=True)


def test_a_part_that_is_not_text_does_not_read_as_empty_text() -> None:
    raw = Part("a", "", "application/octet-stream", hashlib.sha256(b"\xff").digest(), "")
    assert read("body.a.media_type", Body("multipart", parts=(raw,))) == "application/octet-stream"


@pytest.mark.parametrize("kind", ["none", "text", "binary"])
def test_other_bodies_have_no_fields(kind: str) -> None:
    body = msgspec.structs.replace(NO_BODY, kind=kind, text="a=1")
    assert read("body.a", body) is ABSENT
    assert read("body", body) is ABSENT


@pytest.mark.parametrize(
    ("body", "why"),
    [(UNREAD_BODY, "was not read"), (Body("undecodable", problem="it is not UTF-8"), "it is not UTF-8")],
)
def test_a_body_that_can_not_be_read_is_an_error_and_never_absent(body: Body, why: str) -> None:
    with pytest.raises(ConditionError, match=why):
        read("body.a", body)
    assert read("agent", body) == "support"


def test_text_from_the_wire_is_told_from_text_in_json() -> None:
    multipart = Body("multipart", parts=(part("a", "5"),))
    wire = [
        read("path.id"),
        read("query.q"),
        read("header.x-one"),
        read("body.a", form(("a", "5"))),
        read("body.a", multipart),
    ]
    assert [type(value) for value in wire] == [WireText] * 5
    assert [type(value) for value in (read("agent"), read("body.a", json({"a": "5"})))] == [str, str]


PLAIN: list[tuple[Value, object]] = [
    (ABSENT, {"absent": True}),
    (Many((1, ABSENT), ambiguous=True), {"many": [1, {"absent": True}], "ambiguous": True}),
    ([Decimal("1.50"), None, True], ["1.50", None, True]),
    ({"a": WireText("x")}, {"a": "x"}),
]


@pytest.mark.parametrize(("value", "expected"), PLAIN)
def test_how_the_ledger_keeps_a_value(value: Value, expected: object) -> None:
    assert plain(value) == expected
    assert msgspec.json.decode(msgspec.json.encode(plain(value))) == expected
