"""Bodies that no rule reads: decided at the head, on record, and then passed on as they come, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import pytest

import proxy.addon
import proxy.exchange
import proxy.gate
import proxy.layers
import proxy.ledger.writing
from proxy.layers import http_of
from proxy.ledger.query import LedgerReader
from proxy.ledger.store import LedgerError
from proxy.rulefiles import read
from rules.halts import Halt
from tests.proxy.conftest import MakeWorld, World, until
from tests.proxy.test_attacks import H2, OK, Wire, entries, leftovers, recorded, tunnel, wire

__all__ = ["wire"]  # the fixture

RULES = """
version: 1
rules:
  - {id: talk, match: "POST {origin}/bank.Talks/*", allow: true}
  - {id: up, match: "POST|PUT {origin}/up/{name}", allow: true}
  - {id: once, match: "POST {origin}/bank.Orders/*", allow: true, dedupe: 1h}
  - {id: part, match: "PUT {origin}/up/{name}", dedupe: {window: 1h, methods: [PUT], key: [path.name]}}
"""
GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
TALK = b"/bank.Talks/Chat"

type Act = Callable[["Far", h2.events.Event], Awaitable[None]]


class Far:
    """An HTTP/2 upstream. `got`: what came on each of its streams; `ended`: those that came to their end."""

    def __init__(self, wire: Wire) -> None:
        wire.tls.set_alpn_protocols(["h2"])
        wire.serve = self._serve
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.got: dict[int, bytearray] = {}
        self.ended: list[int] = []
        self.reset: list[int] = []
        self.act: Act = echo
        self.most = 0
        self.waiting: dict[int, bytearray] = {}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        configuration = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.connection, self._writer = h2.connection.H2Connection(configuration), writer
        if self.most:
            settings = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.most}
            self.connection.local_settings.update(settings)  # type: ignore[arg-type]  # an enum of these numbers
            self.connection.local_settings.acknowledge()
        self.connection.initiate_connection()
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):
            while True:
                await self.flush()
                data = await reader.read(65536)
                if not data:
                    break
                for event in self.connection.receive_data(data):
                    stream = getattr(event, "stream_id", None) or 0
                    if isinstance(event, h2.events.RequestReceived):
                        self.heads[stream] = dict(event.headers or ())
                        self.got[stream] = bytearray()
                    elif isinstance(event, h2.events.DataReceived):
                        self.got[stream] += event.data or b""
                        if stream not in self.waiting:
                            self.connection.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                    elif isinstance(event, h2.events.StreamEnded):
                        self.ended.append(stream)
                    elif isinstance(event, h2.events.StreamReset):
                        self.reset.append(stream)
                    await self.act(self, event)
        writer.close()

    async def say_all(self) -> None:
        """As much of what is `waiting` as the client takes; only then does it let the client say more."""
        for stream, data in list(self.waiting.items()):
            piece = bytes(data[: min(self.connection.local_flow_control_window(stream), 16384)])
            if piece:
                del data[: len(piece)]
                self.connection.send_data(stream, piece)
                self.connection.acknowledge_received_data(len(piece), stream)
            if not data and stream in self.ended:
                del self.waiting[stream]
                self.connection.send_headers(stream, [(b"grpc-status", b"0")], end_stream=True)

    async def flush(self) -> None:
        self._writer.write(self.connection.data_to_send())
        await self._writer.drain()


async def echo(far: Far, event: h2.events.Event) -> None:
    """Gives back what comes, piece by piece, and ends with trailers."""
    if isinstance(event, h2.events.RequestReceived):
        far.connection.send_headers(
            event.stream_id or 0, [(b":status", b"200"), (b"content-type", b"application/grpc")]
        )
    elif isinstance(event, h2.events.DataReceived) and event.data:
        far.connection.send_data(event.stream_id or 0, event.data)
    elif isinstance(event, h2.events.StreamEnded):
        far.connection.send_headers(event.stream_id or 0, [(b"grpc-status", b"0")], end_stream=True)


async def echo_as_it_is_taken(far: Far, event: h2.events.Event) -> None:
    """As `echo`, for more than the client takes at once."""
    if isinstance(event, h2.events.RequestReceived):
        far.waiting[event.stream_id or 0] = bytearray()
        await echo(far, event)
    elif isinstance(event, h2.events.DataReceived):
        far.waiting[event.stream_id or 0] += event.data or b""
    await far.say_all()


async def silence(far: Far, event: h2.events.Event) -> None:
    """Reads on."""


class Near:
    """A client with one stream. `body`, `trailers`, `ended` and `reset` are what came on it."""

    def __init__(self, client: H2, stream: int) -> None:
        self.client = client
        self.stream = stream
        self.head: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.trailers: dict[bytes, bytes] = {}
        self.ended = False
        self.reset: int | None = None

    @classmethod
    async def begin(
        cls, here: World, path: bytes = TALK, *headers: tuple[bytes, bytes], method: bytes = b"POST"
    ) -> Near:
        client = await H2.to(here)
        return cls(client, await client.begin(method, path, *(headers or GRPC)))

    async def say(self, data: bytes, *, end: bool = False) -> None:
        await self.client.data(self.stream, data, end=end)

    async def hear(self, until: Callable[[], object]) -> None:
        """Take what comes until that holds."""
        while not until():
            data = await asyncio.wait_for(self.client.tunnel.reader.read(65536), 10)
            assert data, "the connection was closed"
            for event in self.client.connection.receive_data(data):
                if getattr(event, "stream_id", None) != self.stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    self.head = dict(event.headers or ())
                elif isinstance(event, h2.events.DataReceived):
                    self.pieces.append(event.data or b"")
                    self.client.connection.acknowledge_received_data(event.flow_controlled_length or 0, self.stream)
                elif isinstance(event, h2.events.TrailersReceived):
                    self.trailers = dict(event.headers or ())
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended = True
                elif isinstance(event, h2.events.StreamReset):
                    self.reset = event.error_code
            await self.client.flush()

    async def pour(self) -> int:
        """Say as much as is taken, up to 32 MiB: until there is no leave to say more for a while."""
        refused = await self.client.begin(b"GET", b"/no", end=True)
        assert (await self.client.answer(refused))[0] == 403  # and with that comes how much may be said
        connection, sent = self.client.connection, 0
        with contextlib.suppress(TimeoutError):
            while sent < 32 * 2**20:
                piece = min(16384, connection.local_flow_control_window(self.stream))
                if piece:
                    await self.say(bytes(piece))
                    sent += piece
                else:
                    async with asyncio.timeout(0.5):
                        connection.receive_data(await self.client.tunnel.reader.read(65536))
        assert sent >= 2**20
        return sent

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    async def hear_the_end(self) -> None:
        await self.hear(lambda: self.ended or self.reset is not None)


@pytest.fixture
def far(wire: Wire) -> Far:
    return Far(wire)


def outcomes(here: World) -> list[dict[str, Any]]:
    """What the ledger says of every outcome."""
    with LedgerReader.open(here.ledger) as reader:
        calls = list(reversed(reader.list(limit=1000)))
        return [
            {"outcome": each.outcome, "error": each.error, "streamed": each.streamed_bytes}
            for call in calls
            for each in reader.show(call.id).outcomes
        ]


def open_calls(here: World) -> int:
    """How many calls are on their way."""
    return sum(len(live) for live in here.proxy._addon._live.values())


# -- in turns --------------------------------------------------------------------------------------------------------


async def test_both_sides_talk_in_turns_and_the_decision_is_on_record_before(world: MakeWorld, far: Far) -> None:
    here = await world(RULES)
    on_record: list[int] = []

    async def look_and_echo(far: Far, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            on_record.append(len(entries(here, "select id from calls where decision = 'allow'")))
        await echo(far, event)

    far.act = look_and_echo
    talk = await Near.begin(here)
    await talk.hear(lambda: talk.head)
    said = b""
    for n in range(5):
        said += b"%d" % n
        await talk.say(b"%d" % n)
        await talk.hear(lambda: talk.body == said)  # noqa: B023  asked before the next turn
    await talk.say(b"", end=True)
    await talk.hear_the_end()
    assert (talk.trailers, on_record) == ({b"grpc-status": b"0"}, [1])
    assert far.got == {1: b"01234"}
    assert await recorded(here) == [("POST /bank.Talks/Chat", "allow", "done")]
    assert outcomes(here) == [{"outcome": "done", "error": "", "streamed": 5}]


async def test_the_digest_of_what_went_out_is_kept_once_it_has_ended(world: MakeWorld, far: Far) -> None:
    here = await world(RULES)
    for data in (b"same", b"same", b"else"):
        talk = await Near.begin(here)
        await talk.say(data, end=True)
        await talk.hear_the_end()
    cut = await Near.begin(here)
    await cut.say(b"same")
    await cut.hear(lambda: cut.body)
    cut.client.tunnel.leave()
    await until(lambda: not open_calls(here))
    await here.proxy.stop()
    rows = entries(here, "select rest ->> '$.streamed_sha256' as digest from entries where kind = 'outcome'")
    one, same, other, unended = [row["digest"] for row in rows]
    assert one == same and one != other and unended is None
    assert hashlib.sha256(b"same").hexdigest() not in repr(rows)


async def test_a_refused_method_dials_nothing(world: MakeWorld, wire: Wire, far: Far) -> None:
    here = await world(RULES)
    talk = await Near.begin(here, b"/bank.Other/Chat")
    await talk.say(b"secret")
    await talk.say(b"", end=True)
    await talk.hear_the_end()
    assert (talk.head[b"grpc-status"], wire.connections) == (b"7", 0)


async def test_a_client_that_calls_off_ends_it_upstream_too(world: MakeWorld, far: Far) -> None:
    here = await world(RULES)
    talk = await Near.begin(here)
    await talk.say(b"one")
    await talk.hear(lambda: talk.body)
    talk.client.connection.reset_stream(talk.stream, h2.errors.ErrorCodes.CANCEL)
    await talk.client.flush()
    await until(lambda: far.reset == [1] and not open_calls(here))
    assert await recorded(here) == [("POST /bank.Talks/Chat", "allow", "unknown")]


async def test_a_server_that_breaks_off_leaves_the_outcome_unknown(world: MakeWorld, far: Far) -> None:
    here = await world(RULES)

    async def break_off(far: Far, event: h2.events.Event) -> None:
        await echo(far, event)
        if isinstance(event, h2.events.DataReceived):
            far.connection.reset_stream(event.stream_id or 0, h2.errors.ErrorCodes.INTERNAL_ERROR)

    far.act = break_off
    talk = await Near.begin(here)
    await talk.say(b"one")
    await talk.hear_the_end()
    assert talk.reset is not None
    assert (await recorded(here))[0][1:] == ("allow", "unknown")


async def test_an_answer_that_is_whole_before_its_request_ends_at_once(world: MakeWorld, far: Far) -> None:
    here = await world(RULES)

    async def answer_first(far: Far, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived) and far.got[1] == b"one":
            far.connection.send_headers(1, [(b":status", b"200")])
            far.connection.send_data(1, b"enough", end_stream=True)

    far.act = answer_first
    talk = await Near.begin(here)
    await talk.say(b"one")
    await talk.hear_the_end()
    assert (talk.body, talk.ended, talk.reset) == (b"enough", True, None)
    await talk.say(b"two", end=True)
    await until(lambda: far.ended == [1])
    assert far.got == {1: b"onetwo"}
    other = await talk.client.begin(b"GET", b"/no", end=True)
    assert (await talk.client.answer(other))[0] == 403, "the connection is as good as before"
    assert [outcome for _, _, outcome in await recorded(here)] == ["unknown", None], "there was no gRPC status"


async def test_both_sides_may_say_much_at_the_same_time(world: MakeWorld, far: Far) -> None:
    """More than any buffer holds, each way: neither side is kept from saying that it can take more."""
    here = await world(RULES)
    size = 32 * 1024 * 1024
    far.act = echo_as_it_is_taken
    talk = await Near.begin(here)

    async def pour() -> None:
        left = size
        while left:
            piece = min(left, 16384, talk.client.connection.local_flow_control_window(talk.stream))
            if not piece:
                await asyncio.sleep(0)
                continue
            left -= piece
            await talk.say(bytes(piece), end=not left)

    async with asyncio.timeout(60):
        pouring = asyncio.create_task(pour())
        await talk.hear_the_end()
        await pouring
    assert (len(talk.body), len(far.got[1])) == (size, size)
    assert (await recorded(here))[0][1:] == ("allow", "done")


@pytest.mark.parametrize("speaks", ["h1", "h2"])
async def test_a_stream_that_cannot_go_on_is_held_back_and_holds_nothing_else_up(
    world: MakeWorld, wire: Wire, speaks: str
) -> None:
    here = await world(RULES)
    go_on = asyncio.Event()
    if speaks == "h2":
        wire.tls.set_alpn_protocols(["h2"])

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if speaks == "h2":
            connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            connection.initiate_connection()
            writer.write(connection.data_to_send())
        await go_on.wait()
        writer.close()

    wire.serve = deaf
    talk = await Near.begin(here, b"/up/a", (b"content-type", b"text/plain"))
    assert await talk.pour() < 16 * 2**20, "it was all kept in memory"
    other = await talk.client.begin(b"GET", b"/no", end=True)
    assert (await talk.client.answer(other))[0] == 403
    go_on.set()
    talk.client.tunnel.leave()
    await until(lambda: not leftovers(here))


@pytest.mark.parametrize("who", ["the server", "the client"])
async def test_who_has_enough_after_an_early_answer_ends_it_for_the_other(world: MakeWorld, far: Far, who: str) -> None:
    """As servers of gRPC do: they end with trailers, and then want no more of the request."""
    here = await world(RULES)

    async def answer_first(far: Far, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            far.connection.send_headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc")])
            far.connection.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
            if who == "the server":
                far.connection.reset_stream(1, h2.errors.ErrorCodes.NO_ERROR)

    far.act = answer_first
    talk = await Near.begin(here)
    await talk.say(b"one")
    await talk.hear(lambda: talk.ended)
    if who == "the server":
        await talk.hear(lambda: talk.reset is not None)
        assert talk.reset == h2.errors.ErrorCodes.NO_ERROR
    else:
        talk.client.connection.reset_stream(talk.stream, h2.errors.ErrorCodes.CANCEL)
        await talk.client.flush()
        await until(lambda: far.reset == [1])
    (handler,) = here.proxy._master._clients
    await until(lambda: not getattr(http_of(handler.client), "streams", {}))
    assert (talk.trailers, await recorded(here)) == (
        {b"grpc-status": b"0"},
        [("POST /bank.Talks/Chat", "allow", "done")],
    )


async def test_what_waits_for_a_stream_of_the_upstream_is_held_back(world: MakeWorld, wire: Wire) -> None:
    """The upstream takes one call at a time, and the first does not end."""
    here = await world(RULES)
    far = Far(wire)
    far.most = 1
    far.act = silence
    first = await Near.begin(here)
    await first.say(b"one")
    await until(lambda: far.got == {1: b"one"})
    second = Near(first.client, await first.client.begin(b"POST", TALK, *GRPC))
    assert await second.pour() <= 2 * 2**20, "it was all kept in memory"
    assert list(far.got) == [1]


# -- over HTTP/1 -----------------------------------------------------------------------------------------------------


async def test_chunks_go_on_as_they_come_and_so_does_the_answer(world: MakeWorld, wire: Wire) -> None:
    here = await world(RULES)

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            size = await reader.readuntil(b"\r\n")
            data = await reader.readuntil(b"\r\n")
            wire.got += data[:-2]
            writer.write(size + data)
            if size == b"0\r\n":
                return

    wire.answering = answering
    client = await tunnel(here)
    await client.send(b"POST /up/a HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert b" 200 " in await client.reader.readuntil(b"\r\n\r\n")
    for n in range(5):
        await client.send(b"1\r\n%d\r\n" % n)
        assert await client.reader.readuntil(b"\r\n%d\r\n" % n) == b"1\r\n%d\r\n" % n
    await client.send(b"0\r\n\r\n")
    assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
    assert wire.got.endswith(b"01234")
    assert await recorded(here) == [("POST /up/a", "allow", "done")]
    assert outcomes(here)[0]["streamed"] == 5


async def test_an_http2_body_of_unknown_length_reaches_an_http1_upstream_in_chunks(
    world: MakeWorld, wire: Wire
) -> None:
    here = await world(RULES)
    come = asyncio.Event()

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.got += await reader.readuntil(b"one\r\n")
        come.set()
        wire.got += await reader.readuntil(b"0\r\n\r\n")
        writer.write(OK)

    wire.answering = answering
    talk = await Near.begin(here, b"/up/a", (b"content-type", b"text/plain"))
    await talk.say(b"one")
    await come.wait()
    await talk.say(b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n", end=True)
    await talk.hear_the_end()
    assert (talk.head[b":status"], talk.body) == (b"200", b"ok")
    assert b"transfer-encoding: chunked" in wire.heads[0].lower() and b"content-length" not in wire.heads[0].lower()
    assert wire.got.endswith(b"\r\n3\r\none\r\n21\r\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n\r\n0\r\n\r\n")
    assert wire.lines == [b"POST /up/a HTTP/1.1"]


async def test_an_http2_body_that_is_here_already_says_its_length_to_an_http1_upstream(
    world: MakeWorld, wire: Wire
) -> None:
    here = await world(RULES)
    client = await H2.to(here)
    pseudo = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/up/a"), (b":authority", client.tunnel.host)]
    client.connection.send_headers(1, pseudo)
    client.connection.send_data(1, b"o")
    client.connection.send_data(1, b"ne", end_stream=True)
    await client.flush()
    assert await client.answer(1) == (200, b"ok")
    assert b"content-length: 3\r\n" in wire.heads[0] and b"chunked" not in wire.heads[0]
    assert wire.got.endswith(b"\r\n\r\none")


async def test_an_early_answer_over_http1_is_whole_before_the_request_is(world: MakeWorld, wire: Wire) -> None:
    here = await world(RULES)

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST /up/a "):
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            wire.got += await reader.readuntil(b"0\r\n\r\n")
        else:
            writer.write(OK)

    wire.answering = answering
    client = await tunnel(here)
    await client.send(b"POST /up/a HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await client.reader.readuntil(b"0\r\n\r\n")).endswith(b"2\r\nok\r\n0\r\n\r\n")
    await client.send(b"3\r\none\r\n0\r\n\r\nPOST /up/b HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n")
    assert await client.answer() == (200, b"ok")
    assert wire.lines == [b"POST /up/a HTTP/1.1", b"POST /up/b HTTP/1.1"]
    assert wire.got.endswith(b"3\r\none\r\n0\r\n\r\n" + wire.heads[1])


# -- WebSockets, which HTTP/2 could open as well (RFC 8441) ----------------------------------------------------------


async def test_http2_opens_none_and_does_not_offer_to(world: MakeWorld, wire: Wire) -> None:
    """Clients that are not offered it open a WebSocket over HTTP/1.1, as they would without a proxy."""
    here = await world(RULES + '  - {id: live, match: "wss://localhost/**", allow: true}\n')
    client = await H2.to(here)
    first = await client.begin(b"GET", b"/no", end=True)
    assert (await client.answer(first))[0] == 403
    assert not client.connection.remote_settings.enable_connect_protocol
    stream = client.connection.get_next_available_stream_id()
    asked = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"), (b":path", b"/live")]
    client.connection.send_headers(stream, [*asked, (b":authority", client.tunnel.host)])
    await client.flush()
    status, body = await client.answer(stream)
    assert (status, json.loads(body)["code"]) == (403, "upgrade-refused")
    again = await client.begin(b"GET", b"/no", end=True)
    assert (await client.answer(again))[0] == 403, "the connection is as good as before"
    assert wire.connections == 0
    assert (await recorded(here))[1] == ("CONNECT /live", "upgrade-refused", None)


# -- what needs the body ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [(), ((b"grpc-timeout", b"100m"),)], ids=["patience", "the client's own timeout"])
async def test_a_call_that_stalls_where_a_rule_needs_its_body_is_refused_and_says_why(
    world: MakeWorld, wire: Wire, far: Far, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    monkeypatch.setattr(proxy.layers, "PATIENCE_S", 3600 if said else 0.05)
    here = await world(RULES)
    talk = await Near.begin(here, b"/bank.Orders/Chat", *GRPC, *said)
    await talk.say(b"one")
    await talk.hear_the_end()
    assert talk.head[b"grpc-status"] == b"3"
    assert b"rule `once` has to read the whole of it" in talk.head[b"grpc-message"]
    await talk.say(b"two", end=True)
    other = await talk.client.begin(b"GET", b"/no", end=True)
    assert (await talk.client.answer(other))[0] == 403, "the connection is as good as before"
    assert (wire.connections, leftovers(here)["clients"]) == (0, 1)
    assert "buffered" not in leftovers(here)
    assert (await recorded(here))[0] == ("POST /bank.Orders/Chat", "body-unfinished", None)


async def test_a_call_that_goes_on_slowly_is_waited_for(
    world: MakeWorld, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at while nothing new has come but once, and after each piece."""
    here = await world(RULES)
    talk = await Near.begin(here, b"/bank.Orders/Put")
    (handler,) = here.proxy._master._clients
    for n in range(3):
        await talk.say(b"%d" % n)
        await until(lambda: 64 - leftovers(here).get("buffered", 0) == 63 - n)  # noqa: B023  asked before the next
        handler.look()
    await talk.say(b"", end=True)
    await talk.hear_the_end()
    assert (talk.body, bytes(far.got[1])) == (b"012", b"012")


