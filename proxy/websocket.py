"""An open WebSocket: what the client sends is looked at message by message, what comes back is handed on as it comes.
It ends as soon as it would not be opened any more.

wsproto reads and writes the frames (RFC 6455). No extension is ever agreed on: a compressed frame of a few bytes could
unfold to any size. A message of the client is kept until it is whole, up to a cap; our hook then says whether it goes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.commands import StartHook
from mitmproxy.proxy.context import Context
from wsproto import ConnectionType
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from proxy.commands import GoesOn, GoesOnHook, Look, Wait
from proxy.exchange import Counted

MESSAGE_CAP_BYTES = 16 * 1024 * 1024

POLICY_VIOLATION = 1008
TOO_BIG = 1009
"""RFC 6455 7.4.1."""

UNSENT = {1005: 1000, 1006: 1001}
"""What is sent instead: a normal end for one that gave no code, going away for one that broke off."""

REASON_CAP_BYTES = 123
"""A close frame holds this much beside its code (RFC 6455 5.5)."""


class Said:
    """The client sent `content`, text or bytes. `refusal`: why it may not go on; None lifts it."""

    def __init__(self, flow: http.HTTPFlow, content: str | bytes) -> None:
        self.flow = flow
        self.content = content
        self.refusal: str | None = "it could not be decided"


@dataclass
class SocketMessageHook(StartHook):
    """Decide what the client said."""

    said: Said


@dataclass
class SocketEndHook(StartHook):
    """The WebSocket is over; `reason` says why, where it did not end well."""

    flow: http.HTTPFlow
    reason: str


class Socket(layer.Layer):
    """The layer that takes over when an upstream has switched protocols."""

    def __init__(self, context: Context, flow: http.HTTPFlow, counted: Counted) -> None:
        super().__init__(context)
        self._flow = flow
        self._counted = counted
        self._client = Frames(ConnectionType.SERVER)
        self._server = Frames(ConnectionType.CLIENT)
        self._text: list[str] = []
        self._bytes = bytearray()
        self._held_bytes = 0
        self._over = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Take what one side sent. What comes after the end is for nobody."""
        if isinstance(event, Look) and not self._over:
            going = GoesOn(self._flow)
            yield GoesOnHook(going)
            if going.refusal is not None:
                why = going.refusal.detail
                yield from self._close(CloseConnection(POLICY_VIOLATION, _short(why)), why)
        if self._over or not isinstance(event, events.DataReceived | events.ConnectionClosed):
            return
        from_client = event.connection == self.context.client
        frames = self._client if from_client else self._server
        frames.receive_data(event.data if isinstance(event, events.DataReceived) else None)
        for one in frames.events():
            if isinstance(one, TextMessage | BytesMessage):
                yield from self._from_client(one) if from_client else self._from_server(one)
            elif isinstance(one, Ping | Pong):
                yield from self._pass_on(one, not from_client)
            elif isinstance(one, CloseConnection):
                clean = isinstance(event, events.DataReceived)
                yield from self._close(one, "" if clean else f"the {'client' if from_client else 'API'} broke off")
            if self._over:
                return

    def _from_client(self, one: TextMessage | BytesMessage) -> layer.CommandGenerator[None]:
        """Keep a piece; when the message is whole, have it decided and send it."""
        self._held_bytes += len(one.data)
        if self._held_bytes > MESSAGE_CAP_BYTES:
            yield from self._close(CloseConnection(TOO_BIG, "the message is too large"), "a message was too large")
            return
        content: str | bytes
        if isinstance(one, TextMessage):
            if one.data:  # of empty pieces there may be any number
                self._text.append(one.data)
            content = "".join(self._text) if one.message_finished else ""
        else:
            self._bytes += one.data
            content = bytes(self._bytes) if one.message_finished else b""
        if not one.message_finished:
            return
        self._text.clear()
        self._bytes.clear()
        self._held_bytes = 0
        said = Said(self._flow, content)
        hook = SocketMessageHook(said)
        yield hook
        waiting: asyncio.Task[None] | None = getattr(hook, "waiting", None)
        if waiting is not None:
            yield Wait(waiting)
        if said.refusal is not None:
            yield from self._close(CloseConnection(POLICY_VIOLATION, _short(said.refusal)), said.refusal)
            return
        self._counted.sent += 1
        yield from self._pass_on(TextMessage(content) if isinstance(content, str) else BytesMessage(content), True)

    def _from_server(self, one: TextMessage | BytesMessage) -> layer.CommandGenerator[None]:
        """Hand a piece on as it comes."""
        self._counted.received += one.message_finished
        self._counted.received_bytes += len(one.data)
        yield from self._pass_on(one, False)

    def _pass_on(self, one: Event, to_server: bool) -> layer.CommandGenerator[None]:
        frames, connection = self._end(to_server)
        if frames.state is ConnectionState.OPEN:
            yield commands.SendData(connection, frames.send(one))

    def _close(self, one: CloseConnection, reason: str) -> layer.CommandGenerator[None]:
        """Close both sides, each with a frame that says why if it can still take one."""
        self._over = True
        for to_server in (True, False):
            frames, connection = self._end(to_server)
            if frames.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
                yield commands.SendData(connection, frames.send(_sendable(one)))
            yield commands.CloseConnection(connection)
        yield SocketEndHook(self._flow, reason)

    def _end(self, to_server: bool) -> tuple[Frames, Connection]:
        return (self._server, self.context.server) if to_server else (self._client, self.context.client)


def _sendable(one: CloseConnection) -> CloseConnection:
    """1005 and 1006 say that no code came: they are never sent (RFC 6455 7.4.1)."""
    if one.code not in UNSENT:
        return CloseConnection(one.code, one.reason)
    return CloseConnection(UNSENT[one.code])


def _short(reason: str) -> str:
    """As much of `reason` as a close frame holds."""
    return reason.encode()[:REASON_CAP_BYTES].decode(errors="ignore")
