"""Attacks on a running proxy, over raw sockets and raw frames. What counts is what the upstream got, byte for byte."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sqlite3
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

import proxy.addon
import proxy.dial
import proxy.exchange
import proxy.layers
import proxy.server
import rules.decide
from proxy.agents import Agents
from proxy.exchange import BUFFERED_CAP_BYTES
from proxy.layers import http_of
from proxy.ledger.store import LedgerError
from proxy.rulefiles import read
from tests.proxy.conftest import until

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

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PAY = (
    b"POST /pay HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
    + b'{"amount": 5}'
)
LOOK = b"GET /a HTTP/1.1\r\nHost: HOST\r\n\r\n"

type Answering = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Wire:
    """A TLS upstream that keeps every byte. `answering` is called with each request's head; by default it says OK."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.tls = tls
        self.heads: list[bytes] = []
        self.got = bytearray()
        self.connections = 0
        self.answering: Answering | None = None
        self.serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.serve is not None:
                return await self.serve(reader, writer)
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.got += head
                if self.answering is not None:
                    await self.answering(head, reader, writer)
                else:
                    self.got += await read_body(head, reader)
                    writer.write(OK)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @property
    def lines(self) -> list[bytes]:
        """The request lines."""
        return [head.split(b"\r\n")[0] for head in self.heads]


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """The body that `head` announces, as it is on the wire."""
    length = re.search(rb"content-length: (\d+)", head.lower())
    if length:
        return await reader.readexactly(int(length[1]))
    if b"transfer-encoding: chunked" in head.lower():
        return await reader.readuntil(b"0\r\n\r\n")
    return b""


@pytest.fixture
async def wire(upstream: Any) -> AsyncIterator[Wire]:
    """In place of the upstream: the same certificate, the port that `{origin}` in the rules stands for."""
    there = Wire(upstream.tls)
    await there.start()
    upstream.port = there.port
    yield there
    there.stop()


def entries(here: Any, sql: str = "select * from calls") -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"file:{here.ledger}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    with contextlib.closing(connection):
        return [dict(row) for row in connection.execute(sql)]


async def recorded(here: Any) -> list[tuple[str, str, str | None]]:
    """What the ledger says of every call, once all is written: method and path, decision or code, outcome."""
    await here.proxy.stop()
    rows = entries(here, "select method, path, decision, code, outcome from calls order by seq")
    return [(f"{row['method']} {row['path']}", row["code"] or row["decision"], row["outcome"] or None) for row in rows]


class Tunnel:
    """A client's connection through the proxy to the upstream."""

    def __init__(self, here: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.host = f"localhost:{here.upstream.port}".encode()
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data.replace(b"HOST", self.host))
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """One answer: its status, and its body as it is on the wire."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        status = int(head.split(b" ")[1])
        return status, b"" if status in (204, 304) else await asyncio.wait_for(read_body(head, self.reader), 5)

    async def rest(self) -> bytes:
        """Everything until the proxy closes the connection."""
        return await asyncio.wait_for(self.reader.read(), 5)

    def leave(self) -> None:
        self.writer.transport.abort()


async def tunnel(here: Any, *, alpn: Iterable[str] = (), auth: bytes = b"", tls: bool = True) -> Tunnel:
    reader, writer = await asyncio.open_connection(*here.proxy.address)
    here.opened.append(writer)
    writer.write(b"CONNECT localhost:%d HTTP/1.1\r\n%s\r\n" % (here.upstream.port, auth))
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    if tls:
        trust = ssl.create_default_context(cafile=str(here.proxy.ca_path))
        if alpn:
            trust.set_alpn_protocols(list(alpn))
        await writer.start_tls(trust, server_hostname="localhost")
    return Tunnel(here, reader, writer)


class H2:
    """A client that speaks HTTP/2 frame by frame, and checks nothing of what it sends."""

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                header_encoding=None,
            )
        )
        self.connection.initiate_connection()
        self.closed = False

    @classmethod
    async def to(cls, here: Any) -> H2:
        one = cls(await tunnel(here, alpn=["h2"]))
        await one.flush()
        return one

    async def flush(self) -> None:
        self.tunnel.writer.write(self.connection.data_to_send())
        await self.tunnel.writer.drain()

    async def begin(
        self,
        method: bytes,
        path: bytes,
        *headers: tuple[bytes, bytes],
        authority: bytes | None = None,
        end: bool = False,
    ) -> int:
        """Send a request's head; the number of its stream."""
        stream = self.connection.get_next_available_stream_id()
        named = [(b":authority", self.tunnel.host if authority is None else authority)]
        pseudo = [(b":method", method), (b":scheme", b"https"), (b":path", path), *named]
        self.connection.send_headers(stream, [*pseudo, *headers], end_stream=end)
        await self.flush()
        return stream

    async def data(self, stream: int, data: bytes, *, end: bool = True) -> None:
        self.connection.send_data(stream, data, end_stream=end)
        await self.flush()

    async def answer(self, stream: int) -> tuple[int, bytes]:
        """The answer on `stream`; status 0 when the stream was reset or the connection closed."""
        status, body = 0, b""
        while not self.closed:
            data = await asyncio.wait_for(self.tunnel.reader.read(65536), 5)
            self.closed = not data
            for event in self.connection.receive_data(data):
                if isinstance(event, h2.events.ConnectionTerminated):
                    self.closed = True
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    assert event.headers is not None
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    assert event.data is not None
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return status, body
                elif isinstance(event, h2.events.StreamReset):
                    return 0, body
            await self.flush()
        return 0, body


