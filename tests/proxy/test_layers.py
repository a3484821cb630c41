"""Where our HTTP layer differs from mitmproxy's: clients that leave, streams, uploads, framing, side doors."""

from __future__ import annotations

import asyncio
import resource
import ssl
from typing import Any

import httpx
import pytest

from proxy.launch import summary

RULES = """
version: 1
tools:
  pay: POST {origin}/pay
  up: POST {origin}/up
  look: GET|HEAD {origin}/**
rules:
  - {id: look, tool: look, allow: true}
  - {id: up, tool: up, allow: true}
  - {id: pay, tool: pay, allow: true, dedupe: 1h}
"""


async def test_a_client_that_leaves_early_finds_the_first_answer_when_it_retries(world: Any) -> None:
    here = await world(RULES)
    arrived, finish = asyncio.Event(), asyncio.Event()

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await finish.wait()
        return b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"id": 1}'

    here.upstream.respond = respond
    async with here.client() as client:
        leaving = asyncio.create_task(client.post("/pay", json={"amount": 5}))
        await arrived.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    async with here.client(timeout=20) as client:
        retry = asyncio.create_task(client.post("/pay", json={"amount": 5}))
        finish.set()
        got = await retry
    assert (got.status_code, got.content) == (200, b'{"id": 1}')
    assert got.headers["idempotent-replayed"] == "true"
    assert len(here.upstream.hits) == 1


async def test_events_of_a_stream_arrive_one_by_one(world: Any) -> None:
    """The upstream sends the next event only when the client has got the one before: buffering would hang."""
    here = await world(RULES)
    got_one = asyncio.Event()

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.wait_for(got_one.wait(), 10)
            got_one.clear()
        return b"0\r\n\r\n"

    here.upstream.respond = respond
    events = []
    async with here.client(timeout=20) as client, client.stream("GET", "/events") as answer:
        async for chunk in answer.aiter_text():
            events.append(chunk)
            got_one.set()
    assert events == [f"data: {number}\n\n" for number in range(5)]


async def test_a_large_upload_that_no_rule_reads_streams_through(world: Any) -> None:
    here = await world(RULES)
    size = 64 * 1024 * 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def body() -> Any:
        for _ in range(size // 65536):
            yield bytes(65536)

    seen = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d" % size in head.lower()
        while seen < size:
            seen += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0, ssl=here.upstream.tls)
    port = server.sockets[0].getsockname()[1]
    other = await world_with_port(here, port)
    async with other.client(timeout=60) as client:
        got = await client.post("/up", content=body(), headers={"content-length": str(size)})
    server.close()
    assert (got.status_code, seen) == (204, size)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < size // 2


async def world_with_port(here: Any, port: int) -> Any:
    """The same world, its rules and its client turned to another upstream port."""
    text = (here.directory / "rules.yaml").read_text().replace(str(here.upstream.port), str(port))
    (here.directory / "rules.yaml").write_text(text)
    from proxy.rulefiles import read

    files = read(here.settings.rules, here.directory)
    here.proxy._gate.use(files.loaded.ruleset, files.files)
    here.upstream.port = port
    return here


async def test_a_100_mb_body_that_a_rule_needs_is_refused_and_nothing_of_it_leaves(world: Any) -> None:
    here = await world(RULES)

    async def body() -> Any:
        for _ in range(100):
            yield bytes(1_000_000)

    async with here.client(timeout=60) as client:
        told = await client.post("/pay", content=bytes(20_000_000))
        untold = await client.post("/pay", content=body())
    for got in (told, untold):
        assert (got.status_code, got.json()["code"]) == (413, "body-too-large")
    assert (here.upstream.hits, here.upstream.connections) == ([], 0)


async def test_a_refused_connection_leaves_nothing_behind_and_may_be_tried_again(world: Any) -> None:
    here = await world(RULES)
    await here.upstream.stop()
    async with here.client() as client:
        for _ in range(2):
            got = await client.post("/pay", json={"amount": 5})
            assert (got.status_code, got.json()["code"], got.json()["executed"]) == (502, "upstream-failed", "no")
    assert summary(here.proxy.counts, here.proxy.unanswered) == "2 calls · 2 allowed · 2 got no answer"


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_an_upstream_that_breaks_off_leaves_an_unknown_outcome_that_blocks(world: Any, begun: bytes) -> None:
    here = await world(RULES)

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        writer.write(begun)
        await writer.drain()
        writer.transport.abort()
        return b""

    here.upstream.respond = respond
    async with here.client() as client:
        first = await client.post("/pay", json={"amount": 5})
        again = await client.post("/pay", json={"amount": 5})
    assert (first.status_code, first.json()["executed"]) == (502, "unknown")
    assert (again.status_code, again.json()["code"], again.json()["executed"]) == (409, "outcome-unknown", "unknown")
    assert len(here.upstream.hits) == 1


