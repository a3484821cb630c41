"""Where a call really goes: names are resolved once, every address is checked, and only those addresses are dialled.

mitmproxy resolves at every dial and never checks. Here the checked addresses are handed to the event loop through a
context variable of the dialling task, so that the name stays the connection's name (for TLS, and for using it again).
"""

from __future__ import annotations

import asyncio
import socket
from contextvars import ContextVar
from typing import Any

from proxy.destination import is_public, refuse_reason
from proxy.wire.host import canonical_host

type AddressInfo = tuple[int, int, int, str, Any]

_CHECKED: ContextVar[tuple[str, int, list[AddressInfo]] | None] = ContextVar("checked", default=None)


async def check(host: str, port: int, *, exact: bool, own: frozenset[tuple[str, int]]) -> tuple[str | None, bool]:
    """Why `host:port` must not be dialled (or None), and whether it is private. Pins the addresses for this task.

    `exact`: the call's host stands literally in a rule that allows it. `own`: our listening addresses.
    Raises `OSError` when the name cannot be resolved.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = tuple(str(info[4][0]).partition("%")[0] for info in infos)
    reason = refuse_reason(addresses, exact_name=exact, literal=canonical_host(host) in addresses, port=port, own=own)
    _CHECKED.set((host, port, infos))  # type: ignore[arg-type]
    return reason, not all(is_public(address) for address in addresses)


def pin(loop: asyncio.AbstractEventLoop) -> None:
    """Make `loop` resolve a name that the running task has checked to exactly the addresses that were checked."""
    resolve = loop.getaddrinfo

    async def checked_first(host: Any, port: Any, **hints: Any) -> list[Any]:
        checked = _CHECKED.get()
        if checked is not None and checked[:2] == (host, port):
            return checked[2]
        return await resolve(host, port, **hints)

    loop.getaddrinfo = checked_first  # type: ignore[method-assign]
