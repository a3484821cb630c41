"""Run by the clients' own Python: `sockets.py CLIENT URL` opens a WebSocket, says `SAID`, and checks the echo."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module

SAID: tuple[str | bytes, ...] = ("hello", b"\x00\x01" * 1000, "ü" * 70_000, "bye")


def echo(said: str | bytes) -> str | bytes:
    return said.upper() if isinstance(said, str) else said


def by_websockets_sync(url: str) -> None:
    with import_module("websockets.sync.client").connect(url) as socket:
        for said in SAID:
            socket.send(said)
            assert socket.recv() == echo(said)


async def by_websockets(url: str) -> None:
    async with import_module("websockets").connect(url) as socket:
        for said in SAID:
            await socket.send(said)
            assert await socket.recv() == echo(said)


async def by_aiohttp(url: str) -> None:
    async with import_module("aiohttp").ClientSession() as session, session.ws_connect(url) as socket:
        for said in SAID:
            await (socket.send_str(said) if isinstance(said, str) else socket.send_bytes(said))
            assert (await socket.receive()).data == echo(said)


if __name__ == "__main__":
    client, url = sys.argv[1:]
    if client == "websockets-sync":
        by_websockets_sync(url)
    else:
        asyncio.run({"websockets": by_websockets, "aiohttp": by_aiohttp}[client](url))
