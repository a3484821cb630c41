"""Fields of answers, and conditions on them."""

from __future__ import annotations

import pytest

from rules.answers import parse_answer_field, parse_answer_where, read_answer
from rules.call import Body
from rules.decision import Answer
from rules.fields import ABSENT, ConditionError, Many, Value, WireText
from rules.problems import RuleFileError
from rules.where import parse_where
from rules.yamltree import parse
from tests.rules.world import LOST, json_body


def answer(text: str = '{"ok": true, "ids": [1, 2]}', status: int = 200, *headers: tuple[str, str]) -> Answer:
    return Answer(status, complete=True, sent=True, headers=headers, body=json_body(text))


def read(text: str, given: Answer) -> Value:
    return read_answer(given, parse_answer_field(text, parse(f"'{text}'", "rules.yaml")))


def holds(where: str, given: Answer) -> bool:
    return parse_answer_where(parse(where, "rules.yaml")).holds(lambda field: read_answer(given, field), "allow")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", 201),
        ("body.ok", True),
        ("body.ids[]", Many((1, 2))),
        ("body.none", ABSENT),
        ("header.X-Kind", WireText("a")),
        ("header.x-twice", Many((WireText("1"), WireText("2")), ambiguous=True)),
        ("header.x-none", ABSENT),
    ],
)
def test_a_field_of_an_answer(field: str, value: Value) -> None:
    headers = (("x-kind", "a"), ("x-twice", "1"), ("x-twice", "2"))
    assert read(field, answer('{"ok": true, "ids": [1, 2]}', 201, *headers)) == value


@pytest.mark.parametrize("field", ["status", "body.ok", "header.x"])
def test_without_an_answer_every_field_is_absent(field: str) -> None:
    assert read(field, LOST) is ABSENT


@pytest.mark.parametrize("body", [Body("unread"), Body("undecodable", problem="its JSON is broken")])
def test_a_body_that_cannot_be_told_is_an_error_and_no_absent_field(body: Body) -> None:
    given = Answer(200, complete=True, sent=True, body=body)
    assert read("status", given) == 200
    with pytest.raises(ConditionError):
        read("body.ok", given)


@pytest.mark.parametrize(
    ("where", "status", "expected"),
    [
        ("{status: 2xx}", 200, True),
        ("{status: 2xx}", 299, True),
        ("{status: 2xx}", 199, False),
        ("{status: 2xx}", 300, False),
        ("{status: 404}", 404, True),
        ("{status: {gte: 500}}", 503, True),
        ("{not: {status: 5xx}}", 503, False),
        ("{not: {status: 5xx}}", 200, True),
        ("{any: [{status: 404}, {status: 2xx}]}", 404, True),
        ("{status: 2xx, body.ok: true}", 200, True),
        ("{status: 2xx, body.ok: false}", 200, False),
    ],
)
def test_a_condition_on_an_answer(where: str, status: int, expected: bool) -> None:
    assert holds(where, answer(status=status)) is expected


@pytest.mark.parametrize(
    ("where", "code", "message"),
    [
        ("{query.a: 1}", "field", "`query.a` is not a field of an answer"),
        ("{agent: ann}", "field", "`agent` is not a field of an answer"),
        ("{bodyless: 1}", "field", "`bodyless` is not a field of an answer"),
        ('{status: "200"}', "where", '`"200"` is no status'),
        ("{status: {eq: 6xx}}", "where", '`"6xx"` is no status'),
        ("{status: {in: [true]}}", "where", "`true` is no status"),
    ],
)
def test_what_is_wrong_with_a_condition(where: str, code: str, message: str) -> None:
    with pytest.raises(RuleFileError) as error:
        parse_answer_where(parse(where, "rules.yaml"))
    assert [(problem.code, problem.message) for problem in error.value.problems] == [(code, message)]


def test_calls_have_no_status() -> None:
    with pytest.raises(RuleFileError):
        parse_where(parse("{status: 200}", "rules.yaml"))
