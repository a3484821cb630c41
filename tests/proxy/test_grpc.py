"""gRPC through a running proxy, frame by frame: decided by method, streamed, and its trailers kept and read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from tests.proxy.conftest import MakeWorld, Upstream, World
from tests.proxy.test_attacks import H2, Wire, recorded

RULES = """
version: 1
rules:
  - {id: look, match: "POST {origin}/bank.Accounts/Get*", allow: true}
  - {id: pay, match: "POST {origin}/bank.Transfers/Pay", allow: true, dedupe: 1h}
"""
HEADERS = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
MESSAGE = b"\x00\x00\x00\x00\x02hi"

type Fields = Sequence[tuple[bytes, bytes]]


class Server:
    """Answers every call with `messages` and the `trailers`; after each message but the first it waits for `go`."""

    def __init__(self, wire: Wire) -> None:
        wire.tls.set_alpn_protocols(["h2"])
        wire.serve = self.serve
        self.calls: list[tuple[bytes, bytes]] = []
        self.te: list[bytes | None] = []
        self.messages = 1
        self.trailers: Fields = [(b"grpc-status", b"0")]
        self.in_head = False
        self.go = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        bodies: dict[int, bytes] = {}
        paths: dict[int, bytes] = {}
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):
            while True:
                writer.write(connection.data_to_send())
                await writer.drain()
                data = await reader.read(65536)
                if not data:
                    break
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        head = dict(event.headers or ())
                        paths[event.stream_id or 0] = head[b":path"]
                        self.te.append(head.get(b"te"))
                    elif isinstance(event, h2.events.DataReceived):
                        bodies[event.stream_id or 0] = bodies.get(event.stream_id or 0, b"") + (event.data or b"")
                    elif isinstance(event, h2.events.StreamEnded):
                        stream = event.stream_id or 0
                        self.calls.append((paths[stream], bodies.get(stream, b"")))
                        await self.answer(connection, stream, writer)
        writer.close()

    async def answer(self, connection: Any, stream: int, writer: asyncio.StreamWriter) -> None:
        head = [(b":status", b"200"), (b"content-type", b"application/grpc")]
        if self.in_head:
            connection.send_headers(stream, [*head, *self.trailers], end_stream=True)
            return
        connection.send_headers(stream, head)
        for number in range(self.messages):
            if number:
                await self.go.wait()
            connection.send_data(stream, MESSAGE)
            writer.write(connection.data_to_send())
        connection.send_headers(stream, self.trailers, end_stream=True)


class Stub:
    """A gRPC client, as far as frames go."""

    def __init__(self, client: H2) -> None:
        self.client = client

    async def begin(self, method: bytes) -> int:
        stream = await self.client.begin(b"POST", method, *HEADERS)
        await self.client.data(stream, MESSAGE)
        return stream

    async def events(self, stream: int) -> AsyncIterator[h2.events.Event]:
        """What comes on `stream`, until it ends."""
        while True:
            data = await asyncio.wait_for(self.client.tunnel.reader.read(65536), 5)
            assert data, "the connection was closed"
            for event in self.client.connection.receive_data(data):
                if getattr(event, "stream_id", None) == stream:
                    yield event
                    if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                        return
            await self.client.flush()

    async def call(self, method: bytes) -> tuple[dict[bytes, bytes], bytes, dict[bytes, bytes]]:
        """Head, body and trailers of the answer."""
        head, body, trailers = {}, b"", {}
        async for event in self.events(await self.begin(method)):
            if isinstance(event, h2.events.ResponseReceived):
                head = dict(event.headers or ())
            elif isinstance(event, h2.events.DataReceived):
                body += event.data or b""
            elif isinstance(event, h2.events.TrailersReceived):
                trailers = dict(event.headers or ())
        return head, body, trailers


@pytest.fixture
async def wire(upstream: Any) -> AsyncIterator[Wire]:
    """In place of the upstream."""
    there = Wire(upstream.tls)
    await there.start()
    upstream.port = there.port
    yield there
    there.stop()


@pytest.fixture
def server(wire: Wire) -> Server:
    return Server(wire)


@pytest.fixture
async def here(server: Server, world: MakeWorld) -> World:
    return await world(RULES)


@pytest.fixture
async def stub(here: World) -> Stub:
    return Stub(await H2.to(here))


async def test_a_call_arrives_and_its_trailers_come_back(here: World, server: Server, stub: Stub) -> None:
    server.trailers = [(b"grpc-status", b"0"), (b"grpc-message", b"fine"), (b"x-cost-bin", b"AAE")]
    head, body, trailers = await stub.call(b"/bank.Accounts/GetBalance")
    assert (head[b":status"], head[b"content-type"], body) == (b"200", b"application/grpc", MESSAGE)
    assert trailers == dict(server.trailers)
    assert (server.calls, server.te) == ([(b"/bank.Accounts/GetBalance", MESSAGE)], [b"trailers"])
    assert await recorded(here) == [("POST /bank.Accounts/GetBalance", "allow", "done")]


async def test_a_method_that_no_rule_allows_reads_a_status(here: World, server: Server, stub: Stub) -> None:
    head, body, trailers = await stub.call(b"/bank.Accounts/Close")
    assert (head[b":status"], head[b"grpc-status"], body, trailers) == (b"200", b"7", b"", {})
    assert server.calls == []
    assert await recorded(here) == [("POST /bank.Accounts/Close", "no-allow", None)]


async def test_messages_of_a_stream_pass_as_they_come(here: World, server: Server, stub: Stub) -> None:
    server.messages = 3
    got = 0
    async for event in stub.events(await stub.begin(b"/bank.Accounts/GetHistory")):
        if isinstance(event, h2.events.DataReceived):
            got += len(event.data or b"")
            if got == len(MESSAGE):
                assert not server.go.is_set(), "the first message is here while the server still waits"
                server.go.set()
    assert got == 3 * len(MESSAGE)


ENDS = [
    ("OK", [(b"grpc-status", b"0")], 1, "done", "duplicate-not-replayable"),
    ("UNAVAILABLE", [(b"grpc-status", b"14")], 0, "unknown", "outcome-unknown"),
    ("DEADLINE_EXCEEDED after a message", [(b"grpc-status", b"4")], 1, "unknown", "outcome-unknown"),
    ("INVALID_ARGUMENT", [(b"grpc-status", b"3")], 0, "not_executed", "allow"),
    ("INVALID_ARGUMENT after a message", [(b"grpc-status", b"3")], 1, "unknown", "outcome-unknown"),
    ("trailers without a status", [(b"x-sum", b"1")], 1, "unknown", "outcome-unknown"),
]


@pytest.mark.parametrize(("case", "trailers", "messages", "outcome", "again"), ENDS, ids=[end[0] for end in ENDS])
async def test_the_trailers_say_what_became_of_a_call(
    here: World, server: Server, stub: Stub, case: str, trailers: Fields, messages: int, outcome: str, again: str
) -> None:
    server.trailers, server.messages = trailers, messages
    await stub.call(b"/bank.Transfers/Pay")
    await stub.call(b"/bank.Transfers/Pay")
    assert len(server.calls) == (2 if again == "allow" else 1)
    first, second = await recorded(here)
    assert (first[1:], second[1]) == (("allow", outcome), again)


def web_answer(status: bytes, messages: int, text: bool) -> bytes:
    """An answer in gRPC-Web, over HTTP/1.1."""
    frames = [b"\x00\x00\x00\x00\x02hi"] * messages
    end = b"grpc-status:" + status + b"\r\n"
    frames.append(b"\x80" + len(end).to_bytes(4) + end)
    body = b"".join(map(base64.b64encode, frames)) if text else b"".join(frames)
    kind = b"application/grpc-web-text" if text else b"application/grpc-web+proto"
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


WEB = [
    (b"0", 1, "done", "replay"),
    (b"0", 20_000, "done", "replay"),
    (b"3", 0, "not_executed", "allow"),
    (b"3", 1, "unknown", "outcome-unknown"),
    (b"14", 0, "unknown", "outcome-unknown"),
    (b"xy", 1, "unknown", "outcome-unknown"),
]


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
@pytest.mark.parametrize(("status", "messages", "outcome", "again"), WEB)
async def test_the_end_of_the_body_says_it_in_grpc_web(
    world: MakeWorld, upstream: Upstream, text: bool, status: bytes, messages: int, outcome: str, again: str
) -> None:
    """However long the answer is: the larger ones are not held back."""
    here = await world(RULES)

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        return web_answer(status, messages, text)

    upstream.respond = respond
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    async with here.client() as client:
        for _ in range(2):
            got = await client.post("/bank.Transfers/Pay", content=MESSAGE, headers={"content-type": kind})
            assert got.status_code == 409 or got.content == web_answer(status, messages, text).partition(b"\r\n\r\n")[2]
    assert len(upstream.hits) == (2 if again == "allow" else 1)
    first, second = await recorded(here)
    assert (first[1:], second[1]) == (("allow", outcome), again)


@pytest.mark.parametrize(("status", "outcome"), [(b"0", "done"), (b"7", "not_executed"), (b"14", "unknown")])
async def test_a_status_in_the_head_counts_too(
    here: World, server: Server, stub: Stub, status: bytes, outcome: str
) -> None:
    server.in_head, server.trailers = True, [(b"grpc-status", status)]
    await stub.call(b"/bank.Transfers/Pay")
    assert [result for _, _, result in await recorded(here)] == [outcome]