# -- at most once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "outcome", "again"), [(b"half", "unknown", 409), (b"all of it.", "done", 200)])
async def test_a_streamed_call_with_a_claim_is_finished_without_its_client_once_it_is_out_whole(
    world: MakeWorld, wire: Wire, sent: bytes, outcome: str, again: int
) -> None:
    here = await world(RULES)
    come, go_on = asyncio.Event(), asyncio.Event()

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.got += await reader.readexactly(len(sent))
        come.set()
        await go_on.wait()
        wire.got += await reader.readexactly(10 - len(sent))
        writer.write(OK)

    wire.answering = answering
    put = b"PUT /up/a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\n"
    client = await tunnel(here)
    await client.send(put + sent)
    await come.wait()
    client.leave()
    if outcome == "unknown":
        await until(lambda: not leftovers(here))
    go_on.set()
    second = await tunnel(here)
    await second.send(put + b"all of it.")
    assert (await second.answer())[0] == again
    assert wire.lines == [b"PUT /up/a HTTP/1.1"]
    assert (await recorded(here))[0] == ("PUT /up/a", "allow", outcome)


# -- what comes to be forbidden while it goes on ---------------------------------------------------------------------

HALT = Halt("", "", "Look first.", "ada", 0)


def forbid(here: World) -> None:
    """As a change of the rule file does."""
    file = here.directory / "rules.yaml"
    file.write_text(file.read_text() + '  - {id: no, match: "POST https://**", deny: Not today.}\n')
    files = read(here.settings.rules, here.directory)
    here.proxy._gate.use(files.loaded.ruleset, files.files)