async def test_an_upstream_that_switches_protocols_unasked_is_cut(world: Any) -> None:
    here = await world(RULES)

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        return b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw bytes"

    here.upstream.respond = respond
    async with here.client() as client:
        got = await client.get("/x")
    assert (got.status_code, got.json()["executed"]) == (502, "unknown")


async def raw(here: Any, request: bytes, *, tls: bool = True, sni: str = "localhost") -> bytes:
    """What comes back for raw bytes sent through a tunnel to the upstream."""
    host, port = here.proxy.address
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"CONNECT localhost:{here.upstream.port} HTTP/1.1\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    if tls:
        trust = ssl.create_default_context(cafile=str(here.proxy.ca_path))
        trust.check_hostname = False
        await writer.start_tls(trust, server_hostname=sni)
    writer.write(request)
    await writer.drain()
    try:
        got = await asyncio.wait_for(reader.read(65536), 10)
    finally:
        writer.close()
    return got


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /a HTTP/1.1\r\nHost: other.example\r\n\r\n",
        b"GET /a HTTP/1.1\r\n\r\n",
        b"GET http://other.example/a HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost:PORT\r\nHost: localhost:PORT\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost:PORT\r\nX: a\r\n b\r\n\r\n",
        b"POST /up HTTP/1.1\r\nHost: localhost:PORT\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /up HTTP/1.1\r\nHost: localhost:PORT\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /up HTTP/1.1\r\nHost: localhost:PORT\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost:PORT\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n",
        b"GET /../a HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n",
        b"get /a HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n",
        b"\x00\x01\x02 raw bytes\r\n\r\n",
    ],
)
async def test_what_is_ambiguous_or_no_http_never_touches_the_upstream(world: Any, request_bytes: bytes) -> None:
    here = await world(RULES)
    got = await raw(here, request_bytes.replace(b"PORT", str(here.upstream.port).encode()))
    assert got == b"" or got.split(b" ")[1] in (b"400", b"403"), got[:200]
    assert (here.upstream.hits, here.upstream.connections) == ([], 0)


async def test_an_sni_that_names_another_host_is_refused(world: Any) -> None:
    here = await world(RULES)
    request = f"GET /a HTTP/1.1\r\nHost: localhost:{here.upstream.port}\r\n\r\n".encode()
    got = await raw(here, request, sni="other.example")
    assert got.split(b" ")[1] == b"400"
    assert here.upstream.connections == 0


async def test_cleartext_in_a_tunnel_is_not_taken_for_https(world: Any) -> None:
    here = await world(RULES)
    request = f"GET /a HTTP/1.1\r\nHost: localhost:{here.upstream.port}\r\n\r\n".encode()
    got = await raw(here, request, tls=False)
    assert got.split(b" ")[1] == b"403"
    assert here.upstream.connections == 0


async def test_a_wildcard_never_reaches_a_private_address(world: Any) -> None:
    here = await world("version: 1\nrules:\n  - {id: any, match: 'GET https://**', allow: true}\n")
    async with here.client() as client:
        got = await client.get("/a")
    assert (got.status_code, got.json()["code"], got.json()["executed"]) == (403, "destination-refused", "no")
    assert (here.upstream.hits, here.upstream.connections) == ([], 0)


async def test_the_proxy_never_calls_itself(world: Any) -> None:
    here = await world(RULES)
    host, port = here.proxy.address
    text = f"version: 1\nrules:\n  - {{id: any, match: 'GET http://{host}:{port}/**', allow: true}}\n"
    (here.directory / "rules.yaml").write_text(text)
    from proxy.rulefiles import read

    files = read(here.settings.rules, here.directory)
    here.proxy._gate.use(files.loaded.ruleset, files.files)
    async with httpx.AsyncClient(proxy=here.proxy_url) as client:
        got = await client.get(f"http://{host}:{port}/a")
    assert (got.status_code, got.json()["code"]) == (403, "destination-refused")


async def test_http2_clients_are_decided_alike(world: Any) -> None:
    here = await world(RULES)
    async with here.client(http2=True) as client:
        first = await client.post("/pay", json={"amount": 5})
        again = await client.post("/pay", json={"amount": 5})
        refused = await client.put("/pay", json={"amount": 5})
    assert first.http_version == "HTTP/2"
    assert again.headers["idempotent-replayed"] == "true"
    assert (refused.status_code, refused.json()["code"]) == (403, "no-allow")
    assert len(here.upstream.hits) == 1
