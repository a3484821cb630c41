"""Upstream keys: their value, where they stand, and what is in the way of putting them there."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.call import Body, Call
from rules.decision import Decision
from rules.problems import RuleFileError
from rules.upstream_key import LONGEST_KEY, PLACES, RETENTION_NS, Place, SentKey, UpstreamKey, first_key, obstacle
from tests.rules.world import LOST, OK, World, answered, call, form_body, rules

WHERE = UpstreamKey("X-Key")


def made(call_id: str) -> str:
    key = first_key(WHERE, call(), call_id, 7)
    assert key is not None
    assert (key.name, key.place, key.since_ns) == ("X-Key", "header", 7)
    return key.value


@given(st.text())
def test_it_is_a_uuid_in_its_usual_form(call_id: str) -> None:
    """Some APIs take no other form, and look at the version, too."""
    parsed = uuid.UUID(made(call_id))
    assert str(parsed) == made(call_id)
    assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_each_call_has_another() -> None:
    assert len({made(f"call-{n}") for n in range(1000)}) == 1000


def test_it_stays_the_same_in_every_version_of_the_program() -> None:
    assert made("c_01k9") == "9aafb904-2b62-43b8-908b-f429d5b09f25"


@given(st.integers(0, 2 * RETENTION_NS))
def test_it_is_relied_on_for_less_than_the_api_promises(age_ns: int) -> None:
    assert WHERE.remembers(SentKey("x-key", "v", 5), 5 + age_ns) is (10 * age_ns < 9 * RETENTION_NS)


JSON = {"body": '{"a": 1, "k": %s}'}
BODY = UpstreamKey("k", place="body")
QUERY = UpstreamKey("k", place="query")


@pytest.mark.parametrize(
    ("where", "asked"),
    [
        (WHERE, call(headers=(("x-key", "own"),))),
        (QUERY, call(query=(("a", "1"), ("k", "own")))),
        (BODY, call(body='{"k": "own", "n": {"k": "other"}}')),
        (BODY, call(body=form_body(("a", "1"), ("k", "own")))),
    ],
    ids=["a header", "the query", "a member of the object", "a field of the form"],
)
def test_a_key_that_the_client_chose_stays(where: UpstreamKey, asked: Call) -> None:
    key = first_key(where, asked, "c_1", 7)
    assert key == SentKey(where.name, "own", 7, where.place)
    assert obstacle(key, asked) == ""


@pytest.mark.parametrize(
    ("where", "asked"),
    [
        (WHERE, call(headers=(("x-key", ""),))),
        (QUERY, call(query=(("k", ""),))),
        (QUERY, call(body='{"k": "own"}')),
        (BODY, call(query=(("k", "own"),), body="{}")),
        (BODY, call(body='{"k": null}')),
        (BODY, call(body='{"k": ""}')),
        (BODY, call(body='{"n": {"k": "own"}}')),
        (BODY, call(body=form_body(("a", "1"), ("n[k]", "own")))),
    ],
)
def test_without_one_the_key_is_made(where: UpstreamKey, asked: Call) -> None:
    key = first_key(where, asked, "c_01k9", 7)
    assert key is not None
    assert key.value == made("c_01k9")


@pytest.mark.parametrize(
    "asked",
    [
        call(body='{"k": 7}'),
        call(body='{"k": true}'),
        call(body='{"k": ["own"]}'),
        call(body='{"k": "caf\u00e9"}'),
        call(body=f'{{"k": "{"x" * (LONGEST_KEY + 1)}"}}'),
        call(body=form_body(("k", "one"), ("k", "two"))),
    ],
)
def test_what_cannot_be_sent_again_is_not_relied_on(asked: Call) -> None:
    assert first_key(BODY, asked, "c_1", 7) is None


def bodied(kind: Any, **given: Any) -> Call:
    return call(body=Body(kind, "x/y", size_bytes=5, sha256=b"x", **given))


@pytest.mark.parametrize(
    ("asked", "why_not"),
    [
        (call(), "its body is no JSON object and no form"),
        (call(body="[1]"), "its body is no JSON object and no form"),
        (bodied("text", text="hello"), "its body is no JSON object and no form"),
        (bodied("multipart"), "its body is no JSON object and no form"),
        (bodied("undecodable", problem="not JSON"), "its body is no JSON object and no form"),
        (call(body="{}", headers=(("content-encoding", "gzip"),)), "its body is compressed"),
        (call(body="{}", headers=(("content-md5", "x"),)), "its header `content-md5` says what the body is"),
        (call(body="{}", headers=(("authorization", "AWS4-HMAC-SHA256 x"),)), "it is signed as a whole"),
        (call(body="{}", headers=(("content-encoding", "Identity"),)), ""),
        (call(body='{"k": "v"}', headers=(("content-encoding", "gzip"),)), ""),
        (call(body="{}"), ""),
        (call(body=form_body(("a", "1"))), ""),
    ],
)
def test_what_is_in_the_way_of_a_key_in_the_body(asked: Call, why_not: str) -> None:
    assert obstacle(SentKey("k", "v", 0, "body"), asked) == why_not
    in_the_query = "it is signed as a whole" if "signed" in why_not else ""
    assert obstacle(SentKey("k", "v", 0, "query"), asked) == in_the_query
    assert obstacle(SentKey("k", "v", 0), asked) == ""


@pytest.mark.parametrize("place", PLACES)
def test_a_message_in_a_websocket_carries_no_key(place: Place) -> None:
    asked = call("MESSAGE", body='{"k": "v"}', scheme="wss")
    assert obstacle(SentKey("k", "v", 0, place), asked) == "it is a message in a WebSocket"


RULES = """
tools:
  pay: {match: POST https://api.example.com/pay, upstream_key: {body: k, retention: 2h}}
  move: {match: POST https://api.example.com/move, upstream_key: {query: k}}
rules: [{id: once, tool: [pay, move], allow: true, dedupe: 1h}]
"""


def pay(key: str = "", more: str = "", path: str = "/pay") -> Call:
    place: Place = "body" if path == "/pay" else "query"
    if place == "query":
        return call(path=path, body='{"n": 1}', query=(("k", key),) if key else ())
    return call(path=path, body=f'{{"n": 1{f', "k": "{key}"' if key else ""}{more}}}')


def sent(decision: Decision) -> tuple[str, str, str]:
    (setting,) = decision.send
    return setting


@pytest.mark.parametrize(("path", "place"), [("/pay", "body"), ("/move", "query")])
def test_the_first_key_goes_out_again_whatever_the_client_draws(path: str, place: str) -> None:
    """What stands in the field tells nothing apart."""
    world = World(RULES)
    first = world.ask(pay("first", path=path))
    assert sent(first) == (place, "k", "first")
    assert first.facts[f"send.{place}.k"] == "first"
    world.end(LOST)
    for key in ("second", "", "third"):
        again = world.ask(pay(key, path=path))
        assert (again.replay_of, sent(again)) == ("call-1", (place, "k", "first"))
        world.end(answered(401))
    assert world.do(pay("fourth", path=path)) == "allow"
    assert world.ask(pay("fifth", path=path)).action == "replay"
    assert world.refold() == world.state


def test_it_is_relied_on_where_it_was_sent() -> None:
    world = World(RULES)
    world.do(pay(), LOST)
    world.ruleset = World(RULES.replace("{body: k, retention: 2h}", "{query: k}")).ruleset
    assert world.ask(pay()).code == "outcome-unknown"


def test_a_key_of_a_client_names_one_act() -> None:
    world = World(RULES)
    world.do(pay("same"))
    refused = world.ask(pay("same", ', "more": 1'))
    assert (refused.code, refused.violations[0].field) == ("key-reused", "body.k")
    assert "`body.k`" in refused.detail


def test_a_call_that_cannot_carry_its_key_is_refused() -> None:
    world = World(RULES)
    refused = world.ask(call(path="/pay", body="[1]"))
    assert (refused.code, refused.executed, refused.changes) == ("parameters-invalid", "no", ())
    assert refused.detail == (
        "The API tells repetitions by `body.k`, which cannot be put into this call: its body is no JSON object and no "
        "form. Nothing was executed."
    )


def test_a_retry_that_cannot_carry_the_first_key_is_refused() -> None:
    world = World(RULES)
    world.do(pay("first"), LOST)
    compressed = (("content-encoding", "gzip"),)
    assert world.ask(call(path="/pay", body='{"n": 1, "k": "other"}', headers=compressed)).code == "parameters-invalid"
    assert world.do(call(path="/pay", body='{"n": 1, "k": "first"}', headers=compressed), OK) == "allow"


@pytest.mark.parametrize(
    ("said", "more", "message"),
    [
        ("{retention: 1h}", "", "the upstream key has no `header`, `query` or `body`"),
        ("{header: X-Key, body: k}", "", "the upstream key stands in two places"),
        ("{body: a.b}", "", "`a.b` is not the name of a field"),
        ("{query: 'a[b]'}", "", "`a[b]` is not the name of a field"),
        ("{header: 'a b'}", "", "`a b` is not the name of a header"),
        ("Authorization", "", "`Authorization` has another meaning, so it can not hold a key"),
        ("{query: api_key}", "", "`api_key` has another meaning, so it can not hold a key"),
        ("{query: token}", ", credential: query.token", "`token` has another meaning, so it can not hold a key"),
        ("{body: k}", ", body: multipart", "the tool says `body: multipart`, which has no field for a key"),
        ("{body: k, window: 1h}", "", "`window` is not a key of an upstream key"),
        ("{body: k, retention: soon}", "", "`retention` is no duration"),
        ("{body: [k]}", "", "`upstream_key` has to be a text, not a list"),
    ],
)
def test_what_is_wrong_with_a_tool_is_said(said: str, more: str, message: str) -> None:
    with pytest.raises(RuleFileError) as refused:
        rules(f"tools: {{pay: {{match: POST https://api.example.com/pay, upstream_key: {said}{more}}}}}\nrules: []")
    assert [problem.message for problem in refused.value.problems] == [message]
