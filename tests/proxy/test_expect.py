"""Answers that are no success by what their tool expects, through a real proxy."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from proxy.exchange import ANSWER_CAP_BYTES
from tests.proxy.conftest import Hit, answer

RULES = """
version: 1
tools:
  say: {match: POST {origin}/say, expect: {body.ok: true, otherwise: not_executed, show_as: 422}}
  done: {match: POST {origin}/done, expect: {body.ok: true, otherwise: done, show_as: 422}}
  plain: {match: POST {origin}/plain, expect: {body.ok: true}}
  told:
    match: POST {origin}/told
    expect: {body.ok: true, not_executed_if: {body.error: {not_in: [internal_error]}}}
rules:
  - {id: once, tool: [say, done, plain, told], allow: true, dedupe: 1h}
"""
NO = b'{"ok": false, "error": "not_in_channel"}'


def answers(here: Any, *replies: bytes) -> None:
    left = list(replies)

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        return left.pop(0)

    here.upstream.respond = respond


def calls(ledger: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        return connection.execute("select outcome, status, expected, error from calls order by seq").fetchall()
    finally:
        connection.close()


def chunked(body: bytes, content_type: str = "application/json") -> bytes:
    """An answer that does not say how long it is."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("reply", [answer(200, NO), chunked(NO)], ids=["length", "chunked"])
async def test_a_failure_is_shown_recorded_and_not_replayed(world: Any, reply: bytes) -> None:
    here = await world(RULES)
    answers(here, reply, answer(200, b'{"ok": true}'))
    async with here.client() as client:
        first, second, third = [await client.post("/say", json={"text": "a"}) for _ in range(3)]
    assert (first.status_code, first.reason_phrase, first.content) == (422, "The API reported a failure", NO)
    assert first.headers["x-should-retry"] == "false"
    assert "received-status=200" in first.headers["proxy-status"]
    assert [second.status_code, third.status_code] == [200, 200]
    assert "idempotent-replayed" in third.headers
    assert len(here.upstream.hits) == 2
    await here.proxy.stop()
    assert calls(here.ledger)[:2] == [
        ("not_executed", 200, "failed", "not as expected: body.ok eq true"),
        ("done", 200, "met", None),
    ]


async def test_a_failure_that_was_executed_is_replayed_as_it_was_shown(world: Any) -> None:
    here = await world(RULES)
    answers(here, answer(200, NO))
    async with here.client() as client:
        got = [await client.post("/done", json={}) for _ in range(2)]
    assert [(each.status_code, each.content) for each in got] == [(422, NO)] * 2
    assert "idempotent-replayed" in got[1].headers
    assert len(here.upstream.hits) == 1


async def test_a_failure_is_handed_on_as_it_is_unless_the_tool_says_otherwise(world: Any) -> None:
    here = await world(RULES)
    answers(here, answer(200, NO))
    async with here.client() as client:
        first, second = [await client.post("/plain", json={}) for _ in range(2)]
    assert (first.status_code, first.content) == (200, NO)
    assert (second.status_code, second.json()["code"], second.json()["executed"]) == (409, "outcome-unknown", "unknown")
    assert len(here.upstream.hits) == 1


@pytest.mark.parametrize(("error", "sent"), [("not_in_channel", 2), ("internal_error", 1)])
async def test_what_the_api_says_of_a_failure_decides_whether_it_is_made_again(
    world: Any, error: str, sent: int
) -> None:
    here = await world(RULES)
    answers(here, answer(200, b'{"ok": false, "error": "%s"}' % error.encode()), answer(200, b'{"ok": true}'))
    async with here.client() as client:
        first, second = [await client.post("/told", json={}) for _ in range(2)]
    assert (first.status_code, first.json()["error"]) == (200, error)
    assert second.status_code == (200 if sent == 2 else 409)
    assert len(here.upstream.hits) == sent


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (chunked(b"data: x\n\n", "text/event-stream"), b"data: x\n\n"),
        (answer(200, b'{"ok": tru'), b'{"ok": tru'),
        (chunked(b'"%s"' % (b"a" * ANSWER_CAP_BYTES)), b'"%s"' % (b"a" * ANSWER_CAP_BYTES)),
        (answer(200, b'"%s"' % (b"a" * ANSWER_CAP_BYTES)), b'"%s"' % (b"a" * ANSWER_CAP_BYTES)),
    ],
    ids=["stream", "broken", "large and chunked", "large"],
)
async def test_what_can_not_be_told_passes_as_it_is_and_is_not_called_failed(
    world: Any, reply: bytes, body: bytes
) -> None:
    here = await world(RULES)
    answers(here, reply)
    async with here.client() as client:
        first = await client.post("/say", json={})
        second = await client.post("/say", json={})
    assert (first.status_code, first.content) == (200, body)
    assert second.json()["code"] == "outcome-unknown", "whether it was executed nobody knows"
    await here.proxy.stop()
    assert next(row[:3] for row in calls(here.ledger)) == ("unknown", 200, "unclear")


async def test_the_first_event_of_a_stream_is_not_held_back(world: Any) -> None:
    """Its type says that there is nothing to read, so nobody waits for its end."""
    here = await world(RULES)
    seen = asyncio.Event()

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"3\r\none\r\n")
        await writer.drain()
        await asyncio.wait_for(seen.wait(), 10)
        return b"3\r\ntwo\r\n0\r\n\r\n"

    here.upstream.respond = respond
    async with here.client() as client, client.stream("POST", "/say", json={}) as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"one"
        seen.set()
        assert [piece async for piece in pieces] == [b"two"]
