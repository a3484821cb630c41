"""mitmproxy's two ends of an HTTP/1 connection, with our exceptions to them: what they read is bounded, and no message
makes them fail or wait for ever.
"""

from __future__ import annotations

from typing import Any

from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    HttpEvent,
    RequestHeaders,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http1 import ChunkedReader, ReceiveBuffer, h11  # type: ignore[attr-defined]

UNPARSED_CAP_BYTES = 128 * 1024
"""A head, a chunk's size line, or requests sent ahead: more than this is not kept in memory unread."""

type Lines = list[bytes]


def problem_of(request: http.Request) -> str | None:
    """Why `request` could not be read as HTTP/1, or None."""
    problem: str | None = getattr(request, "borderpost_problem", None)
    return problem


def unreadable(problem: str) -> http.Request:
    """What stands for a request whose head could not be read."""
    request = http.Request("", 0, b"", b"", b"", b"", b"HTTP/1.1", http.Headers(), None, None, 0, None)
    request.borderpost_problem = problem  # type: ignore[attr-defined]
    return request


def _next_head(buffer: ReceiveBuffer) -> Lines | None:
    """The lines of the next complete head, without empty lines before it (RFC 9112 2.2); None when there is none."""
    lines = buffer.maybe_extract_lines()
    while lines == []:
        lines = buffer.maybe_extract_lines()
    return None if lines is None else [bytes(line) for line in lines]


class _WithoutTrailers(ChunkedReader):
    """A chunked body. Trailers are dropped, as RFC 9110 6.5.1 permits: mitmproxy would fail on them."""

    def __call__(self, buf: ReceiveBuffer) -> Any:
        event = super().__call__(buf)
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event


def _body_reader(size: int | None) -> _http1.TBodyReader:
    return _WithoutTrailers() if size is None else _http1.make_body_reader(size)


class Http1Server(_http1.Http1Server):
    """The end that clients speak to."""

    _last = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super()._handle_event(event)
        if len(self.buf) <= UNPARSED_CAP_BYTES or not isinstance(event, events.DataReceived):
            return
        if self.state == self.read_headers:
            yield from self._refuse(unreadable(f"its head is larger than {UNPARSED_CAP_BYTES} bytes"))
        elif self.state in (self.wait, self.read_body):
            self.state = self.done
            yield commands.CloseConnection(self.conn)
            message = "The client sent too much that belongs to no request."
            yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id, message, code=ErrorCode.CLIENT_DISCONNECTED))

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but what is malformed becomes a request that is refused and recorded as others are."""
        if not isinstance(event, events.DataReceived):
            yield from super().read_headers(event)
            return
        if not self.conn.state & ConnectionState.CAN_READ:
            return  # sent ahead by a client that has left since
        lines = _next_head(self.buf)
        if lines is None:
            return
        try:
            request = http1.read_request_head(lines)
        except ValueError as error:
            yield from self._refuse(unreadable(str(error)))
            return
        try:
            size = http1.expected_http_body_size(request)
            if request.is_http2 or request.is_http3:
                raise ValueError("HTTP/2 and HTTP/3 look otherwise")
        except ValueError as error:
            request.borderpost_problem = str(error)  # type: ignore[attr-defined]
            yield from self._refuse(request)
            return
        self.request = request
        self._last = http1.connection_close(request.http_version, request.headers)  # type: ignore[no-untyped-call]
        yield ReceiveHttp(RequestHeaders(self.stream_id, request, size == 0))
        self.body_reader = _body_reader(size)
        self.state = self.read_body
        yield from self.state(event)

    def _refuse(self, request: http.Request) -> layer.CommandGenerator[None]:
        """Nothing more of this connection is read: nobody knows where the next request would begin."""
        self.request = request
        self.state = self.done
        yield ReceiveHttp(RequestHeaders(self.stream_id, request, False))

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        if isinstance(event, ResponseHeaders) and event.response.status_code >= 200:
            if self._last:  # the client asked for it; what it said ends here and is gone from the request by now
                event.response.headers["connection"] = "close"
            if event.response.status_code == 304:
                event.response.headers.pop("transfer-encoding", None)  # there is no body, not even an empty one
        yield from super().send(event)


class Http1Client(_http1.Http1Client):
    """The end that speaks to upstreams."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super()._handle_event(event)
        if len(self.buf) > UNPARSED_CAP_BYTES and isinstance(event, events.DataReceived) and self.stream_id is not None:
            self.buf = ReceiveBuffer()
            yield commands.CloseConnection(self.conn)
            yield from self._fail(f"more than {UNPARSED_CAP_BYTES} bytes of it cannot be read as HTTP")

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but 1xx answers are passed over: the answer is what comes after them."""
        if not isinstance(event, events.DataReceived) or self.request is None:
            yield from super().read_headers(event)
            return
        while (lines := _next_head(self.buf)) is not None:
            try:
                response = http1.read_response_head(lines)
                size = http1.expected_http_body_size(self.request, response)
            except ValueError as error:
                yield commands.CloseConnection(self.conn)
                yield from self._fail(f"cannot parse the answer: {error}")
                return
            if 100 <= response.status_code < 200 and response.status_code != 101:
                continue
            assert self.stream_id is not None
            self.response = response
            yield ReceiveHttp(ResponseHeaders(self.stream_id, response, size == 0))
            self.body_reader = _body_reader(size)
            self.state = self.read_body
            yield from self.state(event)
            return

    def _fail(self, message: str) -> layer.CommandGenerator[None]:
        assert self.stream_id is not None
        yield ReceiveHttp(ResponseProtocolError(self.stream_id, message, ErrorCode.GENERIC_SERVER_ERROR))
