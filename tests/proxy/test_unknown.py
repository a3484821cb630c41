"""Calls whose outcome nobody knows, through a real proxy: how often the upstream is asked, and under which key."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.rulefiles import read
from proxy.server import Proxy
from tests.proxy.conftest import Hit, answer

RULES = """
version: 1
tools:
  pay: {match: POST {origin}/pay, upstream_key: Idempotency-Key}
  item: {match: "POST {origin}/items/{id}", upstream_key: Idempotency-Key}
  say: POST {origin}/say
rules:
  - {id: once, tool: [pay, say], allow: true, dedupe: 1h}
  - {id: item, tool: item, allow: true, dedupe: {window: 1h, key: path.id}}
"""
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
PAYMENT = {"amount": 5}


def keys(hits: list[Hit]) -> list[list[str]]:
    """The keys that the upstream saw, of each request."""
    return [[value for name, value in hit.headers if name == "idempotency-key"] for hit in hits]


def answers(here: Any, *replies: bytes) -> None:
    """The upstream gives these answers, one after another; an empty one is a connection that breaks."""
    left = list(replies)

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        reply = left.pop(0)
        if not reply:
            writer.transport.abort()
        return reply

    here.upstream.respond = respond


def changes(ledger: Path, kind: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        rows = connection.execute("select rest ->> '$.changes' from entries where kind = ? order by seq", (kind,))
        return [change for (text,) in rows for change in json.loads(text or "[]")]
    finally:
        connection.close()


def outcomes(ledger: Path) -> list[tuple[str, str | None]]:
    """Every call's decision and its outcome, as last heard of."""
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        return connection.execute("select decision, outcome from calls order by seq").fetchall()
    finally:
        connection.close()


async def test_a_lost_outcome_is_asked_for_again_under_the_first_key(world: Any) -> None:
    here = await world(RULES)
    answers(here, answer(500), b"", answer(200, b'{"paid": 1}'))
    async with here.client() as client:
        got = [await client.post("/pay", json=PAYMENT, headers={"Idempotency-Key": f"try-{n}"}) for n in range(5)]
    assert [each.status_code for each in got] == [500, 502, 200, 200, 200]
    assert keys(here.upstream.hits) == [["try-0"]] * 3
    assert got[3].content == got[4].content == b'{"paid": 1}'
    assert "idempotent-replayed" in got[3].headers
    await here.proxy.stop()
    calls = outcomes(here.ledger)
    assert [decision for decision, _ in calls] == ["allow"] * 3 + ["replay"] * 2
    assert [outcome for _, outcome in calls] == ["done"] * 3 + [None] * 2, "the first two are no longer in doubt"


async def test_without_a_key_it_is_not_sent_again(world: Any) -> None:
    here = await world(RULES)
    answers(here, b"")
    async with here.client() as client:
        got = [await client.post("/say", json=PAYMENT) for _ in range(3)]
    assert [each.status_code for each in got] == [502, 409, 409]
    assert [each.json()["code"] for each in got[1:]] == ["outcome-unknown"] * 2
    assert got[1].json()["executed"] == "unknown"
    assert got[1].headers["x-should-retry"] == "false"
    assert keys(here.upstream.hits) == [[]]


async def test_the_key_is_on_record_before_the_upstream_sees_it(world: Any) -> None:
    here = await world(RULES)
    recorded: list[dict[str, Any]] = []

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        recorded.extend(await asyncio.to_thread(changes, here.ledger, "decision"))
        return answer(200)

    here.upstream.respond = respond
    async with here.client() as client:
        await client.post("/pay", json=PAYMENT)
    ((key,),) = keys(here.upstream.hits)
    assert UUID.fullmatch(key)
    claims = [change for change in recorded if change["guard"] == "dedupe"]
    assert [(change["op"], change["data"]["upstream_key"]["value"]) for change in claims] == [("claim", key)]


@pytest.mark.parametrize("status", [401, 409, 422, 429])
async def test_a_retry_that_is_refused_does_not_end_the_doubt(world: Any, status: int) -> None:
    here = await world(RULES)
    answers(here, b"", answer(status, b"{}", ("Retry-After", "0")), answer(200))
    async with here.client() as client:
        got = [await client.post("/pay", json=PAYMENT) for _ in range(3)]
    assert [each.status_code for each in got] == [502, status, 200]
    first, *others = keys(here.upstream.hits)
    assert others == [first] * 2


async def test_the_answer_to_the_first_attempt_ends_it(world: Any) -> None:
    """The API says that it declined then: nothing was executed, and the next try is another act, with another key."""
    here = await world(RULES)
    answers(here, b"", answer(402, b"{}", ("Idempotent-Replayed", "true")), answer(200))
    async with here.client() as client:
        got = [await client.post("/pay", json=PAYMENT) for _ in range(3)]
    assert [each.status_code for each in got] == [502, 402, 200]
    first, second, third = keys(here.upstream.hits)
    assert first == second != third


async def test_a_new_act_has_a_new_key(world: Any) -> None:
    here = await world(RULES)
    async with here.client() as client:
        for amount in range(3):
            await client.post("/pay", json={"amount": amount})
    assert len({key for (key,) in keys(here.upstream.hits)}) == 3


async def body() -> AsyncIterator[bytes]:
    for n in range(3):
        yield b"%d" % n * 70_000


