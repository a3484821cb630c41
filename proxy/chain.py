"""A proxy behind this one: with `--upstream-proxy`, every connection goes through it, and nothing else is ever dialled.

A tunnel (CONNECT, RFC 9110 9.3.6) for every scheme, so that it sees where calls go, and our credentials for it stay
between it and us.
"""

from __future__ import annotations

import asyncio
import base64
import re
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from proxy.wire.error import WireError
from proxy.wire.host import canonical_host

ANSWER_S = 60.0
"""How long it may take to open a tunnel: it has to reach the API first."""

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r)")


class UpstreamProxy(msgspec.Struct, frozen=True):
    """Where it is. `credential`: the value of Proxy-Authorization, or empty."""

    host: str
    port: int
    credential: str = ""

    def __str__(self) -> str:
        """Its address, without credentials."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


class TunnelError(OSError):
    """There is no tunnel. Nothing was sent to the API."""


def parse(url: str) -> UpstreamProxy:
    """The proxy that `http://[USER:PASSWORD@]HOST:PORT` names. Raises `ValueError`, whose text never repeats `url`."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise ValueError("it has to begin with `http://`")
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("write `http://HOST:PORT`, or `http://USER:PASSWORD@HOST:PORT`")
    try:
        port = parts.port or 0
    except ValueError:
        port = 0  # its own text would repeat what may be part of a password
    if not port:
        raise ValueError("it names no port: write `http://HOST:PORT`, and `%` signs for what is special in a password")
    try:
        host = canonical_host(parts.hostname)
    except WireError as error:
        raise ValueError(error.detail) from None
    user, at, _ = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    secret = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    return UpstreamProxy(host, port, "Basic " + base64.b64encode(secret).decode("ascii") if at else "")


async def open_tunnel(
    through: UpstreamProxy, host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to `host:port` by way of `through`. Raises `OSError`."""
    try:
        reader, writer = await asyncio.open_connection(through.host, through.port)
    except OSError as error:
        raise TunnelError(f"cannot reach the upstream proxy: {error.strerror or error}") from None
    try:
        async with asyncio.timeout(ANSWER_S):
            await _connect(reader, writer, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", through.credential)
    except TimeoutError:
        writer.close()
        raise TunnelError(f"the upstream proxy opened no tunnel within {ANSWER_S:.0f} s") from None
    except TunnelError:
        writer.close()
        raise
    except (OSError, asyncio.IncompleteReadError):
        writer.close()
        raise TunnelError("the upstream proxy closed the connection") from None
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, credential: str) -> None:
    said = f"Proxy-Authorization: {credential}\r\n" if credential else ""
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{said}\r\n".encode("ascii"))
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise TunnelError("the upstream proxy does not speak HTTP/1.1") from None
    status = _STATUS.match(head)
    if status is None:
        raise TunnelError("the upstream proxy does not speak HTTP/1.1")
    if status[1] == b"407":
        what = "does not accept the credentials in --upstream-proxy" if credential else "wants credentials"
        raise TunnelError(f"the upstream proxy {what} (407)")
    if not status[1].startswith(b"2"):
        raise TunnelError(f"the upstream proxy opened no tunnel: it answered {status[1].decode()}")
