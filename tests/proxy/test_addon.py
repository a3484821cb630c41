"""Calls through a real proxy to a real TLS upstream. What counts is what the upstream saw."""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import proxy.addon
import proxy.gate
import rules.decide
from proxy.ledger.store import Ledger
from proxy.rulefiles import read
from proxy.server import Proxy

JSON = {"content-type": "application/json"}

ALLOW = """
version: 1
tools:
  pay: POST {origin}/pay
  look: GET {origin}/**
rules:
  - {id: look, tool: look, allow: true}
  - {id: pay, tool: pay, allow: true, dedupe: 1h}
  - {id: never, match: "DELETE {origin}/**", deny: Archive it instead.}
"""


def entries(ledger: Path, sql: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(sql)]
    finally:
        connection.close()


async def test_an_allowed_call_reaches_the_upstream_and_its_answer_comes_back(world: Any) -> None:
    here = await world(ALLOW)
    async with here.client() as client:
        got = await client.get("/a?x=1")
    assert (got.status_code, got.json()) == (200, {"n": 1})
    assert [(hit.method, hit.target) for hit in here.upstream.hits] == [("GET", "/a?x=1")]


@pytest.mark.parametrize(
    ("method", "path", "code", "reason"),
    [
        ("DELETE", "/a", "policy-denied", "never"),
        ("PUT", "/a", "no-allow", ""),
        ("POST", "/other", "no-allow", ""),
        ("GET", "//a", "ambiguous-request", ""),
        ("GET", "/%61", "ambiguous-request", ""),
    ],
)
async def test_a_refused_call_never_touches_the_upstream(
    world: Any, method: str, path: str, code: str, reason: str
) -> None:
    here = await world(ALLOW)
    async with here.client() as client:
        got = await client.request(method, here.origin + path)
    problem = got.json()
    assert (problem["code"], problem["executed"]) == (code, "no")
    assert reason in got.reason_phrase
    assert got.headers["x-should-retry"] == "false"
    assert (here.upstream.hits, here.upstream.connections) == ([], 0)


async def test_a_repeated_write_is_answered_with_the_first_answer(world: Any) -> None:
    here = await world(ALLOW)
    async with here.client() as client:
        first = await client.post("/pay", json={"amount": 5, "to": "a"})
        again = await client.post(
            "/pay", content=b'{"to": "a", "amount": 5.0}', headers={"content-type": "application/json"}
        )
        other = await client.post("/pay", json={"amount": 6, "to": "a"})
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert other.json() == {"n": 2}
    assert len(here.upstream.hits) == 2


async def test_64_twins_make_one_effect_and_get_64_equal_answers(world: Any) -> None:
    here = await world(ALLOW)
    arrived, all_sent = asyncio.Event(), asyncio.Event()

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await all_sent.wait()
        return b'HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{"a":1}'

    here.upstream.respond = respond
    async with here.client(limits=httpx.Limits(max_connections=64), timeout=30) as client:
        calls = [asyncio.create_task(client.post("/pay", json={"amount": 5})) for _ in range(64)]
        await arrived.wait()
        all_sent.set()
        answers = await asyncio.gather(*calls)
    assert {(got.status_code, got.content) for got in answers} == {(201, b'{"a":1}')}
    assert len(here.upstream.hits) == 1
    assert sum("idempotent-replayed" in got.headers for got in answers) == 63


