"""WebSockets: opened like any call, looked at message by message, counted at their end. Both ends are aiohttp's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from proxy.ledger.entries import LedgerError
from proxy.ledger.query import LedgerReader
from proxy.websocket import MESSAGE_CAP_BYTES
from rules.guards.concurrency import Leases
from rules.halts import Halt
from tests.proxy.conftest import MakeWorld, World, until
from tests.saving import save

OPEN = """
version: 1
rules:
  - {id: live, match: "wss://localhost:PORT/live/**", allow: true}
"""


class SocketServer:
    """A server that says back what it is told, and counts what reached it."""

    def __init__(self) -> None:
        self.opened = 0
        self.got: list[str | bytes] = []
        self.offers: list[str] = []
        self.closed: list[int] = []
        self.port = 0
        self.serve_socket: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.opened += 1
        self.offers.append(request.headers.get("sec-websocket-extensions", ""))
        if request.path.endswith("/plain"):
            return web.Response(text="no socket here")
        if self.serve_socket is not None:
            return await self.serve_socket(request)
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            self.got.append(message.data)
            if message.data == "bye":
                await socket.close(code=4001, message=b"as you wish")
            elif message.data == "break":
                assert request.transport is not None
                request.transport.abort()
            elif isinstance(message.data, bytes):
                await socket.send_bytes(message.data)
            else:
                await socket.send_str(f"you said {message.data}")
        self.closed.append(socket.close_code or 0)
        return socket


@pytest.fixture
async def server(authority: trustme.CA) -> AsyncIterator[SocketServer]:
    served = SocketServer()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", served.serve)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    served.port = runner.addresses[0][1]
    yield served
    await runner.cleanup()


class Client:
    """Opens sockets through the proxy of `world` to `server`."""

    def __init__(self, world: World, server: SocketServer) -> None:
        self._world = world
        self._server = server
        self._trust = ssl.create_default_context(cafile=str(world.proxy.ca_path))
        self._session = aiohttp.ClientSession()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def open(self, path: str = "/live/a", **options: Any) -> Any:
        url = f"https://localhost:{self._server.port}{path}"
        given: dict[str, Any] = {"proxy": self._world.proxy_url, "ssl": self._trust, "max_msg_size": 0} | options
        return self._session.ws_connect(url, **given)


def calls(path: Path) -> list[Any]:
    with LedgerReader.open(path) as reader:
        return list(reversed(reader.list(limit=1000)))


async def made(world: MakeWorld, server: SocketServer, rules: str = OPEN) -> World:
    return await world(rules.replace("PORT", str(server.port)))


async def ended(world: World) -> list[Any]:
    """The calls on record, once the proxy has recorded the end of all."""
    await world.proxy.stop()
    return calls(world.ledger)


async def test_what_is_said_goes_both_ways_and_is_counted(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server)
    async with Client(here, server) as client, client.open(compress=15) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "you said hello"
        await socket.send_bytes(b"\x00\xff")
        assert await socket.receive_bytes() == b"\x00\xff"
        await socket.ping(b"still there?")
    assert server.got == ["hello", b"\x00\xff"]
    assert server.offers == [""]
    (call,) = await ended(here)
    assert (call.method, call.scheme, call.decision, call.outcome, call.status) == ("GET", "wss", "allow", "done", 101)
    with LedgerReader.open(here.ledger) as reader:
        (outcome,) = reader.show(call.id).outcomes
    assert (outcome.messages, outcome.answer_bytes, outcome.error) == ((2, 2), 16, "")


async def test_an_https_pattern_opens_no_websocket(world: MakeWorld, server: SocketServer) -> None:
    rules = 'version: 1\nrules:\n  - {id: read, match: "https://localhost:PORT/**", allow: true}\n'
    here = await made(world, server, rules)
    async with Client(here, server) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.open()
    assert (refused.value.status, server.opened) == (403, 0)
    (call,) = await ended(here)
    assert (call.decision, call.code) == ("deny", "no-allow")


async def test_a_deny_of_a_host_holds_for_its_websockets(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server, OPEN + '  - {id: no-a, match: "https://localhost:PORT/live/a", deny: Not here.}\n')
    async with Client(here, server) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.open()
        async with client.open("/live/b") as socket:
            await socket.send_str("x")
            assert await socket.receive_str() == "you said x"
    assert server.got == ["x"]


async def test_an_answer_that_is_no_upgrade_is_an_answer(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server)
    async with Client(here, server) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as answered:
            await client.open("/live/plain")
    assert answered.value.status == 200
    (call,) = await ended(here)
    assert (call.outcome, call.status) == ("done", 200)


MESSAGES = """
version: 1
rules:
  - {id: open, match: "GET wss://localhost:PORT/live/**", allow: true}
  - {id: say, match: "MESSAGE wss://localhost:PORT/live/**", where: {body.kind: {in: [say, ask]}}, allow: true}
  - {id: quiet, match: "MESSAGE wss://localhost:PORT/live/**", where: {body.to: all}, deny: Not to everybody.}
  - {id: pace, match: "MESSAGE wss://localhost:PORT/live/**", throttle: 3/h}
