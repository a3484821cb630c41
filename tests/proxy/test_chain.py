"""A proxy behind ours: all that goes out goes through it, it alone gets its credentials, and its refusals are clear."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

import proxy.chain
from proxy.chain import UpstreamProxy, parse
from proxy.destination import refuse_name
from tests.proxy.conftest import MakeWorld, World
from tests.proxy.test_attacks import Wire, entries, recorded
from tests.proxy.test_streams import Far, Near
from tests.proxy.test_websocket import Client, SocketServer, server

__all__ = ["server"]  # the fixture

RULES = """
version: 1
rules:
  - {id: all, match: "{origin}/**", allow: true}
  - {id: no, match: "{origin}/no", deny: "Not this."}
  - {id: once, match: "POST {origin}/pay", dedupe: 1h}
"""


class Squid:
    """A proxy that opens tunnels. `asked` is the truth about what reached it, `ends` about what left it."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.ends: set[tuple[str, int]] = set()
        self.seen = bytearray()
        self.reply = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 squid\r\n\r\n"
        self.silent = False
        self.to: tuple[str, int] | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        self._server.close()

    @property
    def proxy(self) -> UpstreamProxy:
        return UpstreamProxy("127.0.0.1", self.port)

    @property
    def targets(self) -> list[str]:
        return [head.split(b" ")[1].decode() for head in self.asked]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            if self.silent:
                await reader.read()
            elif b" 200 " not in self.reply:
                writer.write(self.reply)
            else:
                host, _, port = head.split(b" ")[1].decode().rpartition(":")
                there, back = await asyncio.open_connection(*(self.to or (host.strip("[]"), int(port))))
                self.ends.add(back.get_extra_info("sockname")[:2])
                writer.write(self.reply)
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.seen += data
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def squid() -> AsyncIterator[Squid]:
    one = Squid()
    await one.start()
    yield one
    one.stop()


@pytest.fixture
def peers(upstream: Any, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """Where the connections that reach the upstream come from."""
    found: set[tuple[str, int]] = set()
    serve = upstream._serve

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.add(writer.get_extra_info("peername")[:2])
        await serve(reader, writer)

    monkeypatch.setattr(upstream, "_serve", noting)
    return found


async def again(upstream: Any, *, tls: bool) -> None:
    """Have the upstream listen anew: with what was patched, with TLS or without."""
    await upstream.stop()
    await upstream.start(tls)


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_everything_goes_through_it(
    world: MakeWorld, upstream: Any, squid: Squid, peers: set[tuple[str, int]], scheme: str
) -> None:
    await again(upstream, tls=scheme == "https")
    here = await world(RULES.replace("{origin}", f"{scheme}://localhost:{upstream.port}"), upstream_proxy=squid.proxy)
    async with here.client() as client:
        for path in ("/a", "/b"):
            got = await client.get(f"{scheme}://localhost:{upstream.port}{path}")
            assert got.status_code == 200
        large = await client.post(f"{scheme}://localhost:{upstream.port}/up", content=b"x" * 3_000_000)
        assert large.status_code == 200
    assert [(hit.method, hit.target, len(hit.body)) for hit in upstream.hits] == [
        ("GET", "/a", 0),
        ("GET", "/b", 0),
        ("POST", "/up", 3_000_000),
    ]
    assert set(squid.targets) == {f"localhost:{upstream.port}"}
    assert peers == squid.ends and peers, "who reached the upstream came from the proxy"
    assert len(squid.asked) == upstream.connections
    assert not [hit for hit in upstream.hits if hit.header("proxy-authorization")]


async def test_what_is_refused_touches_neither(world: MakeWorld, upstream: Any, squid: Squid) -> None:
    here = await world(RULES, upstream_proxy=squid.proxy)
    async with here.client() as client:
        assert (await client.get("/no")).status_code == 403
        assert (await client.get("https://other.example/")).status_code == 403
    assert (squid.asked, upstream.connections) == ([], 0)


async def test_its_credentials_are_for_it_alone(world: MakeWorld, upstream: Any, squid: Squid) -> None:
    through = parse(f"http://us%40er:p%3Ass@127.0.0.1:{squid.port}")
    here = await world(RULES, upstream_proxy=through)
    async with here.client() as client:
        assert (await client.get("/a")).status_code == 200
    token = base64.b64encode(b"us@er:p:ss")
    assert [b"Proxy-Authorization: Basic " + token + b"\r\n" in head for head in squid.asked] == [True]
    assert token not in squid.seen
    assert not [hit for hit in upstream.hits if hit.header("proxy-authorization")]
    assert token.decode() not in repr(entries(here))


FAILS = [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "wants credentials (407)"),
    (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "opened no tunnel: it answered 503"),
    (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret", "opened no tunnel: it answered 403"),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP/1.1"),
    (b"x" * 200_000, "does not speak HTTP/1.1"),
    (b"HTTP/1.1 200", "closed the connection"),
    (b"", "closed the connection"),
]