def leftovers(here: Any) -> dict[str, int]:
    """What the proxy still remembers of calls and clients, where it is more than nothing."""
    addon, gate, master = here.proxy._addon, here.proxy._gate, here.proxy._master
    sizes = {
        "live": len(addon._live),
        "agents": len(addon._agents),
        "exact": len(addon._exact),
        "waiting": len(gate._room._waiters),
        "clients": len(master._clients),
        "buffered": BUFFERED_CAP_BYTES - addon._pool._left_bytes,
    }
    return {name: size for name, size in sizes.items() if size}


def hold(wire: Wire, answer: bytes = OK) -> tuple[asyncio.Event, asyncio.Event]:
    """Have the upstream wait before it answers: (a request is there, go on)."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.got += await read_body(head, reader)
        arrived.set()
        await go_on.wait()
        writer.write(answer)

    wire.answering = answering
    return arrived, go_on


def say(wire: Wire, answer: bytes, *, close: bool = False) -> None:
    """Have the upstream give these bytes as its answer."""

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.got += await read_body(head, reader)
        writer.write(answer)
        if close:
            await writer.drain()
            writer.close()

    wire.answering = answering


# -- requests that could be read in two ways -------------------------------------------------------------------------

DENIED = b"DELETE /a HTTP/1.1\r\nHost: HOST\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "statuses", "lines"),
    [
        pytest.param(LOOK + DENIED + LOOK, [200, 403, 200], [b"GET /a", b"GET /a"], id="pipelined, second denied"),
        pytest.param(
            b"POST /no HTTP/1.1\r\nHost: HOST\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN + LOOK,
            [403, 200],
            [b"GET /a"],
            id="body of a refused call is no request",
        ),
        pytest.param(
            b"POST /no HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n" + LOOK,
            [403, 200],
            [b"GET /a"],
            id="chunked body of a refused call is no request",
        ),
        pytest.param(
            b"GET /a HTTP/1.1\r\nHost: HOST\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN + LOOK,
            [200, 200],
            [b"GET /a", b"GET /a"],
            id="body of a GET is its body",
        ),
        pytest.param(
            b"POST /up HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b;c\r\nok\r\n0\r\nX: 1\r\n\r\n",
            [200],
            [b"POST /up"],
            id="chunk extensions and trailers are dropped",
        ),
        pytest.param(b"\r\n\r\n" + LOOK, [200], [b"GET /a"], id="empty lines before the request"),
        pytest.param(b"GET\x0b/a\x0cHTTP/1.1\r\nHost: HOST\r\n\r\n", [200], [b"GET /a"], id="odd white space"),
        pytest.param(
            b"POST /up HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
            [100, 200],
            [b"POST /up"],
            id="expect is answered here",
        ),
        pytest.param(
            b"POST /no HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
            [403],
            [],
            id="expect of a refused call is answered without its body",
        ),
        pytest.param(b"GET /a HTTP/1.0\r\nHost: HOST\r\n\r\n", [200], [b"GET /a"], id="HTTP/1.0"),
        pytest.param(
            b"GET /a HTTP/1.0\r\nHost: HOST\r\nConnection: keep-alive\r\n\r\n", [200], [b"GET /a"], id="kept alive 1.0"
        ),
    ],
)
async def test_what_is_sent_is_what_was_decided(
    world: Any, wire: Wire, sent: bytes, statuses: list[int], lines: list[bytes]
) -> None:
    here = await world(RULES)
    client = await tunnel(here)
    await client.send(sent)
    assert [(await client.answer())[0] for _ in statuses] == statuses
    assert [line.rpartition(b" ")[0] for line in wire.lines] == lines
    assert b"X: 1" not in wire.got and b";a=b" not in wire.got


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /a HTTP/1.1 x\r\nHost: HOST\r\n\r\n",
        b"GET /a\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nno colon\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nX : 1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nX: a\rb\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nX: a\x00b\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2, 2\r\n\r\nok",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nContent-Length: +2\r\n\r\nok",
        b"POST /up HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /up HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /up HTTP/1.1\r\nHost: HOST\r\nTransfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
        b"GET /a HTTP/2.0\r\nHost: HOST\r\n\r\n",
        b"POST /up HTTP/2.0\r\nHost: HOST\r\nContent-Length: 2\r\n\r\nok",
        b"GET https://HOST/a HTTP/1.1\r\nHost: HOST\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: user@HOST\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nConnection: close, authorization\r\nAuthorization: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nX-HTTP-Method-Override: DELETE\r\n\r\n",
        b"POST /up HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /up HTTP/1.1\r\nHost: HOST\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /a?" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ],
)
async def test_a_head_that_is_not_sound_is_refused_in_our_words_and_recorded(
    world: Any, wire: Wire, sent: bytes
) -> None:
    here = await world(RULES)
    client = await tunnel(here)
    await client.send(sent)
    status, body = await client.answer()
    assert (status, json.loads(body)["code"]) == (400, "ambiguous-request")
    assert [code for _, code, _ in await recorded(here)] == ["ambiguous-request"]
    assert wire.connections == 0


H2_LENGTH = (b"content-length", b"2")


@pytest.mark.parametrize(
    ("method", "path", "headers", "named"),
    [
        (b"GET", b"/a", [(b"x", b"a\r\nEvil: 1")], None),
        (b"GET", b"/a HTTP/1.1\r\nEvil: 1\r\n\r\nGET /b", [], None),
        (b"GET /b HTTP/1.1\r\n\r\nGET", b"/a", [], None),
        (b"GET", b"https://other.example/a", [], None),
        (b"GET", b"//other.example/a", [], None),
        (b"GET", b"*", [], None),
        (b"GET", b"", [], None),
        (b"GET", b"/a", [], b"other.example"),
        (b"GET", b"/a", [], b"user@localhost"),
        (b"GET", b"/a", [(b"host", b"other.example")], None),
        (b"GET", b"/a", [(b"host", b"other.example")], b""),
        (b"GET", b"/a", [(b"transfer-encoding", b"chunked")], None),
        (b"GET", b"/a", [(b"connection", b"close")], None),
        (b"GET", b"/a", [(b"Upper", b"1")], None),
        (b"GET", b"/a", [(b"x y", b"1")], None),
        (b"GET", b"/a", [(b"x:", b"1")], None),
        (b"GET", b"/a", [(b"content-length", b"5")], None),
        (b"GET", b"/a", [(b"content-length", b"0"), (b"content-length", b"0")], None),
        (b"GET", b"/a", [(b"upgrade", b"websocket"), (b"sec-websocket-key", b"x")], None),
        (b"GET", b"/a", [(b":path", b"/b")], None),
        (b"CONNECT", b"/a", [], None),
    ],
)
async def test_http2_that_means_something_else_in_http1_never_leaves(
    world: Any, wire: Wire, method: bytes, path: bytes, headers: list[tuple[bytes, bytes]], named: bytes | None
) -> None:
    here = await world(RULES)
    client = await H2.to(here)
    stream = await client.begin(method, path, *headers, authority=named, end=True)
    status, _ = await client.answer(stream)
    assert status in (0, 400, 403)
    assert wire.connections == 0


async def test_http2_bodies_are_framed_anew(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    client = await H2.to(here)
    untold = await client.begin(b"POST", b"/up")
    await client.data(untold, DENIED)
    assert await client.answer(untold) == (200, b"ok")
    trailed = await client.begin(b"POST", b"/up", H2_LENGTH)
    await client.data(trailed, b"ok", end=False)
    client.connection.send_headers(trailed, [(b"x-evil", b"1")], end_stream=True)
    await client.flush()
    assert await client.answer(trailed) == (200, b"ok")
    longer = await client.begin(b"POST", b"/up", H2_LENGTH)
    await client.data(longer, b"ok" + DENIED)
    assert (await client.answer(longer))[0] == 0
    assert {line.split(b" ")[0] for line in wire.lines} == {b"POST"}
    assert b"content-length: %d" % len(DENIED) in wire.heads[0]
    assert b"x-evil" not in wire.got
    assert not wire.got.endswith(DENIED)


async def test_credentials_are_of_the_connection_and_go_no_further(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    agents = Agents(here.settings.confdir)
    tokens = {name: agents.add(name, 0) for name in ("ann", "bob")}

    def basic(name: str, token: str) -> bytes:
        return b"Proxy-Authorization: Basic " + base64.b64encode(f"{name}:{token}".encode()) + b"\r\n"

    ann = basic("ann", tokens["ann"])
    client = await tunnel(here, auth=ann)
    for inside, status in [
        (b"", 200),
        (basic("bob", tokens["bob"]), 200),
        (basic("bob", tokens["ann"]), 407),
        (ann + ann, 407),
        (b"", 200),
    ]:
        await client.send(LOOK.replace(b"\r\n\r\n", b"\r\n" + inside + b"\r\n"))
        assert (await client.answer())[0] == status
    assert b"roxy-" not in wire.got
    await here.proxy.stop()
    assert [row["agent"] for row in entries(here)] == ["ann", "bob", "ann", "ann", "ann"]


# -- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "close", "status", "outcome"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, False, 200, "done"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK, False, 200, "done"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n", False, 200, "done"),
        (b"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", False, 304, "done"),
        (b"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nbody", False, 204, "done"),
        (OK + OK, False, 200, "done"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", False, 200, "done"),
        (b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok", False, 502, "unknown"),
        (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok", False, 502, "unknown"),
        (b"HTTP/1.1 200 OK\r\nX y: 1\r\nContent-Length: 2\r\n\r\nok", False, 502, "unknown"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", False, 502, "unknown"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", False, 502, "unknown"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", True, 502, "unknown"),
        (b"HTTP/1.1 -5 OK\r\nContent-Length: 2\r\n\r\nok", False, 502, "unknown"),
        (b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", False, 502, "unknown"),
        (b"HTTP/1.1 99999 OK\r\nContent-Length: 2\r\n\r\nok", False, 502, "unknown"),
        (b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\nraw", False, 502, "unknown"),
        (b"ICY 200 OK\r\n\r\n", False, 502, "unknown"),
        (b"", True, 502, "unknown"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000, False, 502, "unknown"),
    ],
)
@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
async def test_whatever_the_upstream_answers_the_client_gets_an_answer_and_the_ledger_an_outcome(
    world: Any, wire: Wire, answer: bytes, close: bool, status: int, outcome: str, http2: bool
) -> None:
    here = await world(RULES)
    say(wire, answer, close=close)
    if http2:
        frames = await H2.to(here)
        stream = await frames.begin(b"POST", b"/pay", H2_LENGTH)
        await frames.data(stream, b"ok")
        assert (await frames.answer(stream))[0] == status
        wire.answering = None
        assert await frames.answer(await frames.begin(b"GET", b"/b", end=True)) == (200, b"ok")
    else:
        client = await tunnel(here)
        await client.send(PAY)
        assert (await client.answer())[0] == status
        wire.answering = None
        await client.send(LOOK)
        assert await client.answer() == (200, b"ok")
    assert [result for _, _, result in await recorded(here)] == [outcome, "done"]


async def test_a_client_that_says_close_gets_the_end_of_the_connection(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    client = await tunnel(here)
    await client.send(LOOK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert (await client.rest()).endswith(b"\r\n\r\nok")


async def test_a_host_that_failed_is_dialled_again_for_the_next_call(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    client = await tunnel(here)
    wire.stop()
    await client.send(LOOK)
    assert (await client.answer())[0] == 502
    await wire.start(wire.port)
    await client.send(LOOK)
    assert await client.answer() == (200, b"ok")


async def test_a_connection_that_the_upstream_closes_between_calls_is_not_used_again(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    client = await tunnel(here)
    say(wire, OK, close=True)
    for number in range(3):
        await client.send(PAY.replace(b"5}", b"%d}" % number))
        assert await client.answer() == (200, b"ok")
        await until(lambda: True)
    assert wire.connections == 3


# -- clients that leave ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "outcome"), [(PAY, "done"), (LOOK, "unknown")], ids=["claimed", "plain"])
@pytest.mark.parametrize("stage", ["durable", "dial", "answer", "body"])
async def test_a_client_may_leave_at_any_moment(
    world: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch, sent: bytes, outcome: str, stage: str
) -> None:
    """What had not left stays here, what had left comes to its end, and nothing is forgotten or left behind."""
    here = await world(RULES)
    there, go_on = asyncio.Event(), asyncio.Event()

    def slowly(act: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def slow(*args: Any, **options: Any) -> Any:
            there.set()
            await go_on.wait()
            return await act(*args, **options)

        return slow

    if stage == "durable":
        monkeypatch.setattr(here.proxy._ledger, "durable", slowly(here.proxy._ledger.durable))
    elif stage == "dial":
        monkeypatch.setattr(proxy.dial, "check", slowly(proxy.dial.check))
    elif stage == "answer":
        there, go_on = hold(wire)
    else:
        there, go_on = hold(wire, b"x" * 50_000)
    client = await tunnel(here)
    if stage == "body":
        wire_answering = wire.answering
        assert wire_answering is not None

        async def begin(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
            await wire_answering(head, reader, writer)

        wire.answering = begin
    await client.send(sent)
    await there.wait()
    client.leave()
    gone = [exchange.gone for live in here.proxy._addon._live.values() for exchange in live]
    await until(lambda: all(event.is_set() for event in gone) or not here.proxy._addon._live)
    go_on.set()
    await until(lambda: not leftovers(here))
    left = stage in ("answer", "body")
    assert len(wire.heads) == left
    assert [result for _, _, result in await recorded(here)] == [outcome if left else "not_executed"]


@pytest.mark.parametrize("way", ["reset", "lost"])
@pytest.mark.parametrize(("path", "outcome"), [(b"/pay", "done"), (b"/up", "unknown")])
async def test_an_http2_client_may_leave_or_reset_its_stream(
    world: Any, wire: Wire, way: str, path: bytes, outcome: str
) -> None:
    here = await world(RULES)
    arrived, go_on = hold(wire)
    client = await H2.to(here)
    stream = await client.begin(b"POST", path, H2_LENGTH)
    await client.data(stream, b"ok")
    await arrived.wait()
    if way == "lost":
        client.tunnel.leave()
    else:
        client.connection.reset_stream(stream)
        other = await client.begin(b"PUT", b"/", end=True)
        assert (await client.answer(other))[0] == 403
        client.tunnel.leave()
    go_on.set()
    await until(lambda: not leftovers(here))
    assert (await recorded(here))[0][2] == outcome


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"Content-Length: 9\r\n\r\nbody", id="left"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nzz\r\n", id="malformed"),
    ],
)
async def test_a_body_that_never_arrives_whole_is_a_refused_call(world: Any, wire: Wire, begun: bytes) -> None:
    here = await world(RULES)
    client = await tunnel(here)
    await client.send(b"POST /pay HTTP/1.1\r\nHost: HOST\r\n" + begun)
    if b"zz" in begun:
        assert await client.rest() == b""
    else:
        await until(lambda: "buffered" in leftovers(here))
    client.leave()
    await until(lambda: not leftovers(here))
    assert await recorded(here) == [("POST /pay", "ambiguous-request", None)]
    assert wire.connections == 0


async def test_what_a_client_sent_ahead_before_it_left_is_not_sent_on(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    arrived, go_on = hold(wire)
    client = await tunnel(here)
    await client.send(PAY + LOOK)
    await arrived.wait()
    client.leave()
    await until(lambda: any(one.client_left for live in here.proxy._addon._live.values() for one in live))
    go_on.set()
    await until(lambda: not leftovers(here))
    assert wire.lines == [b"POST /pay HTTP/1.1"]
    assert await recorded(here) == [("POST /pay", "allow", "done")]


async def test_a_twin_whose_first_left_gets_the_answer_and_one_that_leaves_changes_nothing(
    world: Any, wire: Wire
) -> None:
    here = await world(RULES)
    arrived, go_on = hold(wire)
    first, leaving, staying = [await tunnel(here) for _ in range(3)]
    await first.send(PAY)
    await arrived.wait()
    await leaving.send(PAY)
    await staying.send(PAY)
    await until(lambda: sum(len(live) for live in here.proxy._addon._live.values()) == 3)
    first.leave()
    leaving.leave()
    go_on.set()
    assert await staying.answer() == (200, b"ok")
    staying.leave()
    await until(lambda: not leftovers(here))
    assert wire.lines == [b"POST /pay HTTP/1.1"]


async def test_streams_that_queue_for_connections_end_when_their_client_leaves(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    arrived, go_on = hold(wire)
    client = await H2.to(here)
    for number in range(8):
        await client.begin(b"GET", b"/%d" % number, end=True)
    await arrived.wait()
    live = here.proxy._addon._live
    await until(lambda: sum(one.admission is not None for those in live.values() for one in those) == 8)
    client.tunnel.leave()
    go_on.set()
    await until(lambda: not leftovers(here))
    outcomes = [outcome for _, _, outcome in await recorded(here)]
    assert len(outcomes) == 8 and None not in outcomes
    assert outcomes.count("unknown") == len(wire.heads)


async def test_a_stop_does_not_wait_for_a_host_that_never_answers_a_dial(
    world: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await world(RULES)
    dialling = asyncio.Event()

    async def never(*_: Any, **__: Any) -> None:
        dialling.set()
        await asyncio.Event().wait()

    client = await tunnel(here)
    monkeypatch.setattr(proxy.server, "DRAIN_S", 0.0)
    monkeypatch.setattr(asyncio, "open_connection", never)
    await client.send(PAY)
    await dialling.wait()
    async with asyncio.timeout(5):
        assert await recorded(here) == [("POST /pay", "allow", "not_executed")]
    client.leave()


# -- errors of ours --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "name", "outcome"),
    [
        (proxy.addon.Addon, "server_connect", "not_executed"),
        (proxy.addon.Addon, "responseheaders", "unknown"),
        (proxy.addon.Addon, "response", "unknown"),
        (proxy.addon.Addon, "error", "unknown"),
        (proxy.exchange.Passed, "__call__", "unknown"),
        (proxy.addon, "stored_answer", "unknown"),
        (proxy.layers.Stream, "make_server_connection", "not_executed"),
        (proxy.layers.Stream, "send_response", "unknown"),
        (rules.decide, "settle", "unknown"),
    ],
)
async def test_an_error_after_the_decision_leaves_no_claim_open(
    world: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, outcome: str
) -> None:
    here = await world(RULES)

    def fails(*_: object, **__: object) -> Any:
        raise RuntimeError("injected")

    say(
        wire,
        b"garbage\r\n\r\n" if name == "error" else b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + bytes(20_000),
    )
    if name in ("stored_answer", "settle", "send_response"):
        wire.answering = None
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fails)
        if name == "error":
            patch.setitem(here.proxy._master._hooks, "error", (fails,))
        elif name in here.proxy._master._hooks:
            patch.setitem(here.proxy._master._hooks, name, (fails,))
        client = await tunnel(here)
        await client.send(PAY)
        with contextlib.suppress(ConnectionError):
            await client.rest() if name != "settle" else await client.answer()
        client.leave()
        await until(lambda: not leftovers(here))
    wire.answering = None
    left = len(wire.heads)
    assert left == (outcome == "unknown")
    again = await tunnel(here)
    await again.send(PAY)
    status, body = await again.answer()
    if outcome == "unknown":
        assert (status, json.loads(body)["code"]) == (409, "outcome-unknown")
        assert len(wire.heads) == left
    else:
        assert status == 200
    assert (await recorded(here))[0] == ("POST /pay", "allow", outcome)


# -- too much of everything ------------------------------------------------------------------------------------------


async def pour(client: Tunnel, piece: bytes) -> int:
    """Send `piece` up to 64 times; how much was taken before the proxy closed, or took nothing for a while."""
    sent = 0
    closed = asyncio.ensure_future(client.reader.read())
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(64):
            async with asyncio.timeout(0.3):
                await client.send(piece)
            await asyncio.sleep(0)
            if closed.done():
                break
            sent += len(piece)
    closed.cancel()
    await asyncio.gather(closed, return_exceptions=True)
    return sent


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(b"GET /a HTTP/1.1\r\nHost: HOST\r\nX: ", id="a head that does not end"),
        pytest.param(
            b"POST /up HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5;",
            id="a chunk size that does not end",
        ),
        pytest.param(LOOK, id="requests sent ahead"),
        pytest.param(
            b"POST /slow HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1000000000\r\n\r\n",
            id="an upload that waits its turn",
        ),
    ],
)
async def test_what_cannot_go_on_is_not_kept_in_memory(
    world: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    slow = "  - {id: slow, match: 'POST {origin}/slow', allow: true, throttle: {rate: 1/h, wait: 1h}}\n"
    here = await world(RULES + slow)
    hold(wire)
    client = await tunnel(here)
    if b"slow" in begin:
        first = await tunnel(here)
        await first.send(begin.replace(b"1000000000", b"0"))
    await client.send(begin)
    assert await pour(client, b"a" * 1_000_000) < 16_000_000
    client.leave()
    if b"slow" in begin:
        first.leave()  # the other is not read, so that its leaving is not seen before its turn, or the proxy's end
        monkeypatch.setattr(proxy.server, "DRAIN_S", 0.0)
        await here.proxy.stop()
    else:
        await until(lambda: not leftovers(here))


async def test_a_download_waits_for_an_http2_client_that_opens_no_window(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    sent = 0

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        for _ in range(64):
            writer.write(bytes(1_000_000))
            async with asyncio.timeout(0.5):
                await writer.drain()
            sent += 1_000_000

    wire.answering = answering
    client = await H2.to(here)
    await client.begin(b"GET", b"/big", end=True)
    await until(lambda: sent > 0)
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert sent < 16_000_000
    client.tunnel.leave()
    await until(lambda: not leftovers(here))


async def test_hundreds_of_clients_that_come_and_go_leave_nothing_behind(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    tasks = len(asyncio.all_tasks())

    async def come_and_go(number: int) -> None:
        client = await tunnel(here, tls=False)
        if number % 3:
            await client.send(LOOK)
        if number % 3 == 2:
            await client.answer()
        client.leave()

    for _ in range(5):
        await asyncio.gather(*[come_and_go(number) for number in range(100)])
    await until(lambda: not leftovers(here) and len(asyncio.all_tasks()) <= tasks)


async def test_a_long_http2_connection_keeps_no_track_of_upstream_connections_that_are_closed(
    world: Any, wire: Wire
) -> None:
    here = await world(RULES)
    client = await H2.to(here)
    for _ in range(30):
        assert await client.answer(await client.begin(b"GET", b"/a", end=True)) == (200, b"ok")
    (handler,) = here.proxy._master._clients
    http = http_of(handler.client)
    assert http is not None
    assert len(http.connections) <= 3


# -- destinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
async def test_a_connection_to_a_private_address_serves_only_calls_that_may_go_there(
    world: Any, wire: Wire, http2: bool
) -> None:
    exact = "- {id: exact, match: 'GET {origin}/exact', allow: true}"
    here = await world(f"version: 1\nrules:\n  {exact}\n  - {{id: any, match: 'GET https://**', allow: true}}\n")
    frames = await H2.to(here) if http2 else None
    client = await tunnel(here)
    for path, status in ((b"/any", 403), (b"/exact", 200), (b"/any", 403), (b"/exact", 200)):
        if frames is not None:
            assert (await frames.answer(await frames.begin(b"GET", path, end=True)))[0] == status
        else:
            await client.send(LOOK.replace(b"/a", path))
            assert (await client.answer())[0] == status
    assert wire.lines == [b"GET /exact HTTP/1.1"] * 2


async def test_only_the_address_that_was_checked_is_dialled(world: Any, wire: Wire) -> None:
    """The name resolves to another address every time that it is asked for."""
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo
    asked: list[str] = []

    async def flip(host: Any, port: Any, **hints: Any) -> Any:
        if host == "localhost" and port == wire.port:
            asked.append(f"127.0.0.{len(asked) + 1}")
            host = asked[-1]
        return await resolve(host, port, **hints)

    loop.getaddrinfo = flip  # type: ignore[method-assign]
    elsewhere = await asyncio.start_server(lambda *_: asked.append("elsewhere"), "127.0.0.2", wire.port)
    here = await world(RULES)
    client = await tunnel(here)
    await client.send(LOOK)
    assert await client.answer() == (200, b"ok")
    assert asked == ["127.0.0.1"]
    elsewhere.close()


OWN = (
    *(
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "LOCALHOST",
        "localhost.",
        "0.0.0.0",
        "[::]",
        "[::1]",
    ),
    *("[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1%25lo]", "localhost%00.example"),
)


@pytest.mark.parametrize("tunnelled", [False, True], ids=["plain", "tunnelled"])
async def test_no_spelling_of_its_own_address_leads_back_to_the_proxy(world: Any, tunnelled: bool) -> None:
    here = await world("version: 1\nrules:\n  - {id: any, match: 'GET http://**', allow: true}\n")
    for host in OWN:
        where = f"{host}:{here.proxy.address[1]}".encode()
        reader, writer = await asyncio.open_connection(*here.proxy.address)
        opened = True
        if tunnelled:
            writer.write(b"CONNECT " + where + b" HTTP/1.1\r\n\r\n")
            opened = b" 200 " in await reader.readuntil(b"\r\n\r\n")
        if opened:
            target = b"/a" if tunnelled else b"http://" + where + b"/a"
            writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: " + where + b"\r\n\r\n")
            status = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            assert (host, status) in ((host, b"400"), (host, b"403"))
        assert len(here.proxy._master._clients) == 1
        writer.close()
        await until(lambda: not leftovers(here))


# -- upstreams that speak HTTP/2 -------------------------------------------------------------------------------------


def speak_h2(wire: Wire, act: Callable[[h2.connection.H2Connection, int], None]) -> list[list[tuple[bytes, bytes]]]:
    """Have the upstream speak HTTP/2, and `act` when a request has arrived whole. Gives the heads that arrive."""
    wire.tls.set_alpn_protocols(["h2", "http/1.1"])
    heads: list[list[tuple[bytes, bytes]]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):
            while True:
                writer.write(connection.data_to_send())
                await writer.drain()
                data = await reader.read(65536)
                if not data:
                    break
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived | h2.events.TrailersReceived):
                        heads.append(list(event.headers or ()))
                    elif isinstance(event, h2.events.StreamEnded):
                        act(connection, event.stream_id or 0)
        writer.close()

    wire.serve = serve
    return heads


def _trailers(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(b":status", b"200")])
    connection.send_data(stream, b"ok")
    connection.send_headers(stream, [(b"grpc-status", b"0")], end_stream=True)


def _early_hints(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(b":status", b"103")])
    connection.send_headers(stream, [(b":status", b"201")], end_stream=True)


def _reset(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.reset_stream(stream)


def _reset_midway(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(b":status", b"200")])
    connection.send_data(stream, b"o")
    connection.reset_stream(stream)


def _go_away(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.close_connection()


@pytest.mark.parametrize(
    ("act", "status", "outcome", "again"),
    [
        (_trailers, 200, "done", "duplicate-not-replayable"),
        (_early_hints, 201, "done", "replay"),
        (_reset, 502, "unknown", "outcome-unknown"),
        (_reset_midway, 0, "unknown", "outcome-unknown"),
        (_go_away, 502, "unknown", "outcome-unknown"),
    ],
)
async def test_whatever_an_http2_upstream_does_has_an_outcome(
    world: Any, wire: Wire, act: Any, status: int, outcome: str, again: str
) -> None:
    here = await world(RULES)
    heads = speak_h2(wire, act)
    for expected in (status, None):
        client = await H2.to(here)
        stream = await client.begin(b"POST", b"/pay", H2_LENGTH)
        await client.data(stream, b"ok")
        got, _ = await client.answer(stream)
        assert expected is None or got == expected
        client.tunnel.leave()
    assert len(heads) == 1
    assert [(code, result) for _, code, result in await recorded(here)] == [("allow", outcome), (again, None)]


async def test_trailers_of_a_streamed_request_do_not_reach_an_http2_upstream(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    heads = speak_h2(wire, _early_hints)
    client = await H2.to(here)
    stream = await client.begin(b"POST", b"/up", H2_LENGTH)
    await client.data(stream, b"ok", end=False)
    client.connection.send_headers(stream, [(b"x-evil", b"1")], end_stream=True)
    await client.flush()
    assert (await client.answer(stream))[0] == 201
    assert len(heads) == 1 and b"x-evil" not in dict(heads[0])


async def test_upstreams_are_offered_http_only(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    wire.tls.set_alpn_protocols(["ftp", "http/1.1"])
    chosen: list[str | None] = []

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        writer.write(OK)

    wire.answering = answering
    client = await tunnel(here, alpn=["ftp"])
    await client.send(LOOK)
    assert await client.answer() == (200, b"ok")
    assert chosen == ["http/1.1"]


# -- the ledger ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["locked", "full"])
async def test_a_ledger_that_cannot_be_written_lets_nothing_out(world: Any, wire: Wire, trouble: str) -> None:
    here = await world(RULES)
    client = await tunnel(here)
    await client.send(PAY)
    assert await client.answer() == (200, b"ok")
    writer = here.proxy._ledger._writing._connection.connection.driver_connection
    other = sqlite3.connect(here.ledger, isolation_level=None)
    if trouble == "locked":
        writer.execute("PRAGMA busy_timeout = 10")
        other.execute("BEGIN IMMEDIATE")
    else:
        pages = other.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
    left, code = len(wire.heads), ""
    for number in range(2000):
        await client.send(PAY.replace(b"/pay", b"/up").replace(b"5", b"%d" % (number % 10)))
        status, body = await client.answer()
        if status != 200:
            code = json.loads(body)["code"]
            break
        left += 1
    other.close()
    assert (status, code) == (503, "store-error")
    await client.send(LOOK)
    assert (await client.answer())[0] == 503
    assert len(wire.heads) == left
    client.leave()
    with pytest.raises(LedgerError):
        await here.proxy.stop()
    sent = entries(here, "select count(*) as n from calls where decision = 'allow'")
    assert sent[0]["n"] == left


async def test_rules_that_change_while_a_body_arrives_are_those_that_decide(world: Any, wire: Wire) -> None:
    here = await world(RULES)
    client = await tunnel(here)
    head, body = PAY[:-13], PAY[-13:]
    await client.send(head)
    await until(lambda: len(here.proxy._addon._agents) == 1)
    file = here.directory / "rules.yaml"
    file.write_text(file.read_text() + "  - {id: no, match: 'POST https://**', deny: Not today.}\n")
    files = read(here.settings.rules, here.directory)
    here.proxy._gate.use(files.loaded.ruleset, files.files)
    await client.send(body)
    status, answer = await client.answer()
    assert (status, json.loads(answer)["code"]) == (403, "policy-denied")
    assert wire.connections == 0