@pytest.mark.parametrize("told", [True, False], ids=["at once", "at the next piece"])
@pytest.mark.parametrize("answered", [True, False], ids=["answered", "not answered yet"])
async def test_a_halt_ends_what_a_client_still_says(world: MakeWorld, far: Far, told: bool, answered: bool) -> None:
    here = await world(RULES)
    far.act = echo if answered else silence
    talk = await Near.begin(here)
    await talk.say(b"one")
    await until(lambda: far.got == {1: b"one"})
    if answered:
        await talk.hear(lambda: talk.body == b"one")
    if not told:
        here.proxy._gate.changed = lambda: None
    here.proxy._gate.halt(HALT)
    if not told:
        await talk.say(b"two")
    await talk.hear_the_end()
    said = talk.trailers if answered else talk.head
    assert (talk.ended, said[b"grpc-status"]) == (True, b"7")
    assert said[b"grpc-message"].startswith(b"Stopped by a person: Look first. It was cut off while it went on;")
    await until(lambda: far.reset == [1])
    assert far.got == {1: b"one"}
    assert (await recorded(here))[0] == ("POST /bank.Talks/Chat", "allow", "unknown")
    assert outcomes(here) == [{"outcome": "unknown", "error": "halted came to apply while it was sent", "streamed": 3}]


