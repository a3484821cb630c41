"""An API behind TLS that counts its effects, and calls back at the moments in which a proxy can be killed."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable

import h11

type Moment = Callable[[], Awaitable[None]]


class Upstream:
    """`effects` counts, by path, the requests that arrived whole: that is the truth. `answers` are what it said.

    `moments` maps (moment, path) to what is awaited then: `first-byte` (the head is there, the body is not read),
    `acted` (the effect is counted, nothing is answered), `half-answered` (the first half of the answer is sent).
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.effects: Counter[str] = Counter()
        self.answers: dict[str, bytes] = {}
        self.moments: dict[tuple[str, str], Moment] = {}
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=16384)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, h11.RemoteProtocolError):
            pass  # the proxy was killed
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        connection = h11.Connection(h11.SERVER)
        path = ""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(8192))
            elif isinstance(event, h11.Request):
                path = event.target.decode()
                await self._reach("first-byte", path)
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.Data):
                return False
        self.effects[path] += 1
        await self._reach("acted", path)
        body = b"%s is effect %d" % (path.encode(), self.effects.total()) + b"." * 100_000
        self.answers[path] = body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:50_000])
        await writer.drain()
        await self._reach("half-answered", path)
        writer.write(body[50_000:])
        await writer.drain()
        return True

    async def _reach(self, moment: str, path: str) -> None:
        act = self.moments.pop((moment, path), None)
        if act is not None:
            await act()