"""


MESSAGES_ONE_BY_ONE = """
  - {id: singly, match: "MESSAGE wss://localhost:PORT/live/**", concurrency: 1}
"""


async def refusal(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str | None]:
    message = await socket.receive()
    assert message.type == aiohttp.WSMsgType.CLOSE
    return message.data, message.extra


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        ('{"kind": "say", "to": "all"}', "policy-denied", "Not to everybody."),
        ('{"kind": "shout"}', "no-allow", "No rule allows this call"),
        ("plain text", "ambiguous-request", "The request is ambiguous"),
        (b"\x00", "ambiguous-request", "The request is ambiguous"),
    ],
)
async def test_a_message_that_rules_refuse_ends_the_websocket(
    world: MakeWorld, server: SocketServer, content: str | bytes, code: str, reason: str
) -> None:
    here = await made(world, server, MESSAGES)
    fine = '{"kind": "say", "to": "one"}'
    async with Client(here, server) as client, client.open() as socket:
        await socket.send_str(fine)
        assert await socket.receive_str() == f"you said {fine}"
        await (socket.send_str(content) if isinstance(content, str) else socket.send_bytes(content))
        closed, why = await refusal(socket)
    assert closed == 1008
    assert (why or "").startswith(reason)
    assert server.got == [fine]
    opened, said, refused = await ended(here)
    assert (opened.method, opened.outcome) == ("GET", "done")
    assert (said.method, said.decision, said.outcome) == ("MESSAGE", "allow", "done")
    assert (refused.method, refused.decision, refused.code) == ("MESSAGE", "deny", code)


async def test_messages_are_counted_by_guards(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server, MESSAGES)
    async with Client(here, server) as client, client.open() as socket:
        for n in range(3):
            await socket.send_str(json.dumps({"kind": "say", "n": n}))
            await socket.receive_str()
        await socket.send_str('{"kind": "say", "n": 3}')
        assert (await refusal(socket))[0] == 1008
    assert len(server.got) == 3


async def test_a_message_is_on_record_before_it_leaves(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server, MESSAGES)
    async with Client(here, server) as client, client.open() as socket:
        await socket.send_str('{"kind": "ask"}')
        await socket.receive_str()
        seen = [(call.method, call.decision) for call in calls(here.ledger)]
    assert seen == [("GET", "allow"), ("MESSAGE", "allow")]


@pytest.mark.parametrize("told", [True, False], ids=["at once", "at its next message"])
async def test_rules_that_change_end_a_websocket(world: MakeWorld, server: SocketServer, told: bool) -> None:
    here = await world(OPEN.replace("PORT", str(server.port)), reload=True)
    if not told:
        here.proxy._gate.changed = lambda: None
    async with Client(here, server) as client, client.open() as socket:
        await socket.send_str("one")
        await socket.receive_str()
        changed = OPEN.replace("PORT", str(server.port)) + '  - {id: stop, match: "https://**", deny: Enough.}\n'
        reloaded = asyncio.ensure_future(here.proxy.changed.wait())
        save(here.directory / "rules.yaml", changed)
        await asyncio.wait_for(reloaded, 20)
        if told:
            why = "Enough. It was cut off while it went on; whether it took effect is not known."
        else:
            why = "Enough. It was decided by policy, and nothing was executed."
            await socket.send_str("two")
        assert await refusal(socket) == (1008, why)
    assert server.got == ["one"]


async def test_a_halt_ends_it_at_once_whoever_speaks(world: MakeWorld, server: SocketServer) -> None:
    """The client says nothing, and the server goes on and on."""
    here = await made(world, server)

    async def chatter(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not socket.closed:
                await socket.send_str("and")
                with contextlib.suppress(TimeoutError):
                    await socket.receive(timeout=0.01)
        server.closed.append(socket.close_code or 0)
        return socket

    server.serve_socket = chatter
    async with Client(here, server) as client, client.open() as socket:
        assert await socket.receive_str() == "and"
        here.proxy._gate.halt(Halt("", "", "Look first.", "ada", 0))
        while (message := await asyncio.wait_for(socket.receive(), 5)).type == aiohttp.WSMsgType.TEXT:
            pass
        assert (message.data, str(message.extra)[:11]) == (1008, "Look first.")
        await until(lambda: server.closed == [1008])
    (call,) = await ended(here)
    assert (call.outcome, call.status) == ("done", 101)


async def test_an_error_of_ours_ends_it_when_it_is_looked_at(
    world: MakeWorld, server: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await made(world, server)

    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    async with Client(here, server) as client, client.open() as socket:
        with monkeypatch.context() as patch:
            patch.setattr("proxy.gate.Gate.goes_on", fail)
            here.proxy._master.look()
            assert (await refusal(socket))[0] == 1008
    assert server.got == []


async def test_the_server_ends_it_with_its_own_words(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server)
    async with Client(here, server) as client, client.open() as socket:
        await socket.send_str("bye")
        assert await refusal(socket) == (4001, "as you wish")
    (call,) = await ended(here)
    assert call.outcome == "done"


async def test_a_server_that_breaks_off_is_told(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server)
    async with Client(here, server) as client, client.open() as socket:
        await socket.send_str("break")
        assert (await refusal(socket))[0] == 1001
    (call,) = await ended(here)
    with LedgerReader.open(here.ledger) as reader:
        (outcome,) = reader.show(call.id).outcomes
    assert (outcome.outcome, outcome.error, outcome.messages) == ("done", "the API broke off", (1, 0))


async def test_a_client_that_leaves_ends_it(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server)
    async with Client(here, server) as client:
        socket = await client.open()
        await socket.send_str("one")
        await socket.receive_str()
        socket._response.connection.transport.abort()
    (call,) = await ended(here)
    assert (call.outcome, call.status) == ("done", 101)


async def test_a_message_over_the_cap_ends_it(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server)
    async with Client(here, server) as client, client.open() as socket:
        await socket.send_bytes(bytes(MESSAGE_CAP_BYTES))
        assert len(await socket.receive_bytes()) == MESSAGE_CAP_BYTES
        sending = asyncio.ensure_future(socket.send_bytes(bytes(MESSAGE_CAP_BYTES + 1)))
        assert (await refusal(socket))[0] == 1009
        await asyncio.gather(sending, return_exceptions=True)
    assert [len(one) for one in server.got] == [MESSAGE_CAP_BYTES]


async def test_an_error_of_ours_lets_no_message_through(
    world: MakeWorld, server: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await made(world, server)

    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    async with Client(here, server) as client, client.open() as socket:
        monkeypatch.setattr("proxy.gate.Gate.still", fail)
        await socket.send_str("one")
        assert await refusal(socket) == (1008, "it could not be decided")
    assert server.got == []


@pytest.mark.parametrize("error", [RuntimeError, LedgerError, MemoryError])
@pytest.mark.parametrize(
    "place",
    [
        "proxy.gate.Gate.still",
        "proxy.gate.Gate.look",
        "proxy.gate.Gate.admit",
        "proxy.gate.Gate._try",
        "proxy.gate.Gate._record",
        "proxy.gate.Gate._call_for",
        "proxy.addon.read_message",
        "proxy.addon.readable",
        "rules.decide.recheck",
        "rules.decide.decides_messages",
        "rules.guards.concurrency.Concurrency.check",
        "proxy.ledger.store.Ledger.durable",
    ],
)
async def test_error_never_lets_a_message_through_and_nothing_stays_held(
    world: MakeWorld, server: SocketServer, monkeypatch: pytest.MonkeyPatch, place: str, error: type[Exception]
) -> None:
    here = await made(world, server, MESSAGES + MESSAGES_ONE_BY_ONE)

    def fail(*_: object) -> None:
        raise error("a fault")

    said = '{"kind": "say"}' if place != "proxy.addon.readable" else '{"kind": "shout"}'
    async with Client(here, server) as client:
        async with client.open() as socket:
            with monkeypatch.context() as patch:
                if place == "proxy.gate.Gate.look":
                    patch.setattr(here.proxy._gate, "look", fail)
                else:
                    patch.setattr(place, fail)
                await socket.send_str(said)
                closed, _ = await refusal(socket)
        assert (closed, server.got) == (1008, [])
        async with client.open() as socket:
            await socket.send_str('{"kind": "say"}')
            await socket.receive_str()
    assert server.got == ['{"kind": "say"}']


async def test_an_open_websocket_holds_its_slot_until_it_ends(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server, OPEN.replace("allow: true", "allow: true, concurrency: 1"))
    async with Client(here, server) as client:
        async with client.open() as socket:
            await socket.send_str("one")
            await socket.receive_str()
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.open()
            assert refused.value.status == 429
        await until(lambda: not here.proxy._gate._state.of(Leases).rows)
        async with client.open() as socket:
            await socket.send_str("two")
            await socket.receive_str()
    assert server.got == ["one", "two"]


async def test_many_at_once(world: MakeWorld, server: SocketServer) -> None:
    here = await made(world, server)

    async def talk(client: Client, n: int) -> str:
        async with client.open(f"/live/{n}") as socket:
            await socket.send_str(str(n))
            return str(await socket.receive_str())

    async with Client(here, server) as client:
        said = await asyncio.gather(*(talk(client, n) for n in range(200)))
    assert said == [f"you said {n}" for n in range(200)]
    assert sorted(server.got) == sorted(map(str, range(200)))
    recorded = await ended(here)
    assert [call.outcome for call in recorded] == ["done"] * 200


BAD = {
    "another protocol": {"upgrade": "h2c, websocket"},
    "another version": {"sec-websocket-version": "8"},
    "a method that writes": {},
}


@pytest.mark.parametrize("what", BAD)
async def test_what_is_no_handshake_is_refused(world: MakeWorld, server: SocketServer, what: str) -> None:
    here = await made(world, server)
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
        **BAD[what],
    }
    trust = ssl.create_default_context(cafile=str(here.proxy.ca_path))
    method = "POST" if what == "a method that writes" else "GET"
    url = f"https://localhost:{server.port}/live/a"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, proxy=here.proxy_url, ssl=trust, headers=headers) as answer,
    ):
        assert answer.status == 403
        assert (await answer.json(content_type=None))["code"] == "upgrade-refused"
    assert server.opened == 0