@pytest.mark.parametrize(("reply", "told"), FAILS, ids=[told for _, told in FAILS])
async def test_a_proxy_that_refuses_is_told_and_nothing_was_executed(
    world: MakeWorld, upstream: Any, squid: Squid, reply: bytes, told: str
) -> None:
    squid.reply = reply
    here = await world(RULES, upstream_proxy=squid.proxy)
    async with here.client() as client:
        for _ in range(2):
            got = await client.post("/pay", json={"amount": 5})
            assert (got.status_code, got.json()["code"], got.json()["executed"]) == (502, "upstream-failed", "no")
            assert told in got.json()["detail"] and "secret" not in got.text
    assert len(squid.asked) == 2, "the second is no duplicate: the first was not sent"
    assert upstream.connections == 0
    assert [row[1:] for row in await recorded(here)] == [("allow", "not_executed")] * 2


async def test_where_it_is_not_there_nothing_goes_round_it(world: MakeWorld, upstream: Any, squid: Squid) -> None:
    squid.stop()
    here = await world(RULES, upstream_proxy=squid.proxy)
    async with here.client() as client:
        got = await client.get("/a")
    assert (got.status_code, got.json()["executed"]) == (502, "no")
    assert "cannot reach the upstream proxy" in got.json()["detail"]
    assert upstream.connections == 0


async def test_its_name_is_resolved_and_the_names_of_calls_are_not(
    world: MakeWorld, upstream: Any, squid: Squid
) -> None:
    """`api.invalid` has no address here: the proxy knows one. Its certificate is still checked."""
    squid.to = ("127.0.0.1", upstream.port)
    rules = RULES.replace("{origin}", "https://api.invalid:1")
    here = await world(rules, upstream_proxy=UpstreamProxy("localhost", squid.port))
    async with here.client() as client:
        got = await client.get("https://api.invalid:1/a")
    assert squid.targets == ["api.invalid:1"]
    assert got.status_code == 502 and "certificate" in got.json()["detail"].lower()
    assert upstream.hits == []


async def test_a_proxy_that_says_nothing_is_given_up(
    world: MakeWorld, upstream: Any, squid: Squid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.chain, "ANSWER_S", 0.05)
    squid.silent = True
    here = await world(RULES, upstream_proxy=squid.proxy)
    async with here.client() as client:
        got = await client.get("/a")
    assert got.status_code == 502 and "opened no tunnel within" in got.json()["detail"]
    assert upstream.connections == 0


async def test_the_proxy_is_not_ourselves(world: MakeWorld, upstream: Any) -> None:
    """It would send every call round in circles."""
    here: World = await world(RULES)
    address = here.proxy.address
    await here.proxy.stop()
    looped = await world(RULES, listen_port=address[1], upstream_proxy=UpstreamProxy("localhost", address[1]))
    async with looped.client() as client:
        got = await client.get("/a")
    assert (got.status_code, got.json()["code"]) == (403, "destination-refused")
    assert "this proxy itself" in got.json()["detail"]
    assert upstream.connections == 0