async def test_rules_that_change_end_an_upload(world: MakeWorld, wire: Wire) -> None:
    here = await world(RULES)
    come, over = asyncio.Event(), asyncio.Event()

    async def answering(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.got += await reader.readexactly(3)
        come.set()
        wire.got += await reader.read()
        over.set()

    wire.answering = answering
    client = await tunnel(here)
    await client.send(b"POST /up/a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1000\r\n\r\none")
    await come.wait()
    forbid(here)
    status, body = await client.answer()
    told = json.loads(body)
    assert (status, told["code"], told["executed"]) == (403, "policy-denied", "unknown")
    assert told["detail"] == "Not today. It was cut off while it went on; whether it took effect is not known."
    assert await client.rest() == b""
    await over.wait()
    assert wire.got.endswith(b"\r\n\r\none")
    assert (await recorded(here))[0] == ("POST /up/a", "allow", "unknown")


async def test_rules_that_come_to_need_the_body_end_it_too(world: MakeWorld, far: Far) -> None:
    here = await world(RULES)
    talk = await Near.begin(here)
    await talk.say(b"one")
    await talk.hear(lambda: talk.body)
    file = here.directory / "rules.yaml"
    file.write_text(file.read_text() + '  - {id: no, match: "POST https://**", where: {body.a: 1}, deny: No.}\n')
    files = read(here.settings.rules, here.directory)
    here.proxy._gate.use(files.loaded.ruleset, files.files)
    await talk.hear_the_end()
    assert b"its body was not read, and the rules have come to need it" in talk.trailers[b"grpc-message"]
    assert far.got == {1: b"one"}


async def test_what_was_said_whole_is_answered_to_its_end(world: MakeWorld, far: Far) -> None:
    here = await world(RULES)

    async def wait(far: Far, event: h2.events.Event) -> None:
        if not isinstance(event, h2.events.StreamEnded):
            await echo(far, event)

    far.act = wait
    talk = await Near.begin(here)
    await talk.say(b"one", end=True)
    await talk.hear(lambda: talk.body)
    here.proxy._gate.halt(HALT)
    far.connection.send_data(1, b"two")
    far.connection.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
    await far.flush()
    await talk.hear_the_end()
    assert (talk.body, talk.trailers) == (b"onetwo", {b"grpc-status": b"0"})
    assert (await recorded(here))[0] == ("POST /bank.Talks/Chat", "allow", "done")


async def test_a_halt_of_others_and_a_ledger_that_is_shut_for_a_while_end_nothing(
    world: MakeWorld, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.ledger.writing, "BUSY_S", 0.01)
    here = await world(RULES)
    talk = await Near.begin(here)
    here.proxy._gate.halt(Halt("somebody-else", "", "Look first.", "ada", 0))
    await talk.say(b"one")
    await talk.hear(lambda: talk.body == b"one")
    with contextlib.closing(sqlite3.connect(here.ledger, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await talk.say(b"two")
        await talk.hear(lambda: talk.body == b"onetwo")
    await talk.say(b"", end=True)
    await talk.hear_the_end()
    assert talk.trailers == {b"grpc-status": b"0"}


# -- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, LedgerError, MemoryError])
@pytest.mark.parametrize(
    ("place", "outcome"),
    [
        ("proxy.addon.needs_of", ""),
        ("proxy.addon.Passed", ""),
        ("proxy.gate.Gate.admit", ""),
        ("proxy.gate.Gate._record", ""),
        ("proxy.ledger.store.Ledger.durable", "not_executed"),
        ("proxy.layers.Stream.start_request_stream", "not_executed"),
        ("proxy.layers.Stream.make_server_connection", "not_executed"),
        ("proxy.layers.Stream.say_where_the_body_ends", "unknown"),
        ("proxy.layers.Stream.state_stream_request_body", "unknown"),
        ("proxy.layers.Stream.check_permitted", "unknown"),
        ("proxy.gate.Gate.goes_on", "unknown"),
        ("proxy.exchange.Passed.__call__", "unknown"),
    ],
)
async def test_an_error_lets_nothing_of_a_body_out_and_leaves_nothing_open(
    world: MakeWorld, far: Far, monkeypatch: pytest.MonkeyPatch, place: str, outcome: str, error: type[Exception]
) -> None:
    here = await world(RULES)

    def fail(*_: object, **__: object) -> Any:
        raise error("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        talk = await Near.begin(here)
        with contextlib.suppress(ConnectionError):
            await talk.say(b"secret", end=True)
        with contextlib.suppress(AssertionError, ConnectionError):
            await talk.hear_the_end()
        assert not open_calls(here)
        talk.client.tunnel.leave()
        await until(lambda: not leftovers(here))
    assert b"".join(far.got.values()) == b""
    assert len(far.heads) <= (outcome == "unknown")
    let_out = [ended for _, decision, ended in await recorded(here) if decision == "allow"]
    assert let_out == ([outcome] if outcome else [])
