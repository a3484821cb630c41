"""What clients and APIs do with HTTP beyond a plain request: ranges, HEAD, 100-continue, chunks, keep-alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.proxy.conftest import Hit, MakeWorld, World, answer
from tests.proxy.test_attacks import Tunnel, Wire, recorded, tunnel

RULES = """
version: 1
rules:
  - {id: look, match: "GET|HEAD {origin}/**", allow: true}
  - {id: up, match: "POST {origin}/up", allow: true}
  - {id: once, match: "POST {origin}/once", allow: true, dedupe: 1h}
"""


@pytest.fixture
async def wire(upstream: Any) -> AsyncIterator[Wire]:
    """In place of the upstream."""
    there = Wire(upstream.tls)
    await there.start()
    upstream.port = there.port
    yield there
    there.stop()


RANGES = [
    ("a part", "bytes=2-3", 206, b"23", (("Content-Range", "bytes 2-3/10"),)),
    ("the end", "bytes=-1", 206, b"9", (("Content-Range", "bytes 9-9/10"),)),
    ("nothing that is there", "bytes=20-", 416, b"", (("Content-Range", "bytes */10"),)),
    ("two parts", "bytes=0-0,2-2", 206, b"--x\r\n\r\n0\r\n--x\r\n\r\n2\r\n--x--", (("X", "multipart"),)),
    ("a part of something large", "bytes=0-299999", 206, b"x" * 300_000, (("Content-Range", "bytes 0-299999/400000"),)),
]


@pytest.mark.parametrize(("case", "asked", "status", "body", "headers"), RANGES, ids=[case[0] for case in RANGES])
async def test_ranges_pass(
    world: MakeWorld, upstream: Any, case: str, asked: str, status: int, body: bytes, headers: Any
) -> None:
    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        assert (hit.header("range"), hit.header("if-range")) == (asked, '"v1"')
        return answer(status, body, *headers)

    upstream.respond = respond
    here = await world(RULES)
    async with here.client() as client:
        got = await client.get("/file", headers={"Range": asked, "If-Range": '"v1"'})
    assert (got.status_code, got.content) == (status, body)
    assert {name: got.headers[name] for name, _ in headers} == dict(headers)


async def test_the_answer_to_head_has_a_length_and_no_body(world: MakeWorld, wire: Wire) -> None:
    """The next answer is not taken for its body."""

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"HEAD"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        elif b"If-None-Match" in head:
            writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1073741824\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    wire.answering = answering
    client = await tunnel(await world(RULES))
    for request in (
        b"HEAD /a HTTP/1.1\r\nHost: HOST\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nIf-None-Match: x\r\n\r\n",
    ):
        await client.send(request)
        head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
        assert b"1073741824" in head
        await client.send(b"GET /b HTTP/1.1\r\nHost: HOST\r\n\r\n")
        assert await client.answer() == (200, b"ok")


async def test_one_connection_serves_many_calls(world: MakeWorld, wire: Wire) -> None:
    here = await world(RULES)
    client = await tunnel(here)
    for number in range(150):
        await client.send(b"GET /%d HTTP/1.1\r\nHost: HOST\r\n\r\n" % number)
        assert await client.answer() == (200, b"ok")
    assert wire.connections == 1
    assert wire.lines == [b"GET /%d HTTP/1.1" % number for number in range(150)]


async def test_pipelined_calls_are_decided_and_answered_in_order(world: MakeWorld, wire: Wire) -> None:
    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = head.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    wire.answering = answering
    here = await world(RULES)
    client = await tunnel(here)
    paths = [b"/%d" % number for number in range(20)]
    methods = [b"DELETE" if number % 3 == 0 else b"GET" for number in range(20)]
    await client.send(
        b"".join(b"%b %b HTTP/1.1\r\nHost: HOST\r\n\r\n" % pair for pair in zip(methods, paths, strict=True))
    )
    got = [await client.answer() for _ in paths]
    assert [status for status, _ in got] == [403 if method == b"DELETE" else 200 for method in methods]
    assert [body for status, body in got if status == 200] == [
        path for path, method in zip(paths, methods, strict=True) if method == b"GET"
    ]
    assert [row[0].encode() for row in await recorded(here)] == [
        b" ".join(pair) for pair in zip(methods, paths, strict=True)
    ]


EXPECT = b"POST %b HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize("path", [b"/up", b"/once"])
async def test_a_client_that_waits_to_go_on_is_told_to(world: MakeWorld, wire: Wire, path: bytes) -> None:
    client = await tunnel(await world(RULES))
    await client.send(EXPECT % path)
    assert (await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 100 ")
    await client.send(b"ok")
    assert await client.answer() == (200, b"ok")
    assert bytes(wire.got).endswith(b"\r\n\r\nok")


async def test_a_client_that_waits_to_go_on_is_refused_before_it_sends(world: MakeWorld, wire: Wire) -> None:
    client = await tunnel(await world(RULES))
    await client.send(EXPECT % b"/no")
    assert (await client.answer())[0] == 403
    assert wire.heads == []


async def test_chunks_of_an_upload_pass_as_they_come(world: MakeWorld, wire: Wire) -> None:
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += (data := await reader.read(65536))
            await came.put(data)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    wire.answering = answering
    client = await tunnel(await world(RULES))
    await client.send(b"POST /up HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in (b"first", b"then", b"last"):
        await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        got = b""
        while piece not in got:
            got += await asyncio.wait_for(came.get(), 5)
    await client.send(b"0\r\n\r\n")
    assert await client.answer() == (200, b"ok")


async def test_an_upload_in_chunks_that_is_decided_by_its_body_arrives_whole(world: MakeWorld, wire: Wire) -> None:
    here: World = await world(RULES)
    client: Tunnel = await tunnel(here)
    for _ in range(2):
        await client.send(
            b"POST /once HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert await client.answer() == (200, b"ok")
    assert len(wire.heads) == 1
    assert b"abcde" in bytes(wire.got).replace(b"\r\n", b"").replace(b"5abcde", b"abcde")
