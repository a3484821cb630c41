"""mitmproxy's two ends of an HTTP/2 connection, with our exceptions to them: what a peer may send ahead on a stream is
bounded.

mitmproxy grants 2 GiB at once. Then the only way to hold a peer back is not to read from it, and nobody hears that it
can take more of what goes the other way: where both sides say much, both would wait for ever.
"""

from __future__ import annotations

from typing import Any

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import _http2
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestData, RequestHeaders, ResponseProtocolError
from mitmproxy.proxy.layers.http._http2 import h2  # type: ignore[attr-defined]  # mitmproxy says which

from proxy.commands import GoneOn
from proxy.http1 import unreadable

WINDOW_BYTES = 1024 * 1024
"""What may come on one stream before any of it has gone on."""


class Metered(_http2.Http2Connection):
    """Grants its peer more when what came has gone on. `owed`: what is not granted again yet, by stream."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)  # type: ignore[call-arg]  # of the end that stands beside this class
        self.h2_conn.local_settings.initial_window_size = WINDOW_BYTES
        self.h2_conn.local_settings.acknowledge()
        self.owed: dict[int, int] = {}

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if not isinstance(event, GoneOn):
            yield from super()._handle_event(event)
            return
        self._grant()
        data = self.h2_conn.data_to_send()
        if data:
            yield commands.SendData(self.conn, data)

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        """Keep account of what came. Of empty pieces there may be any number: they go no further."""
        if isinstance(event, h2.events.DataReceived):
            if not event.data and not event.stream_ended:
                self.h2_conn.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                return False
            stream, taken = event.stream_id or 0, event.flow_controlled_length or 0
            self.owed[stream] = self.owed.get(stream, 0) + taken
            event.flow_controlled_length = 0
        over = yield from super().handle_h2_event(event)
        if self.owed and not over and self._has_room():
            self._grant()
        return over

    def _has_room(self) -> bool:
        return bool(self.context.client.borderpost_room(self.conn))  # type: ignore[attr-defined]

    def _grant(self) -> None:
        owed, self.owed = self.owed, {}
        for stream, taken in owed.items():
            self.h2_conn.acknowledge_received_data(taken, stream)

    def done(self, event: Any) -> layer.CommandGenerator[None]:
        yield from ()


class Enough(ResponseProtocolError):
    """The answer is whole, and no more of the request is wanted."""


class Http2Server(Metered, _http2.Http2Server):
    """The end that clients speak to. It does not offer WebSockets (RFC 8441 3): clients open them over HTTP/1.1."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As RFC 9113 8.1 has it, a client that shall stop is told so without an error: it got its answer."""
        if not isinstance(event, Enough):
            yield from super()._handle_event(event)
        elif not self.is_closed(event.stream_id):
            self.h2_conn.reset_stream(event.stream_id, h2.errors.ErrorCodes.NO_ERROR)
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        """An extended CONNECT, which was not offered, is refused and recorded as other calls are. mitmproxy would end
        the whole connection, with every other call in it."""
        if not isinstance(event, h2.events.RequestReceived):
            return (yield from super().handle_h2_event(event))
        head = dict(event.headers or ())
        if head.get(b":method") != b"CONNECT":
            return (yield from super().handle_h2_event(event))
        request = unreadable("it is an extended CONNECT")
        request.data.method, request.data.http_version = b"CONNECT", b"HTTP/2.0"
        request.data.path = head.get(b":path", b"")
        self.streams[event.stream_id or 0] = _http2.StreamState.HEADERS_RECEIVED
        yield ReceiveHttp(RequestHeaders(event.stream_id or 0, request, end_stream=bool(event.stream_ended)))
        return False


class Http2Client(Metered, _http2.Http2Client):
    """The end that speaks to upstreams."""

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        """mitmproxy does not tell of a reset that comes together with the end of the answer: the request may go on."""
        if isinstance(event, h2.events.StreamReset) and event.stream_id not in self.streams:
            message = "the API wants no more of the request"
            yield ReceiveHttp(ResponseProtocolError(event.stream_id or 0, message, ErrorCode.CANCEL))
            return False
        return (yield from super().handle_h2_event(event))

    def held_bytes(self) -> int:
        """How much waits here: for leave to send it, or for a stream that may be opened."""
        waiting = (piece for pieces in self.h2_conn.stream_buffers.values() for piece in pieces)
        queued = (event for events in self.stream_queue.values() for event in events if isinstance(event, RequestData))
        return sum(len(piece.data) for piece in waiting) + sum(len(event.data) for event in queued)