async def test_a_unsound_answer_ends_the_tunnel(world: MakeWorld, wire: Wire, squid: Squid) -> None:
    """What follows it is not taken for the answer to the next call."""

    async def switching(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Now\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")

    here = await world(RULES, upstream_proxy=squid.proxy)
    wire.answering = switching
    async with here.client() as client:
        assert [(await client.get(path)).status_code for path in ("/a", "/b")] == [502, 502]
    assert (len(squid.asked), wire.connections) == (2, 2)


async def test_a_websocket_goes_through_it(
    world: MakeWorld,
    server: SocketServer,
    squid: Squid,
) -> None:
    rules = 'version: 1\nrules:\n  - {id: live, match: "wss://localhost:PORT/live/**", allow: true}\n'
    here = await world(rules.replace("PORT", str(server.port)), upstream_proxy=squid.proxy)
    async with Client(here, server) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.open("/other")
        assert squid.asked == []
        async with client.open() as socket:
            for n in range(3):
                await socket.send_str(str(n))
                assert await socket.receive_str() == f"you said {n}"
    assert server.got == ["0", "1", "2"]
    assert squid.targets == [f"localhost:{server.port}"]
    assert await recorded(here) == [("GET /other", "no-allow", None), ("GET /live/a", "allow", "done")]


async def test_grpc_in_turns_goes_through_it(world: MakeWorld, wire: Wire, squid: Squid) -> None:
    far = Far(wire)
    here = await world(RULES, upstream_proxy=squid.proxy)
    talk = await Near.begin(here, b"/bank.Talks/Chat")
    said = b""
    for n in range(3):
        said += b"%d" % n
        await talk.say(b"%d" % n)
        await talk.hear(lambda: talk.body == said)  # noqa: B023  asked before the next turn
    await talk.say(b"", end=True)
    await talk.hear_the_end()
    assert (bytes(far.got[1]), talk.trailers) == (b"012", {b"grpc-status": b"0"})
    assert (squid.targets, wire.connections) == ([f"localhost:{wire.port}"], 1)
    assert await recorded(here) == [("POST /bank.Talks/Chat", "allow", "done")]


async def test_grpc_with_a_proxy_that_refuses_has_not_happened(world: MakeWorld, wire: Wire, squid: Squid) -> None:
    Far(wire)
    squid.reply = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    here = await world(RULES, upstream_proxy=squid.proxy)
    talk = await Near.begin(here, b"/bank.Talks/Chat")
    await talk.say(b"one")
    await talk.hear_the_end()
    assert talk.head[b"grpc-status"] == b"14"
    assert b"the upstream proxy opened no tunnel" in talk.head[b"grpc-message"]
    assert wire.connections == 0
    assert await recorded(here) == [("POST /bank.Talks/Chat", "allow", "not_executed")]


@pytest.fixture
async def wire(upstream: Any) -> AsyncIterator[Wire]:
    """In place of the upstream."""
    there = Wire(upstream.tls)
    await there.start()
    upstream.port = there.port
    yield there
    there.stop()


OWN = frozenset({("127.0.0.1", 8080)})
NAMES = [
    ("api.example.com", False, 443, "", False),
    ("93.184.216.34", False, 443, "", False),
    ("10.0.0.1", False, 443, "private address", True),
    ("10.0.0.1", True, 443, "", True),
    ("169.254.169.254", False, 80, "metadata address", True),
    ("169.254.169.254", True, 80, "", True),
    ("224.0.0.1", True, 80, "multicast", True),
    ("::1", False, 443, "loopback", True),
    ("localhost", False, 443, "loopback", True),
    ("localhost", True, 443, "", True),
    ("localhost", True, 8080, "this proxy itself", True),
    ("127.0.0.1", True, 8080, "this proxy itself", True),
    ("a.localhost", False, 443, "loopback", True),
    ("vault", False, 443, "inside a network", True),
    ("vault", True, 443, "", True),
    ("vault.corp", False, 443, "inside a network", True),
    ("printer.local", False, 443, "inside a network", True),
    ("db.internal", True, 443, "", True),
    ("metadata.google.internal", True, 80, "credentials", True),
    ("internal.example.com", False, 443, "", False),
]


@pytest.mark.parametrize(("host", "exact", "port", "told", "private"), NAMES)
def test_names_are_checked_as_far_as_they_tell(host: str, exact: bool, port: int, told: str, private: bool) -> None:
    reason, inside = refuse_name(host, exact_name=exact, port=port, own=OWN)
    assert (told in (reason or ""), reason is None, inside) == (True, not told, private)


URLS = [
    ("http://proxy.example:3128", UpstreamProxy("proxy.example", 3128), "http://proxy.example:3128"),
    ("http://Proxy.Example:3128/", UpstreamProxy("proxy.example", 3128), "http://proxy.example:3128"),
    ("http://[::1]:3128", UpstreamProxy("::1", 3128), "http://[::1]:3128"),
    ("http://a:b@p:1", UpstreamProxy("p", 1, "Basic YTpi"), "http://p:1"),
    ("http://a@p:1", UpstreamProxy("p", 1, "Basic YTo="), "http://p:1"),
]


@pytest.mark.parametrize(("url", "read", "shown"), URLS)
def test_a_url_is_read(url: str, read: UpstreamProxy, shown: str) -> None:
    assert (parse(url), str(parse(url))) == (read, shown)


@pytest.mark.parametrize(
    "url",
    ["", "proxy:3128", "https://p:1", "socks5://p:1", "http://p", "http://:1", "http://p:0", "http://p:99999", "http://p:x",
     "http://p:1/path", "http://p:1?q", "http://1.2.3:1", "http://secret:secret@p"],
)  # fmt: skip
def test_what_is_no_proxy_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse(url)
    assert "secret" not in str(raised.value)