@pytest.mark.parametrize("http2", [False, True])
async def test_a_streamed_body_goes_out_under_the_key_too(world: Any, http2: bool) -> None:
    here = await world(RULES)
    answers(here, b"", answer(200))
    async with here.client(http2=http2) as client:
        got = [
            await client.post(
                "/items/7", content=body(), headers={"idempotency-key": f"try-{n}", "content-length": "210000"}
            )
            for n in range(3)
        ]
    assert [each.status_code for each in got] == [502, 200, 200]
    assert {each.http_version for each in got} == {"HTTP/2" if http2 else "HTTP/1.1"}
    assert keys(here.upstream.hits) == [["try-0"]] * 2
    assert [len(hit.body) for hit in here.upstream.hits] == [210_000] * 2


@pytest.mark.parametrize("http2", [False, True])
async def test_a_buffered_body_over_either_http(world: Any, http2: bool) -> None:
    here = await world(RULES)
    answers(here, b"", answer(200))
    async with here.client(http2=http2) as client:
        for _ in range(2):
            await client.post("/pay", json=PAYMENT)
    (first,), (second,) = keys(here.upstream.hits)
    assert UUID.fullmatch(first)
    assert first == second
    assert [hit.body for hit in here.upstream.hits] == [b'{"amount":5}'] * 2


TWO_READINGS = {
    "two keys": [("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
    "a key for the next hop only": [("Connection", "idempotency-key"), ("Idempotency-Key", "a")],
}


@pytest.mark.parametrize("headers", TWO_READINGS.values(), ids=list(TWO_READINGS))
async def test_a_key_that_can_be_read_in_two_ways_is_refused(world: Any, headers: list[tuple[str, str]]) -> None:
    here = await world(RULES)
    async with here.client() as client:
        got = await client.post("/pay", json=PAYMENT, headers=httpx.Headers(headers))
    assert (got.status_code, got.json()["code"], here.upstream.hits) == (400, "ambiguous-request", [])


async def test_the_key_outlives_the_program(world: Any) -> None:
    here = await world(RULES)
    answers(here, answer(500), answer(200))
    async with here.client() as client:
        await client.post("/pay", json=PAYMENT)
    await here.proxy.stop()
    second = Proxy(here.settings, read(here.settings.rules, here.directory))
    await second.start()
    try:
        async with here.client(proxy=f"http://127.0.0.1:{second.address[1]}") as client:
            got = [await client.post("/pay", json=PAYMENT) for _ in range(2)]
    finally:
        await second.stop()
    assert [each.status_code for each in got] == [200, 200]
    first, again = keys(here.upstream.hits)
    assert first == again


# --- clients that do not wait ----------------------------------------------------------------------------------------

IMPATIENT = httpx.Timeout(20, read=0.15)


class Slow:
    """An upstream that acts at once and answers when `go` is set."""

    def __init__(self, here: Any) -> None:
        self.effects = 0
        self.arrived, self.go = asyncio.Event(), asyncio.Event()
        here.upstream.respond = self.respond

    async def respond(self, hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        self.effects += 1
        effect = self.effects
        self.arrived.set()
        await self.go.wait()
        return answer(200, b'{"refund": %d}' % effect)


async def gives_up(here: Any, slow: Slow, path: str, key: str) -> None:
    """A client that does not wait for the answer, but for the first call to arrive: its whole connection goes."""
    headers = {"Idempotency-Key": key}
    async with here.client(timeout=IMPATIENT if slow.arrived.is_set() else 20) as client:
        call = asyncio.create_task(client.post(path, json=PAYMENT, headers=headers))
        if not slow.arrived.is_set():
            await slow.arrived.wait()
            call.cancel()
        with pytest.raises((httpx.ReadTimeout, asyncio.CancelledError)):
            await call


@pytest.mark.parametrize("path", ["/pay", "/say"])
async def test_the_commonest_doubled_effect(world: Any, path: str) -> None:
    """A client with a short timeout, a slow upstream, three retries: one effect, and the last gets the first answer."""
    here = await world(RULES)
    slow = Slow(here)
    for n in range(3):
        await gives_up(here, slow, path, f"try-{n}")
    async with here.client(timeout=20) as client:
        last = asyncio.create_task(client.post(path, json=PAYMENT))
        slow.go.set()
        got = await last
    assert (got.status_code, got.content) == (200, b'{"refund": 1}')
    assert got.headers["idempotent-replayed"] == "true"
    assert slow.effects == 1
    assert keys(here.upstream.hits) == [["try-0"]]


async def test_a_client_that_leaves_during_a_retry(world: Any) -> None:
    """The retry is finished without it, as a first call is."""
    here = await world(RULES)
    answers(here, b"")
    async with here.client() as client:
        assert (await client.post("/pay", json=PAYMENT)).status_code == 502
    slow = Slow(here)
    for n in range(2):
        await gives_up(here, slow, "/pay", f"try-{n}")
    async with here.client(timeout=20) as client:
        last = asyncio.create_task(client.post("/pay", json=PAYMENT))
        slow.go.set()
        got = await last
    assert (got.status_code, got.content) == (200, b'{"refund": 1}')
    first, second = keys(here.upstream.hits)
    assert first == second


async def test_a_crowd_of_retries_goes_out_one_by_one(world: Any) -> None:
    """Twins of an unknown call: one retries, the others wait for it and get its answer."""
    here = await world(RULES)
    answers(here, b"", answer(200, b'{"paid": 1}'))
    async with here.client(timeout=20) as client:
        assert (await client.post("/pay", json=PAYMENT)).status_code == 502
        got = await asyncio.gather(*[client.post("/pay", json=PAYMENT) for _ in range(16)])
    assert {(each.status_code, each.content) for each in got} == {(200, b'{"paid": 1}')}
    first, second = keys(here.upstream.hits)
    assert first == second