async def test_the_decision_is_on_record_before_the_upstream_sees_the_first_byte(world: Any) -> None:
    here = await world(ALLOW)
    seen: list[str] = []
    query = "import sqlite3,sys;print(*sqlite3.connect(f'file:{sys.argv[1]}?mode=ro',uri=True).execute("
    query += "\"select decision,path from entries where kind='decision'\").fetchall())"

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", query, str(here.ledger)], capture_output=True, text=True, check=True
        )
        seen.append(done.stdout.strip())
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    here.upstream.respond = respond
    async with here.client(timeout=30) as client:
        assert (await client.post("/pay", json={"amount": 5})).status_code == 204
    assert seen == ["('allow', '/pay')"]


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        (b'{"amount": 1, "amount": 2}', {"content-type": "application/json"}, "ambiguous-request"),
        (b'{"amount": 1', {"content-type": "application/json"}, "ambiguous-request"),
        (
            gzip.compress(b'{"amount": 1}', mtime=0)[:-6],
            {"content-type": "application/json", "content-encoding": "gzip"},
            "ambiguous-request",
        ),
        (b"x", {"content-type": "application/json", "content-encoding": "rot13"}, "ambiguous-request"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_where_a_rule_needs_it(
    world: Any, content: bytes, headers: dict[str, str], code: str
) -> None:
    here = await world(ALLOW)
    async with here.client() as client:
        got = await client.post("/pay", content=content, headers=headers)
    assert (got.status_code, got.json()["code"]) == (400, code)
    assert here.upstream.hits == []


FAULTS = [
    (proxy.addon, "read_head"),
    (proxy.addon, "read_body"),
    (proxy.addon, "headers_to_strip"),
    (proxy.addon, "needs_of"),
    (rules.decide, "decide"),
    (rules.decide, "apply"),
    (proxy.gate.Gate, "_try"),
    (proxy.gate.Gate, "_record_for_good"),
    (proxy.gate.Gate, "admit"),
    (Ledger, "append"),
    (Ledger, "durable"),
    (proxy.addon.Addon, "_admit"),
    (proxy.addon.Addon, "_decide_on_head"),
    (proxy.addon.Addon, "_decide_on_body"),
    (proxy.addon, "exchange_of"),
]


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, RecursionError, TypeError])
@pytest.mark.parametrize(("place", "name"), FAULTS, ids=[name for _, name in FAULTS])
async def test_error_never_allows(
    world: Any, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, error: type[Exception]
) -> None:
    """Whatever line of the call path raises, the call does not get through."""
    here = await world(ALLOW)

    def fails(*_: object, **__: object) -> Any:
        raise error("injected")

    with monkeypatch.context() as patch:
        patch.setattr(place, name, fails)
        async with here.client(timeout=5) as client:
            try:
                got = await client.post("/pay", json={"amount": 5})
                assert got.status_code == 503
            except httpx.RemoteProtocolError:
                pass  # the connection was closed: nothing left either
    assert (here.upstream.hits, here.upstream.connections) == ([], 0)
    if place is not Ledger:  # one that has failed refuses everything from then on
        async with here.client(timeout=5) as client:
            assert (await client.post("/pay", json={"amount": 5})).status_code == 200
        assert len(here.upstream.hits) == 1


async def test_a_reply_of_ours_is_a_problem_document(world: Any) -> None:
    here = await world(ALLOW)
    async with here.client() as client:
        got = await client.delete("/a")
    assert got.headers["content-type"].startswith("application/problem+json")
    problem = json.loads(got.content)
    assert problem["detail"] and problem["error"]["message"] == problem["message"]
    await here.proxy.stop()
    recorded = entries(here.ledger, "select decision, code, status from calls")
    assert recorded == [{"decision": "deny", "code": "policy-denied", "status": 403}]


async def test_a_duplicate_whose_kept_answer_cannot_be_read_is_told_that_it_was_executed(world: Any) -> None:
    here = await world(ALLOW)
    async with here.client() as client:
        assert (await client.post("/pay", json={"amount": 5})).status_code == 200
    await here.proxy.stop()
    connection = sqlite3.connect(here.ledger)
    connection.execute("UPDATE answers SET sealed = zeroblob(64)")
    connection.commit()
    connection.close()
    again = Proxy(here.settings, read(here.settings.rules, Path.cwd()))
    await again.start()
    try:
        async with here.client(proxy=f"http://127.0.0.1:{again.address[1]}") as client:
            got = await client.post("/pay", json={"amount": 5})
    finally:
        await again.stop()
    assert (got.status_code, got.json()["code"], got.json()["executed"]) == (409, "duplicate-not-replayable", "yes")
    assert len(here.upstream.hits) == 1


async def test_a_kept_answer_is_only_read_where_a_rule_asks_for_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = await world(ALLOW)

    def unread(*_: object) -> Any:
        pytest.fail("nothing asks for it")

    monkeypatch.setattr("proxy.admission.read_answer_body", unread)
    async with here.client() as client:
        first, again = [await client.post("/pay", json={"amount": 5}) for _ in range(2)]
    assert (first.content, again.headers["idempotent-replayed"]) == (again.content, "true")
    assert len(here.upstream.hits) == 1
