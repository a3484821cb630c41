"""A real proxy, a real TLS upstream that counts what reaches it, and ways to call through the one to the other."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import h11
import httpx
import pytest
import trustme

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mitmproxy's addons import libraries that warn of each other
    import mitmproxy.addons  # noqa: F401

from proxy.clock import Clock
from proxy.rulefiles import RuleFiles, read
from proxy.server import Proxy
from proxy.settings import Settings


@dataclass
class Hit:
    """One request as the upstream got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for sent, value in self.headers if sent == name), None)


type Respond = Callable[[Hit, asyncio.StreamWriter], Awaitable[bytes]]
"""Gives the raw bytes of the answer; may write some of them itself, or close the connection."""


def answer(status: int, body: bytes = b"{}", *headers: tuple[str, str]) -> bytes:
    """A whole HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} Status", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Upstream:
    """An HTTP/1.1 server. `hits` is the truth about what left the proxy."""

    tls: ssl.SSLContext
    hits: list[Hit] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    respond: Respond | None = None
    _server: asyncio.Server | None = None

    async def start(self, tls: bool = True) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls if tls else None)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        try:
            while (hit := await _read(connection, reader)) is not None:
                self.hits.append(hit)
                reply = answer(200, b'{"n":%d}' % len(self.hits))
                if self.respond is not None:
                    reply = await self.respond(hit, writer)
                if writer.is_closing():
                    return
                writer.write(reply)
                await writer.drain()
                connection = h11.Connection(h11.SERVER)
        except (ConnectionError, h11.RemoteProtocolError):
            pass
        finally:
            writer.close()


async def _read(connection: h11.Connection, reader: asyncio.StreamReader) -> Hit | None:
    hit: Hit | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            headers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
            hit = Hit(event.method.decode(), event.target.decode(), headers, b"")
        elif isinstance(event, h11.Data):
            assert hit is not None
            hit.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return hit
        else:
            return None


@dataclass
class World:
    """A proxy in front of an upstream, both in the test's own event loop."""

    proxy: Proxy
    upstream: Upstream
    directory: Path
    settings: Settings
    opened: list[asyncio.StreamWriter] = field(default_factory=list)
    """Connections of clients that speak by hand: closed when the test is over."""

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.upstream.port}"

    @property
    def proxy_url(self) -> str:
        return f"http://{self.proxy.address[0]}:{self.proxy.address[1]}"

    def client(self, **options: object) -> httpx.AsyncClient:
        """An httpx client behind the proxy, that trusts its CA."""
        trust = ssl.create_default_context(cafile=str(self.proxy.ca_path))
        options.setdefault("proxy", self.proxy_url)
        return httpx.AsyncClient(verify=trust, base_url=self.origin, **options)  # type: ignore[arg-type]

    @property
    def ledger(self) -> Path:
        return self.settings.ledger


async def until(holds: Callable[[], bool]) -> None:
    """Give the event loop turns until `holds`."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  anything may come to hold
            await asyncio.sleep(0)


type MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def upstream(authority: trustme.CA) -> AsyncIterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    server = Upstream(context)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def world(authority: trustme.CA, upstream: Upstream, tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Starts a proxy with the given rules; `{origin}` in them stands for the upstream."""
    running: list[World] = []

    async def make(rules: str, clock: Clock | None = None, **changes: object) -> World:
        ca = tmp_path / "upstream.pem"
        authority.cert_pem.write_to_path(str(ca))
        file = tmp_path / "rules.yaml"
        file.write_text(rules.replace("{origin}", f"https://localhost:{upstream.port}"))
        options: dict[str, object] = {
            "command": "serve",
            "ledger": tmp_path / "ledger.db",
            "confdir": tmp_path / "confdir",
            "listen_host": "127.0.0.1",
            "listen_port": 0,
            "rules": (file,),
            "upstream_ca": (ca,),
        }
        settings = Settings(**(options | changes))  # type: ignore[arg-type]
        files: RuleFiles = read(settings.rules, Path.cwd(), settings.mode)
        proxy = Proxy(settings, files, clock)
        await proxy.start()
        running.append(World(proxy, upstream, tmp_path, settings))
        return running[-1]

    yield make
    for one in running:
        for writer in one.opened:
            writer.close()
        await one.proxy.stop()
