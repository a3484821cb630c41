"""The fingerprint: what makes two calls the same, one difference at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rules.call import Body, Call, Part
from rules.fields import ABSENT, Field, Many, Value, parse_field
from rules.fingerprint import LARGE_BYTES, SHORT, _essence, fingerprint, value_bytes
from rules.yamltree import parse
from tests.rules.world import call, form_body, json_body

BASE = call(
    path="/v1/orders",
    body='{"amount": 100, "items": [1, 2], "meta": {"ts": 1}}',
    query=(("a", "1"), ("b", "2")),
    headers=(("content-type", "application/json"),),
)


def field(text: str) -> Field:
    return parse_field(text, parse(text, "test"))


def print_of(made: Call, *ignore: str) -> str:
    by: list[tuple[str, Value]] = [("agent", made.agent), ("credential", made.credential)]
    return fingerprint(made, by, None, [field(each) for each in ignore])


def body(text: str, media_type: str = "application/json") -> Body:
    return json_body(text, media_type)


SAME: list[tuple[str, dict[str, Any]]] = [
    ("keys in another order", {"body": body('{"meta": {"ts": 1}, "items": [1, 2], "amount": 100}')}),
    ("white space", {"body": body('{"amount":100,"items":[1,2],"meta":{"ts":1}}')}),
    ("numbers spelled otherwise", {"body": body('{"amount": 1e2, "items": [1.0, 2], "meta": {"ts": 1}}')}),
    ("a charset beside the media type", {"body": msgspec.structs.replace(BASE.body, media_type="Application/JSON; x")}),
    ("query in another order", {"query": (("b", "2"), ("a", "1"))}),
    ("another run", {"run": "run-2"}),
    ("hex digits of the path in another case", {"path": "/v1/%6frders"}),
    *[
        (f"another {name}", {"headers": ((name, "x"),)})
        for name in ("traceparent", "date", "user-agent", "idempotency-key", "x-request-id", "accept-encoding", "b3")
    ],
]

DIFFERENT: list[tuple[str, dict[str, Any]]] = [
    ("another method", {"method": "PUT"}),
    ("another scheme", {"scheme": "http"}),
    ("another host", {"host": "api2.example.com"}),
    ("another port", {"port": 444}),
    ("another path", {"segments": ("v1", "order")}),
    ("an encoded slash", {"segments": ("v1/orders",)}),
    ("another agent", {"agent": "bob"}),
    ("another credential", {"credential": "beef"}),
    ("another query", {"query": (("a", "1"), ("b", "3"))}),
    ("a query parameter twice", {"query": (("a", "1"), ("a", "1"), ("b", "2"))}),
    ("arrays in another order", {"body": body('{"amount": 100, "items": [2, 1], "meta": {"ts": 1}}')}),
    ("another number", {"body": body('{"amount": 101, "items": [1, 2], "meta": {"ts": 1}}')}),
    ("a text for a number", {"body": body('{"amount": "100", "items": [1, 2], "meta": {"ts": 1}}')}),
    ("another media type", {"body": msgspec.structs.replace(BASE.body, media_type="application/vnd.api+json")}),
    ("a form that says the same", {"body": form_body(("amount", "100"))}),
    ("another operation at the same path", {"headers": (("x-amz-target", "DynamoDB_20120810.DeleteItem"),)}),
    ("another SOAP action", {"headers": (("soapaction", '"urn:delete"'),)}),
]


@pytest.mark.parametrize(("difference", "given"), SAME, ids=[name for name, _ in SAME])
def test_it_does_not_matter(difference: str, given: dict[str, Any]) -> None:
    assert print_of(msgspec.structs.replace(BASE, **given)) == print_of(BASE)


@pytest.mark.parametrize(("difference", "given"), DIFFERENT, ids=[name for name, _ in DIFFERENT])
def test_it_matters(difference: str, given: dict[str, Any]) -> None:
    assert print_of(msgspec.structs.replace(BASE, **given)) != print_of(BASE)


def test_it_is_the_same_for_ever() -> None:
    """A claim in a ledger outlives the program: whoever changes this has to change the version, too."""
    assert print_of(BASE) == "82f32992940ed027b086ba8968ed04204ece2578932cb8ceb349515c4d8a057b"


@pytest.mark.parametrize("name", ["X-Amz-Signature", "X-Amz-Date", "x-amz-security-token"])
def test_the_signature_of_a_signed_query_does_not_matter(name: str) -> None:
    assert print_of(call(query=((name, "1"),))) == print_of(call(query=((name, "2"),)))


def test_the_id_of_a_json_rpc_call_does_not_matter() -> None:
    one = '{"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"a": 1, "_meta": {"progressToken": 1}}}'
    two = '{"jsonrpc": "2.0", "id": 2, "method": "m", "params": {"a": 1, "_meta": {"progressToken": 2}}}'
    other = '{"jsonrpc": "2.0", "id": 2, "method": "m", "params": {"a": 2}}'
    listed = '{"jsonrpc": "2.0", "id": 2, "method": "m", "params": [1]}'
    assert print_of(call(body=one)) == print_of(call(body=two))
    assert len({print_of(call(body=each)) for each in (one, other, listed)}) == 3


def test_the_id_of_anything_else_matters() -> None:
    assert print_of(call(body='{"id": 1}')) != print_of(call(body='{"id": 2}'))


def part(name: str, text: str) -> Part:
    return Part(name, "", "", text.encode(), text)


IGNORED: list[tuple[str, str, Call, Call, bool]] = [
    ("a member", "body.meta.ts", call(body='{"a":1,"meta":{"ts":1}}'), call(body='{"a":1,"meta":{"ts":2}}'), True),
    ("its parent", "body.meta", call(body='{"a":1,"meta":{"ts":1}}'), call(body='{"a":1}'), True),
    ("beside it", "body.meta.ts", call(body='{"a":1,"meta":{"ts":1}}'), call(body='{"a":2,"meta":{"ts":1}}'), False),
    ("not there", "body.b.c", call(body='{"a":1}'), call(body='{"a":2}'), False),
    ("of each element", "body.l[].t", call(body='{"l":[{"t":1},{"t":2}]}'), call(body='{"l":[{"t":3},{}]}'), True),
    ("every element", "body.l[]", call(body='{"l":[1,2]}'), call(body='{"l":[3]}'), True),
    ("no list", "body.l[].t", call(body='{"l":{"t":1}}'), call(body='{"l":{"t":2}}'), False),
    ("of no object", "body.a.b", call(body='{"a":[1]}'), call(body='{"a":[2]}'), False),
    ("a parameter", "query.t", call(query=(("t", "1"), ("u", "1"))), call(query=(("u", "1"),)), True),
    ("another parameter", "query.t", call(query=(("u", "1"),)), call(query=(("u", "2"),)), False),
    ("a form field", "body.t", call(body=form_body(("t", "1"), ("u", "1"))), call(body=form_body(("u", "1"))), True),
    ("inside a form", "body.m.t", call(body=form_body(("m[t]", "1"))), call(body=form_body(("m[t]", "2"))), True),
    ("below it", "body.m", call(body=form_body(("m[t][]", "1"))), call(body=form_body(("m[t][]", "2"))), True),
    ("elements in a form", "body.m[]", call(body=form_body(("m[]", "1"))), call(body=form_body(("m[0]", "2"))), True),
    (
        "beside it in a form",
        "body.m.t",
        call(body=form_body(("m[u]", "1"))),
        call(body=form_body(("m[u]", "2"))),
        False,
    ),
    ("above it in a form", "body.m.t", call(body=form_body(("m", "1"))), call(body=form_body(("m", "2"))), False),
    (
        "a part",
        "body.t",
        call(body=Body("multipart", parts=(part("t", "1"), part("u", "1")))),
        call(body=Body("multipart", parts=(part("u", "1"),))),
        True,
    ),
    ("a text body", "body.t", call(body=Body("text", sha256=b"1")), call(body=Body("text", sha256=b"2")), False),
]


@pytest.mark.parametrize(("what", "ignored", "one", "other", "same"), IGNORED, ids=[row[0] for row in IGNORED])
def test_what_is_ignored_does_not_matter_and_nothing_else(
    what: str, ignored: str, one: Call, other: Call, same: bool
) -> None:
    assert (print_of(one, ignored) == print_of(other, ignored)) is same


def test_a_key_replaces_query_and_body_only() -> None:
    other = msgspec.structs.replace(BASE, query=(), body=Body("text", sha256=b"x"))
    key: list[tuple[str, Value]] = [("body.amount", 100)]
    assert fingerprint(BASE, [], key) == fingerprint(other, [], key)
    assert fingerprint(BASE, [], key) != fingerprint(msgspec.structs.replace(BASE, path="/x", segments=("x",)), [], key)
    assert fingerprint(BASE, [], key) != fingerprint(BASE, [], [("body.total", 100)])
    assert fingerprint(BASE, [], key) != fingerprint(BASE, [("agent", "ann")], key)
    assert fingerprint(BASE, [], key) != fingerprint(BASE, [], None)


def test_values_of_every_shape_keep_apart() -> None:
    shapes: list[Value] = [
        ABSENT, None, True, 1, "1", "", [], [1], {}, Many(()), Many((1,)), Many((1,), ambiguous=True), Many((ABSENT,)),
        Many(("1",)), Many((1, 1)), "absent",
    ]  # fmt: skip
    assert len({value_bytes(shape) for shape in shapes}) == len(shapes)


def test_long_media_types_are_not_remembered() -> None:
    """A client may send any number of them, of tens of kilobytes each."""
    print_of(BASE)
    before = _essence.cache_info().currsize
    long = [msgspec.structs.replace(BASE.body, media_type=f"application/{'x' * SHORT}{n}") for n in range(3)]
    assert len({print_of(msgspec.structs.replace(BASE, body=one)) for one in long}) == 3
    assert _essence.cache_info().currsize == before


def test_a_large_body_is_read_once_however_often_its_call_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    def large(last: int, spaces: str = "") -> Call:
        return msgspec.structs.replace(
            BASE, body=body(f'{{"items": [{"1, " * (LARGE_BYTES // 3 + 1)}{last}]{spaces}}}')
        )

    monkeypatch.setattr("rules.fingerprint.REMEMBERED", 2)
    first, other, respelled = large(1), large(2), large(1, "  ")
    assert print_of(first) == print_of(respelled) != print_of(other)
    assert print_of(msgspec.structs.replace(first, agent="bob")) != print_of(first)
    plain = msgspec.structs.replace(first, body=msgspec.structs.replace(first.body, sha256=b""))
    assert print_of(plain) == print_of(first), "remembered or not"
    monkeypatch.setattr("rules.fingerprint._whole", lambda *_: pytest.fail("it was read again"))
    assert print_of(first) != print_of(msgspec.structs.replace(first, agent="bob"))
