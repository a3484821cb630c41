"""params: what a call may say. Tables of calls, what is said of those that do not fit, theorems about closedness."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.call import UNREAD_BODY, Body, Call, Part
from rules.decide import decide
from rules.decision import Decision, Plain
from rules.needs import needs
from rules.params.legal import legal
from rules.params.typed import exact
from rules.problems import RuleFileError
from rules.state import State
from rules.suggest import closest
from tests.rules.world import START, call, form_body, json_body, rules


def tool(params: str, match: str = "POST https://api.example.com/orders", more: str = "") -> str:
    return f"""
tools:
  order:
    match: {match}
    {more}
    params: {params}
rules: [{{id: all, match: "https://**", allow: true}}]
"""


def decided(text: str, asked: Call) -> Decision:
    return decide(rules(text), State(), asked, "call-1", START)


def wrong(text: str, asked: Call) -> list[str]:
    """The fields in which `asked` does not fit; nothing when it goes out."""
    decision = decided(text, asked)
    assert decision.code in ("", "parameters-invalid"), decision.detail
    assert (decision.action == "allow") is (not decision.violations)
    return [each.field for each in decision.violations]


def detail(text: str, asked: Call) -> str:
    decision = decided(text, asked)
    assert decision.code == "parameters-invalid"
    return decision.detail.removeprefix("This call does not fit the parameters of `order`: ")


def form(*fields: tuple[str, str]) -> Call:
    return call(body=form_body(*fields))


def get(*query: tuple[str, str]) -> Call:
    return call("GET", query=query)


def multipart(*parts: Part) -> Call:
    return call(body=Body("multipart", "multipart/form-data", parts=parts, size_bytes=1))


REFUND = tool(
    '{charge: {type: string, pattern: "^ch_[A-Za-z0-9]+$", required: true},'
    " amount: {type: integer, minimum: 1, required: true}, reason: [duplicate, fraudulent]}",
    more="body: form",
)


@pytest.mark.parametrize(
    ("fields", "fields_wrong"),
    [
        ([("charge", "ch_1"), ("amount", "5")], []),
        ([("charge", "ch_1"), ("amount", "5"), ("reason", "duplicate")], []),
        ([("amount", "5")], ["body.charge"]),
        ([], ["body.amount", "body.charge"]),
        ([("charge", "ch_1"), ("amount", "0")], ["body.amount"]),
        ([("charge", "ch_1"), ("amount", "05")], ["body.amount"]),
        ([("charge", "ch_1"), ("amount", "+5")], ["body.amount"]),
        ([("charge", "ch_1"), ("amount", "5.0")], ["body.amount"]),
        ([("charge", "ch_1"), ("amount", "5e0")], ["body.amount"]),
        ([("charge", "ch_1"), ("amount", " 5")], ["body.amount"]),
        ([("charge", "ch_1"), ("amount", "")], ["body.amount"]),
        ([("charge", "xch_1"), ("amount", "5")], ["body.charge"]),
        ([("charge", "ch_1\n"), ("amount", "5")], ["body.charge"]),
        ([("charge", "ch_1"), ("amount", "5"), ("amount", "100000")], ["body.amount"]),
        ([("charge", "ch_1"), ("amount", "5"), ("reason", "dunno")], ["body.reason"]),
        ([("charge", "ch_1"), ("amount", "5"), ("resaon", "duplicate")], ["body.resaon"]),
        ([("charge", "ch_1"), ("amount", "5"), ("amount[x]", "6")], ["body.amount"]),
        ([("charge", "ch_1"), ("amount[]", "5")], ["body.amount"]),
    ],
)
def test_a_form_is_read_by_its_declared_types(fields: list[tuple[str, str]], fields_wrong: list[str]) -> None:
    asked = form(*fields) if fields else call()
    assert wrong(REFUND, asked) == fields_wrong


def test_one_sentence_says_everything_that_is_wrong_and_what_was_meant() -> None:
    asked = form(("charge", "1"), ("amuont", "5"), ("metadata[a]", "x"))
    decision = decided(REFUND, asked)
    assert decision.detail == (
        "This call does not fit the parameters of `order`: "
        "`amount` is missing: it has to be a whole number of at least 1; "
        "`amuont` is no parameter (did you mean `amount`?); "
        '`charge` has to be a text that matches ^ch_[A-Za-z0-9]+$, and it is "1"; '
        "`metadata` is no parameter here: there are `charge`, `amount` and `reason` only. Nothing was executed."
    )
    assert decision.next == ("Correct these parameters, then send the call again.",)
    assert (decision.action, decision.executed, decision.rules, decision.tool) == ("deny", "no", (), "order")
    missing = decision.violations[0]
    assert (missing.field, missing.actual, missing.limit) == ("body.amount", "absent", "a whole number of at least 1")


NESTED = tool(
    "{items: {minItems: 1, items: {properties: {sku: {type: string, required: true}, n: {type: integer}}}},"
    " note: string, total: {type: number, multipleOf: 0.01}, tags: {type: object, additionalProperties: string},"
    " gift: boolean, until: {type: string, format: date}, id: {type: integer, format: int32}}"
)


@pytest.mark.parametrize(
    ("body", "fields_wrong"),
    [
        ("{}", []),
        ('{"items": [{"sku": "a", "n": 2}], "total": 1.50, "gift": true, "tags": {"a": "b"}}', []),
        ('{"items": [{"sku": "a", "n": 2.0}], "total": 1e2}', []),
        ('{"items": []}', ["body.items"]),
        ('{"items": [{"sku": "a"}, {"sku": 5, "m": 1}]}', ["body.items[1].m", "body.items[1].sku"]),
        ('{"items": [{"n": "2"}]}', ["body.items[0].n", "body.items[0].sku"]),
        ('{"items": {"sku": "a"}}', ["body.items"]),
        ('{"note": null}', ["body.note"]),
        ('{"total": "1.50"}', ["body.total"]),
        ('{"total": 0.075}', ["body.total"]),
        ('{"total": true}', ["body.total"]),
        ('{"gift": "true"}', ["body.gift"]),
        ('{"gift": 1}', ["body.gift"]),
        ('{"tags": {"a": 1}}', ["body.tags.a"]),
        ('{"until": "2026-02-30"}', ["body.until"]),
        ('{"until": "2026-02-28"}', []),
        ('{"id": 2147483648}', ["body.id"]),
        ('{"id": 2147483647}', []),
        ('{"items": [{"sku": "a"}], "odd.name": 1}', ['body["odd.name"]']),
        ("[]", ["body"]),
        ("null", ["body"]),
        ('"note"', ["body"]),
    ],
)
def test_json_is_closed_at_every_depth_and_nothing_is_coerced(body: str, fields_wrong: list[str]) -> None:
    assert wrong(NESTED, call(body=body)) == fields_wrong


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ("{type: integer, maximum: 9223372036854775808}", "9223372036854775808", True),
        ("{type: integer, maximum: 9223372036854775808}", "9223372036854775809", False),
        ("{type: integer, enum: [9007199254740993]}", "9007199254740993", True),
        ("{type: integer, enum: [9007199254740993]}", "9007199254740992", False),
        ("{type: number, maximum: 5000}", "5000.0000000000000000001", False),
        ("{type: integer}", "10000000000000000000000.5", False),
        ("{type: number, multipleOf: 5}", "10000000000000000000000.5", False),
        ("{type: number, multipleOf: 5}", "10000000000000000000005", True),
        ("{type: number, multipleOf: 0.1}", "0.3", True),
        ("{enum: [0.1]}", "0.10", True),
        ("{const: 0.1}", "0.1000000000000000000001", False),
        ("{enum: [100]}", "1e2", True),
        ("{enum: [1]}", "true", False),
        ("{const: 0}", "-0.0", True),
        ("{items: number, uniqueItems: true}", "[9007199254740992, 9007199254740993]", True),
        ("{items: number, uniqueItems: true}", "[1, 1.0]", False),
    ],
)
def test_numbers_are_compared_exactly(schema: str, value: str, fits: bool) -> None:
    assert (wrong(tool(f"{{n: {schema}}}"), call(body=f'{{"n": {value}}}')) == []) is fits


QUERY = tool(
    '{q: {type: string, required: true}, page: {type: integer, maximum: 100}, ids: {items: integer, split: ","},'
    " tag: {items: string, maxItems: 2}, since: {properties: {gte: integer, lte: integer}},"
    ' "page[size]": integer, "in[]": {items: integer}, wide: {type: [integer, string]},'
    ' either: {anyOf: [{type: integer, maximum: 5}, {enum: [""]}]}, both: {anyOf: [integer, {items: integer}]}}',
    "GET https://api.example.com/orders",
)


@pytest.mark.parametrize(
    ("query", "fields_wrong"),
    [
        ([("q", "x"), ("page", "100")], []),
        ([("q", "5")], []),
        ([("q", "")], []),
        ([("q", "x"), ("page", "101")], ["query.page"]),
        ([("q", "x"), ("q", "y")], ["query.q"]),
        ([("q", "x"), ("Page", "1")], ["query.Page"]),
        ([("page", "1")], ["query.q"]),
        ([("q", "x"), ("ids", "1,2,3")], []),
        ([("q", "x"), ("ids", "1,,3")], ["query.ids[1]"]),
        ([("q", "x"), ("ids", "1"), ("ids", "2")], []),
        ([("q", "x"), ("tag", "a"), ("tag", "b")], []),
        ([("q", "x"), ("tag", "a")], []),
        ([("q", "x"), ("tag[]", "a"), ("tag[]", "b")], []),
        ([("q", "x"), ("tag[0]", "a"), ("tag[1]", "b")], []),
        ([("q", "x"), ("tag[1]", "a"), ("tag[2]", "b")], ["query.tag"]),
        ([("q", "x"), ("tag", "a"), ("tag[]", "b")], ["query.tag"]),
        ([("q", "x"), ("tag", "a"), ("tag", "b"), ("tag", "c")], ["query.tag"]),
        ([("q", "x"), ("since[gte]", "5")], []),
        ([("q", "x"), ("since[gt]", "5")], ["query.since.gt"]),
        ([("q", "x"), ("since", "5")], ["query.since"]),
        ([("q", "x"), ("since[gte]", "5"), ("since[gte]", "6")], ["query.since.gte"]),
        ([("q", "x"), ("page[size]", "5")], []),
        ([("q", "x"), ("page[size]", "a")], ['query["page[size]"]']),
        ([("q", "x"), ("in[]", "1"), ("in[]", "2")], []),
        ([("q", "x"), ("wide", "5")], []),
        ([("q", "x"), ("wide", "a")], []),
        ([("q", "x"), ("either", "5")], []),
        ([("q", "x"), ("either", "")], []),
        ([("q", "x"), ("either", "6")], ["query.either"]),
        ([("q", "x"), ("both", "6")], []),
        ([("q", "x"), ("both", "6"), ("both", "7")], []),
    ],
)
def test_queries_spell_lists_and_objects(query: list[tuple[str, str]], fields_wrong: list[str]) -> None:
    assert wrong(QUERY, get(*query)) == fields_wrong


def test_values_are_read_as_the_types_of_their_enum() -> None:
    text = tool("{a: {enum: [1, 2.5, null, [x], {y: z}, true]}}", "GET https://api.example.com/orders")
    for query in ([("a", "1")], [("a", "2.5")], [("a[]", "x")], [("a[y]", "z")], [("a", "true")]):
        assert wrong(text, get(*query)) == []
    for query in ([("a", "2")], [("a", "null")], [("a", "2.50x")], [("a[]", "y")]):
        assert wrong(text, get(*query)) == ["query.a"]


def test_text_that_may_be_text_is_text_where_a_number_does_not_fit() -> None:
    text = tool("{a: {anyOf: [{type: integer, maximum: 5}, string]}}", "GET https://api.example.com/orders")
    assert wrong(text, get(("a", "6"))) == []


def test_a_boolean_on_the_wire_is_true_or_false() -> None:
    text = tool("{draft: boolean}", "GET https://api.example.com/orders")
    assert wrong(text, get(("draft", "true"))) == []
    assert wrong(text, get(("draft", "True"))) == ["query.draft"]
    assert wrong(text, get(("draft", "1"))) == ["query.draft"]


@pytest.mark.parametrize(
    ("match", "more", "asked", "fields_wrong"),
    [
        ("POST https://api.example.com/orders", "", call(body='{"a": 1}'), []),
        ("POST https://api.example.com/orders", "", call(query=(("a", "1"),)), ["query.a"]),
        ("POST https://api.example.com/orders", "body: none", call(query=(("a", "1"),)), []),
        ("POST https://api.example.com/orders", "body: none", call(body='{"a": 1}'), ["body.a"]),
        ("GET https://api.example.com/orders", "", get(("a", "1")), []),
        ("GET https://api.example.com/orders", "", call("GET", body='{"a": 1}'), ["body.a"]),
        ("DELETE https://api.example.com/orders", "", call("DELETE", query=(("a", "1"),)), []),
        ("DELETE https://api.example.com/orders", "body: json", call("DELETE", body='{"a": 1}'), []),
    ],
)
def test_bare_names_are_in_the_body_if_the_tool_has_one(
    match: str, more: str, asked: Call, fields_wrong: list[str]
) -> None:
    assert wrong(tool("{a: integer}", match, more), asked) == fields_wrong


def test_places_can_be_named() -> None:
    text = tool(
        '{path.id: {pattern: "^ord_"}, query.dry_run: boolean, body.a: integer,'
        " 'body[\"$body\"]': integer, b.c: string}",
        "POST https://api.example.com/orders/{id}",
    )
    asked = call(path="/orders/ord_1", segments=("orders", "ord_1"), query=(("dry_run", "true"),))
    assert wrong(text, asked) == []
    assert wrong(text, call(path="/orders/5", body='{"a": 1, "$body": 2, "b.c": "x"}')) == ["path.id"]
    assert detail(text, call(path="/orders/5")).startswith(
        '`path.id` has to be a text that matches ^ord_, and it is "5"'
    )
    assert "`dry_run` is no parameter here: it belongs into the query" in detail(
        text, call(path="/orders/ord_1", body='{"dry_run": true}')
    )


def test_no_params_at_all() -> None:
    text = tool("{}")
    assert wrong(text, call()) == []
    assert wrong(text, call(body="{}")) == []
    assert wrong(text, form(("a", "1"))) == ["body.a"]
    assert wrong(text, call(query=(("a", "1"),))) == ["query.a"]
    assert "`a` is no parameter here: the body has none" in detail(text, form(("a", "1")))
    text_body = Body("text", "text/plain", text="a", size_bytes=1)
    assert "it takes no body, and this one is text/plain" in detail(text, call(body=text_body))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (Body("undecodable", problem="its JSON begins with a byte order mark"), "begins with a byte order mark"),
        (Body("undecodable", problem="its JSON has a key twice in one object"), "a key twice"),
        (Body("text", "text/plain", text="x", size_bytes=1), "has to be JSON (application/json), and it is text/plain"),
        (Body("binary", size_bytes=1), "it is without a media type"),
        (form_body(("a", "1")), "it is application/x-www-form-urlencoded"),
    ],
)
def test_a_body_of_another_kind_or_none_that_can_be_read_does_not_fit(body: Body, said: str) -> None:
    text = tool("{a: integer}", more="body: json")
    assert wrong(text, call(body=body)) == ["body"]
    assert said in detail(text, call(body=body))


def test_a_text_body_is_declared_as_such() -> None:
    text = tool("{v: integer}", more="body: text")
    assert wrong(text, call(body=Body("text", "text/plain", text="x", size_bytes=1), query=(("v", "1"),))) == []
    assert wrong(text, call(query=(("w", "1"),))) == ["query.w"]


@pytest.mark.parametrize(
    ("schema", "body", "fields_wrong"),
    [
        ("{items: string}", '["a"]', []),
        ("{items: string}", '["a", 1]', ["body[1]"]),
        ("{items: string}", None, []),
        ("{items: string, required: true}", None, ["body"]),
        ("{}", '["a", 1]', []),
        ("{properties: {a: string}, anyOf: [{required: [a]}, {required: [b]}]}", '{"a": "x"}', []),
        ("{properties: {a: {type: string, required: true}}}", None, []),
        ("{properties: {a: {type: string, required: true}}, required: [a]}", "{}", ["body.a"]),
        ("{properties: {a: {type: string, required: true}}, required: true}", None, ["body.a"]),
    ],
)
def test_the_body_as_a_whole(schema: str, body: str | None, fields_wrong: list[str]) -> None:
    assert wrong(tool(f"{{$body: {schema}}}"), call(body=body)) == fields_wrong


def test_any_body_at_all() -> None:
    text = tool("{$body: {}, query.name: string}")
    assert wrong(text, call(body=Body("binary", "application/zip", size_bytes=9), query=(("name", "a"),))) == []
    assert wrong(text, call(body=Body("binary", size_bytes=9), query=(("nam", "a"),))) == ["query.nam"]


def test_multipart_names_and_files() -> None:
    text = tool(
        "{name: string, n: integer, file: {type: string, format: binary, required: true}}", more="body: multipart"
    )
    upload = Part("file", "a.pdf", "application/pdf", b"1" * 32, "")
    name = Part("name", "", "", b"2" * 32, "x")
    assert wrong(text, multipart(upload, name, Part("n", "", "", b"3" * 32, "5"))) == []
    assert wrong(text, multipart(name)) == ["body.file"]
    assert wrong(text, multipart(upload, Part("name", "b.txt", "text/plain", b"2" * 32, ""))) == ["body.name"]
    assert wrong(text, multipart(upload, upload)) == ["body.file"]
    assert wrong(text, multipart(upload, Part("nmae", "", "", b"2" * 32, "x"))) == ["body.nmae"]


COMPOSED = tool(
    "{who: {oneOf: [{properties: {email: {type: string, required: true}}}, {properties: {id: {type: integer,"
    " required: true}}}], properties: {note: string}}, what: {anyOf: [string, {items: string}]},"
    " all: {allOf: [{properties: {a: string}}, {properties: {b: string}}]},"
    " bag: {allOf: [{properties: {a: string}}], additionalProperties: integer},"
    " free: {anyOf: [{properties: {a: string}}, integer], additionalProperties: true},"
    ' not: {type: string, not: {pattern: "^x"}}, few: {type: object, additionalProperties: true, maxProperties: 1,'
    ' propertyNames: {pattern: "^[a-z]+$"}}, nothing: {type: [string, null]}}'
)


@pytest.mark.parametrize(
    ("body", "fields_wrong"),
    [
        ('{"who": {"email": "a@b", "note": "x"}}', []),
        ('{"who": {"email": "a@b", "other": "x"}}', ["body.who.other"]),
        ('{"who": {}}', ["body.who"]),
        ('{"who": {"email": 5}}', ["body.who"]),
        ('{"who": {"email": "a@b", "id": 5}}', ["body.who"]),
        ('{"what": "a"}', []),
        ('{"what": ["a"]}', []),
        ('{"what": ["a", 5]}', ["body.what[1]"]),
        ('{"what": 5}', ["body.what"]),
        ('{"all": {"a": "x", "b": "y"}}', []),
        ('{"all": {"a": "x", "c": "y"}}', ["body.all.c"]),
        ('{"bag": {"a": "x", "c": 5}}', []),
        ('{"bag": {"a": "x", "c": "y"}}', ["body.bag.c"]),
        ('{"free": {"a": "x", "c": "y"}}', []),
        ('{"not": "xa"}', ["body.not"]),
        ('{"not": "a"}', []),
        ('{"few": {"a": 1}}', []),
        ('{"few": {"a": 1, "b": 2}}', ["body.few"]),
        ('{"few": {"A": 1}}', ["body.few"]),
        ('{"nothing": null}', []),
        ('{"nothing": 5}', ["body.nothing"]),
    ],
)
def test_composed_schemas_are_closed_as_a_whole(body: str, fields_wrong: list[str]) -> None:
    assert wrong(COMPOSED, call(body=body)) == fields_wrong


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"who": {}}', "`who` lacks `email` or `id`"),
        ('{"who": {"email": "a@b", "id": 5}}', "`who` fits several of its forms, and has to fit one"),
        ('{"what": 5}', "`what` has to be a text or a list of which each is a text, and it is 5"),
        ('{"not": "xa"}', '`not` is what it must not be: "xa"'),
        ('{"nothing": 5}', "`nothing` has to be a text or `null`, and it is 5"),
        ('{"what": "' + "s" * 100 + '", "not": "x' + "s" * 100 + '"}', "it must not be: a text of 101 characters"),
    ],
)
def test_what_is_said_of_composed_schemas(body: str, said: str) -> None:
    assert said in detail(COMPOSED, call(body=body))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"const": 5}, "5"),
        ({"enum": ["a", 1, None]}, '"a", 1 or null'),
        ({"enum": list(range(20))}, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 or 9 more"),
        ({}, "anything"),
        ({"allOf": [{}, {"type": "string"}]}, "a text"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 5}, "a number above 0 below 5"),
        ({"type": "number", "minimum": 1, "maximum": 5, "multipleOf": 2}, "a number from 1 to 5, a multiple of 2"),
        ({"type": "integer", "maximum": 5, "format": "int32"}, "a whole number of at most 5 (int32)"),
        ({"type": "string", "minLength": 2, "maxLength": 2}, "a text of 2 characters"),
        ({"type": "string", "minLength": 1, "maxLength": 9}, "a text of at least 1 and at most 9 characters"),
        ({"type": "string", "format": "uuid"}, "a UUID"),
        ({"type": "array", "split": "|", "minItems": 1}, "a list of at least 1 elements, parted by `|`"),
        ({"type": "object", "properties": {"a": {}}, "maxProperties": 1}, "an object with `a` of at most 1 members"),
        ({"type": "object"}, "an object"),
        ({"const": "x" * 200}, '"' + "x" * 96 + "..."),
        ({"const": "a\u202eb"}, '"a\\u202eb"'),
        ({"const": Decimal("0.5")}, "0.5"),
    ],
)
def test_the_legal_form_in_words(schema: dict[str, Any], words: str) -> None:
    assert legal(schema) == words


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[" + "1," * 60 + "1]", "a list of 61 elements"),
        ('{"' + "a" * 100 + '": 1}', "an object of 1 members"),
        ("1" * 120, "a number of 120 digits"),
    ],
)
def test_long_values_are_described(value: str, said: str) -> None:
    assert f"and it is {said}" in detail(tool("{a: string}"), call(body=f'{{"a": {value}}}'))


def test_many_violations_are_counted() -> None:
    body = json.dumps({f"x{number}": 1 for number in range(30)})
    assert detail(tool("{a: string}"), call(body=body)).endswith("; and 20 more. Nothing was executed.")


# --- in the order of deciding ----------------------------------------------------------------------------------------


def test_params_are_looked_at_after_denies_and_allows() -> None:
    text = tool("{a: integer}")
    denied = text.replace("rules: [", "rules: [{id: no, tool: order, deny: No.}, ")
    assert decided(denied, call(body='{"b": 1}')).code == "policy-denied"
    assert decided(text.replace("https://**", "https://other.example/**"), call(body='{"b": 1}')).code == "no-allow"


def test_params_are_looked_at_before_guards() -> None:
    text = tool("{a: integer}").replace("allow: true", "allow: true, throttle: 1/h, dedupe: 1h")
    decision = decided(text, call(body='{"b": 1}'))
    assert (decision.code, decision.changes) == ("parameters-invalid", ())


def test_params_belong_to_the_tool_that_names_the_call() -> None:
    text = tool("{a: integer}").replace(
        "tools:", "tools:\n  wide: {match: 'https://api.example.com/**', params: {query.x: integer}}"
    )
    assert wrong(text, call(body='{"a": 1}')) == []
    assert wrong(text, call(path="/other", query=(("x", "1"),))) == []
    assert wrong(text, call(path="/other", query=(("a", "1"),))) == ["query.a"]


def test_monitored_params_stop_nothing_and_say_what_they_would() -> None:
    text = tool("{a: integer}", more="params_mode: monitor")
    for body in (json_body('{"b": 1}'), UNREAD_BODY, Body("undecodable", problem="its JSON is broken")):
        decision = decided(text, call(body=body))
        assert decision.action == "allow"
        assert [each.code for each in decision.would] == ["parameters-invalid"]


def test_global_monitor_mode_stops_nothing_either() -> None:
    decision = decided("mode: monitor\n" + tool("{a: integer}"), call(body='{"b": 1}'))
    assert (decision.action, [each.field for each in decision.would]) == ("allow", ["body.b"])


def test_a_tool_with_params_needs_the_body() -> None:
    assert needs(rules(tool("{}")), call(body=UNREAD_BODY)).body
    assert not needs(rules(tool("{}")), call(path="/other", body=UNREAD_BODY)).body


@pytest.mark.parametrize("mode", ["", "mode: monitor\n"])
def test_a_body_that_was_not_read_is_refused(mode: str) -> None:
    assert decided(mode + tool("{a: integer}"), call(body=UNREAD_BODY)).code == "ambiguous-request"


def test_every_parameter_is_put_on_record() -> None:
    text = tool("{path.id: string, query.q: string, a: {}, b: {}}", "POST https://api.example.com/orders/{id}")
    asked = call(path="/orders/5", query=(("q", "x"), ("z", "1"), ("z", "2")), body='{"a": 1.50, "b": {"c": [1]}}')
    facts: dict[str, Plain] = {
        "path.id": "5",
        "query.q": "x",
        "query.z": {"many": ["1", "2"], "ambiguous": True},
        "body.a": "1.50",
        "body.b": {"c": [1]},
    }
    assert decided(text, asked).facts == facts
    many = json.dumps({f"x{number}": 1 for number in range(300)})
    assert list(decided(text, call(path="/orders/5", body=many)).facts) == ["path.id", "body"]


def test_facts_of_forms_are_what_a_field_reads() -> None:
    text = tool("{a: {}, b: {}}")
    with_rule = text.replace(
        "allow: true", "allow: true, where: {any: [{body.a: {exists: true}}, {body.b: {exists: true}}]}"
    )
    for fields in ([("a[x]", "1"), ("a[x]", "2")], [("a", "1"), ("a", "2")], [("a[]", "1")], [("a[0]", "1")]):
        ours, theirs = decided(text, form(*fields)).facts, decided(with_rule, form(*fields)).facts
        assert ours["body.a"] == theirs["body.a"]


def test_the_callers_secret_is_no_parameter() -> None:
    text = tool("{q: string}", "GET https://api.example.com/orders", "credential: query.key")
    decision = decided(text, get(("q", "x"), ("key", "secret")))
    assert (decision.action, list(decision.facts)) == ("allow", ["query.q"])


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("amuont", ["amount", "account"], "amount"),
        ("amout", ["amount"], "amount"),
        ("ammounts", ["amount"], "amount"),
        ("amuonts", ["amount"], "amount"),
        ("xamounts", ["other"], ""),
        ("b", ["a"], ""),
        ("ab", ["a"], ""),
        ("abc", ["abd"], "abd"),
        ("abcd", ["bacd", "abdc"], "abdc"),
        ("completely", ["different"], ""),
        ("per-page", ["per_page", "page"], "per_page"),
    ],
)
def test_what_was_probably_meant(word: str, known: list[str], meant: str) -> None:
    assert closest(word, known) == meant


def test_a_pattern_may_not_be_of_any_length() -> None:
    with pytest.raises(RuleFileError, match="at most 2000 characters"):
        rules(tool(f"{{a: {{pattern: {'x' * 2001}}}}}"))


# --- theorems --------------------------------------------------------------------------------------------------------

NAMES = st.text("abcdefg", min_size=1, max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("xyz0", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.sets(NAMES, max_size=4))
def test_what_is_not_named_never_goes_out(body: dict[str, Any], named: set[str]) -> None:
    text = tool("{" + ", ".join(f"{name}: {{}}" for name in sorted(named)) + "}")
    assert wrong(text, call(body=json.dumps(body))) == sorted(f"body.{name}" for name in body.keys() - named)


@given(st.lists(st.tuples(NAMES, st.text("xyz0", max_size=3)), max_size=5), st.sets(NAMES, max_size=4))
def test_what_is_not_named_or_stands_twice_never_goes_out_in_a_query(
    query: list[tuple[str, str]], named: set[str]
) -> None:
    params = "{" + ", ".join(f"{name}: string" for name in sorted(named)) + "}"
    names = [name for name, _ in query]
    culprits = {name for name in names if name not in named or names.count(name) > 1}
    found = wrong(tool(params, "GET https://api.example.com/orders"), get(*query))
    assert set(found) == {f"query.{name}" for name in culprits}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3) | st.integers())
def test_the_one_form_of_a_number_is_the_number(number: Decimal | int) -> None:
    found = exact(number)
    assert isinstance(found, int | Decimal)
    assert found == number
    assert isinstance(found, int) is (number == int(number))
    assert exact(found) is not None
