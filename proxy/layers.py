"""mitmproxy's HTTP layer with our exceptions to it. Each override names the reason; what is not here is mitmproxy's.

The one choke point of promise 1 is `Stream.make_server_connection`: no byte leaves but through it, and it fails unless
the exchange's refusal has been lifted.
"""

from __future__ import annotations

import re
import time
from typing import Any

import mitmproxy.proxy.layers.http
from mitmproxy import flow, http
from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpLayer,
    HTTPMode,
    HttpStream,
    SendHttp,
    validate_request,
)
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    HttpEvent,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook, HttpRequestHeadersHook, HttpRequestHook
from mitmproxy.proxy.layers.http._http1 import Http1Connection
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection
from mitmproxy.proxy.layers.tls import ClientTLSLayer
from mitmproxy.proxy.utils import expect

from proxy.commands import GoesOn, GoesOnHook, GoneOn, Look, LookLater, Wait
from proxy.exchange import ANSWER_CAP_BYTES, Exchange
from proxy.http1 import Http1Client, Http1Server, problem_of
from proxy.http2 import Enough, Http2Client, Http2Server, Metered
from proxy.websocket import Socket
from rules.grpc import speaks, timeout_ns

EXCHANGE = "borderpost"
"""Where a flow's metadata holds its `Exchange`."""

_CONTROL = re.compile(rb"[\x00\n\r]")

DISCARD_CAP_BYTES = 1024 * 1024 * 1024
"""How much of a refused upload is read and thrown away, so that its client gets to read the refusal."""

PATIENCE_S = 5.0
"""How long nothing may come of a gRPC call that has to be read whole: its client might wait for an answer first."""

DESTINATION_REFUSED = "destination refused: "
"""Begins the error of a connection that was refused for its address."""


commands.StartHook.blocking = False  # our hooks are done when they return; who has to wait yields `Wait`


def exchange_of(flow: http.HTTPFlow) -> Exchange | None:
    """The exchange of `flow`, or None when its head was never seen by us: then nothing may leave."""
    found = flow.metadata.get(EXCHANGE)
    return found if isinstance(found, Exchange) else None


def _patience_s(exchange: Exchange) -> float:
    """How long to wait for more of a body: less where the client waits less, so that it reads why it was refused."""
    found_ns = timeout_ns(exchange.call.headers) if exchange.call is not None else None
    return PATIENCE_S if found_ns is None else min(PATIENCE_S, found_ns / 2e9)


class Stream(HttpStream):
    """One request and its answer."""

    discarded_bytes = 0
    buffered_bytes = -1
    ended = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, Look):
            yield from self.look()
        else:
            yield from super()._handle_event(event)

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Hear of a client that resets its stream while its call waits: nothing else tells, its connection stays."""
        if self._paused and isinstance(event, RequestProtocolError) and hasattr(self, "flow"):
            exchange = exchange_of(self.flow)
            if exchange is not None:
                exchange.gone.set()
        return super().handle_event(event)

    @expect(RequestHeaders)
    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """As mitmproxy's for a regular proxy, but nothing is answered before the call is on record.

        What mitmproxy's validation refuses still passes our hook, which records it and answers in our form.
        """
        self.flow = http.HTTPFlow(self.context.client, self.context.server)
        self.flow.request = request = event.request
        self.flow.live = True
        invalid = problem_of(request) or validate_request(self.mode, request, True)
        if request.method == "CONNECT" and invalid is None:
            yield from self.handle_connect()
            return
        self.flow.metadata["authority"] = request.data.authority
        self.flow.metadata["invalid"] = invalid
        self.flow.metadata["has_body"] = not event.end_stream
        self.flow.metadata["tunnelled"] = self.mode is HTTPMode.transparent
        if self.mode is HTTPMode.transparent:
            assert self.context.server.address
            request.data.host, request.data.port = self.context.server.address[:2]
            request.data.scheme = b"https" if self.context.client.tls else b"http"
        if not (request.is_http2 or request.is_http3):
            request.data.authority = b""
        yield from self.decide(HttpRequestHeadersHook(self.flow))
        if (yield from self.check_killed(True)):
            return
        exchange = exchange_of(self.flow)
        if exchange is None or exchange.answer_now:
            yield from self.answer_early()
            return
        if exchange.call is not None and not self.flow.response and exchange.call.header("expect"):
            go_on = http.Response.make(100)
            go_on.headers.clear()
            yield SendHttp(ResponseHeaders(self.stream_id, go_on), self.context.client)
            request.headers.pop("expect")
        if request.stream and not event.end_stream:
            yield from self.start_request_stream()
        else:
            self.client_state = self.state_consume_request_body
            if exchange.asked_by and exchange.call is not None and speaks(exchange.call.headers):
                yield from self.check_stalled()
        self.server_state = self.state_wait_for_response_headers

    def start_request_stream(self) -> layer.CommandGenerator[None]:
        """Send the head, now that the call is let out. What follows goes on as it comes."""
        if not (yield from self.make_server_connection()):
            self.client_state = self.state_errored
            return
        self.say_where_the_body_ends()
        yield SendHttp(RequestHeaders(self.stream_id, self.flow.request, end_stream=False), self.context.server)
        self.client_state = self.state_stream_request_body

    def say_where_the_body_ends(self) -> None:
        """HTTP/2 needs no field for that, and mitmproxy adds none for an HTTP/1 upstream, which would read the body as
        further requests. What is here already has a length; servers like that better than chunks."""
        request = self.flow.request
        if not request.is_http2 or self.context.server.alpn == b"h2" or "content-length" in request.headers:
            return
        if any(isinstance(event, RequestEndOfMessage) for event in self._paused_event_queue):
            here = sum(len(event.data) for event in self._paused_event_queue if isinstance(event, RequestData))
            request.headers["content-length"] = str(here)
        else:
            request.headers["transfer-encoding"] = "chunked"

    @expect(RequestData, RequestTrailers, RequestEndOfMessage)
    def state_stream_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Hand on a piece, if the call would still be let out. Trailers do not follow: they would leave undecided."""
        if not isinstance(event, RequestTrailers) and (yield from self.check_permitted()):
            yield from super().state_stream_request_body(event)

    def decide(self, hook: HttpRequestHeadersHook | HttpRequestHook) -> layer.CommandGenerator[None]:
        """Have our hook decide; where it has to wait (for the disk, a twin, its turn), this stream waits with it."""
        yield hook
        waiting = getattr(hook, "waiting", None)
        if waiting is not None:
            yield Wait(waiting)

    @expect(RequestData, RequestTrailers, RequestEndOfMessage)
    def state_consume_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Buffer what the decision needs, up to its cap; read a refused body without keeping it."""
        if isinstance(event, RequestData):
            yield from self.consume(event.data)
        elif isinstance(event, RequestTrailers):
            self.flow.request.trailers = event.trailers
        else:
            self.flow.request.timestamp_end = time.time()
            self.flow.request.data.content = bytes(self.request_body_buf)
            self.request_body_buf.clear()
            self.client_state = self.state_done
            yield from self.decide(HttpRequestHook(self.flow))
            if (yield from self.check_killed(True)):
                return
            if self.flow.response:
                self.flow.response.timestamp_start = time.time()
                yield from self.send_response()
            elif (yield from self.make_server_connection()):
                yield from self.send_request()

    def look(self) -> layer.CommandGenerator[None]:
        """Something has changed: may what the client is at go on?"""
        if self.client_state == self.state_stream_request_body:
            yield from self.check_permitted()
        elif self.client_state == self.state_consume_request_body:
            yield from self.check_stalled()

    def check_permitted(self) -> layer.CommandGenerator[bool]:
        """Cut a call off that is no longer permitted while its body still goes out."""
        going = GoesOn(self.flow)
        yield GoesOnHook(going)
        exchange = exchange_of(self.flow)
        if going.refusal is None or exchange is None:
            return exchange is not None
        exchange.cut = going.refusal
        yield SendHttp(RequestProtocolError(self.stream_id, "cut off", ErrorCode.CANCEL), self.context.server)
        self.flow.error = flow.Error(f"{exchange.cut.code} came to apply while it was sent")
        yield HttpErrorHook(self.flow)
        begun = self.server_state in (self.state_stream_response_body, self.state_done)
        if not begun:
            yield from self.answer_early()
            return False
        assert self.flow.response is not None
        if self.flow.response.trailers and self.server_state == self.state_stream_response_body:
            yield SendHttp(ResponseTrailers(self.stream_id, self.flow.response.trailers), self.context.client)
        else:
            cut = ResponseProtocolError(self.stream_id, "cut off", ErrorCode.CANCEL)
            yield SendHttp(cut, self.context.client)
        self.client_state = self.server_state = self.state_errored
        yield DropStream(self.stream_id)
        return False

    def check_stalled(self) -> layer.CommandGenerator[None]:
        """A client that waits for an answer before it says the rest would wait for ever: tell it, if nothing comes for
        a while. Where nobody needs its body, it could be let out at its head."""
        exchange = exchange_of(self.flow)
        if exchange is None or exchange.oversized or not exchange.asked_by:
            return
        if exchange.buffered_bytes != self.buffered_bytes:
            self.buffered_bytes = exchange.buffered_bytes
            yield LookLater(_patience_s(exchange))
            return
        exchange.stalled = True
        yield from self.decide(HttpRequestHook(self.flow))
        yield from self.answer_early()

    def consume(self, data: bytes) -> layer.CommandGenerator[None]:
        """Take a piece of the request's body."""
        exchange = exchange_of(self.flow)
        if exchange is not None and self.flow.response is None:
            if exchange.buffer(len(data)):
                self.request_body_buf += data
                return
            self.request_body_buf.clear()
            yield from self.decide(HttpRequestHook(self.flow))
        self.discarded_bytes += len(data)
        if exchange is None or self.discarded_bytes > DISCARD_CAP_BYTES:
            yield from self.answer_early()

    def send_request(self) -> layer.CommandGenerator[None]:
        """Send the buffered request to the upstream: exactly what was decided on."""
        request, server = self.flow.request, self.context.server
        content = request.raw_content
        yield SendHttp(RequestHeaders(self.stream_id, request, end_stream=not content), server)
        if content:
            yield SendHttp(RequestData(self.stream_id, content), server)
        yield SendHttp(RequestEndOfMessage(self.stream_id), server)

    def answer_early(self) -> layer.CommandGenerator[None]:
        """Answer before the request has arrived whole, and read no more of it."""
        if self.flow.response is None:
            self.flow.response = http.Response.make(503, b"")
        if self.context.client.alpn != b"h2":
            self.flow.response.headers["connection"] = "close"
        self.client_state = self.state_done
        yield from self.send_response()
        self.client_state = self.server_state = self.state_errored
        if self.context.client.alpn != b"h2":
            yield commands.CloseConnection(self.context.client)

    def check_body_size(self, request: bool) -> layer.CommandGenerator[bool]:
        """mitmproxy's own limit is tested before anything is decided; ours is in `state_consume_request_body`."""
        return False
        yield  # a generator, as the base class wants it

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """The only way out. Closed unless the gate has let this call out and its client is still there."""
        exchange = exchange_of(self.flow)
        if exchange is None or exchange.refusal is not None or exchange.admission is None:
            yield from self.handle_protocol_error(self._failed("refused"))
            return False
        if not (yield from super().make_server_connection()):
            return False
        if exchange.refusal is not None:
            yield from self.handle_protocol_error(self._failed("refused"))
            return False
        if is_private(self.flow.server_conn) and not exchange.exact_host:
            yield from self.handle_protocol_error(self._failed(DESTINATION_REFUSED + "it is not a public address"))
            return False
        if any(isinstance(queued, RequestProtocolError) for queued in self._paused_event_queue):
            exchange.client_left = True
            yield from self.handle_protocol_error(self._failed("the client left"))
            return False
        changed = any(isinstance(queued, Look) for queued in self._paused_event_queue)
        if changed and (yield from self.check_withheld(exchange)):
            return False
        exchange.sent = True
        return True

    def check_withheld(self, exchange: Exchange) -> layer.CommandGenerator[bool]:
        """Something has changed since the call was let out, while it waited for the disk or a connection: send nothing
        of one that is no longer permitted."""
        going = GoesOn(self.flow)
        yield GoesOnHook(going)
        if going.refusal is not None:
            exchange.cut = going.refusal
            message = f"{exchange.cut.code} came to apply before it was sent"
            yield from self.handle_protocol_error(self._failed(message))
        return going.refusal is not None

    def _failed(self, message: str) -> ResponseProtocolError:
        return ResponseProtocolError(self.stream_id, message, ErrorCode.CONNECT_FAILED)

    @expect(ResponseHeaders)
    def state_wait_for_response_headers(self, event: ResponseHeaders) -> layer.CommandGenerator[None]:
        """An upstream may not switch protocols by itself: what follows would be piped, undecided and unrecorded."""
        exchange = exchange_of(self.flow)
        if event.response.status_code == 101 and not (exchange is not None and exchange.opens(event.response.headers)):
            yield commands.CloseConnection(self.flow.server_conn)
            message = "the upstream switched protocols without being asked"
            yield from self.handle_protocol_error(
                ResponseProtocolError(self.stream_id, message, ErrorCode.GENERIC_SERVER_ERROR)
            )
            return
        yield from super().state_wait_for_response_headers(event)

    @expect(ResponseData, ResponseTrailers, ResponseEndOfMessage)
    def state_consume_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """An answer that turns out to be too large to be held back is handed on from here on, as it comes."""
        yield from super().state_consume_response_body(event)
        exchange = exchange_of(self.flow)
        if isinstance(event, ResponseData) and len(self.response_body_buf) > ANSWER_CAP_BYTES and exchange is not None:
            held = bytes(self.response_body_buf)
            self.response_body_buf.clear()
            assert self.flow.response is not None
            self.flow.response.stream = exchange.copy or True
            yield from self.start_response_stream()
            yield from self.state_stream_response_body(ResponseData(self.stream_id, held))

    def send_response(self, already_streamed: bool = False) -> layer.CommandGenerator[None]:
        """An answer may be whole before its request is: its client hears so at once, since it may wait for that."""
        yield from super().send_response(already_streamed)
        if self.server_state == self.state_done and self.client_state == self.state_stream_request_body:
            self.ended = True
            yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def check_invalid(self, request: bool) -> layer.CommandGenerator[bool]:
        """Requests are validated on arrival; an answer that fails validation is a failed exchange, in our words."""
        assert self.flow.response is not None
        fields = self.flow.response.headers.fields
        if any(b"\n" in value for _, value in fields):  # folded lines, which nobody may pass on (RFC 9112 5.2)
            self.flow.response.headers.fields = tuple((name, value.replace(b"\r\n ", b" ")) for name, value in fields)
        try:
            validate_headers(self.flow.response)
            if any(_CONTROL.search(value) for _, value in self.flow.response.headers.fields):
                raise ValueError("a header field holds a control character")
            exchange = exchange_of(self.flow)
            opened = exchange is not None and exchange.socket is not None
            if not (200 <= self.flow.response.status_code <= 999 or opened):
                raise ValueError(f"its status is {self.flow.response.status_code}")
        except ValueError as error:
            yield commands.CloseConnection(self.flow.server_conn)
            yield from self.handle_protocol_error(
                ResponseProtocolError(self.stream_id, f"unsound answer: {error}", ErrorCode.RESPONSE_VALIDATION_FAILED)
            )
            return True
        return False

    def flow_done(self) -> layer.CommandGenerator[None]:
        """Where the upstream has switched to a WebSocket as it was asked to, our layer takes over."""
        exchange = exchange_of(self.flow)
        assert self.flow.response is not None
        if self.ended:
            self.flow.live = False
            yield DropStream(self.stream_id)
            return
        if exchange is None or exchange.socket is None or self.flow.response.status_code != 101:
            yield from super().flow_done()
            return
        self.child_layer = Socket(self.context, self.flow, exchange.socket)
        self._handle_event = self.passthrough  # type: ignore[method-assign]  # mitmproxy's way
        yield from self.child_layer.handle_event(events.Start())
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def check_killed(self, emit_error_hook: bool) -> layer.CommandGenerator[bool]:
        """A client that left does not stop an exchange that has to be finished without it."""
        exchange = exchange_of(self.flow)
        if exchange is not None and exchange.must_finish:
            return False
        if exchange is not None and any(isinstance(event, RequestProtocolError) for event in self._paused_event_queue):
            exchange.client_left = True
        return (yield from super().check_killed(emit_error_hook))

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        """Two exceptions: a claimed call is finished without its client, and failures are answered in our form."""
        exchange = exchange_of(self.flow) if hasattr(self, "flow") else None
        if exchange is None:
            yield from super().handle_protocol_error(event)
            return
        if self.ended:
            yield from self.end_early(event)
            return
        if isinstance(event, RequestProtocolError):
            exchange.client_left = True
            if exchange.must_finish and self.client_state == self.state_done:
                return
            yield from super().handle_protocol_error(event)
            return
        unanswered = self.server_state in (
            self.state_wait_for_response_headers,
            self.state_consume_response_body,
            self.state_uninitialized,
        )
        if not unanswered or self.client_state == self.state_errored:
            yield from super().handle_protocol_error(event)
            return
        self.flow.response = None
        self.flow.error = flow.Error(event.message)
        yield HttpErrorHook(self.flow)
        if self.client_state == self.state_done:
            if self.flow.response is None:
                self.flow.response = http.Response.make(502, b"")
            yield from self.send_response()
            self.server_state = self.state_errored
        else:
            yield from self.answer_early()

    def end_early(self, event: RequestProtocolError | ResponseProtocolError) -> layer.CommandGenerator[None]:
        """The answer is whole, and one side has enough of the request: the other need not go on with it."""
        if isinstance(event, RequestProtocolError):
            yield SendHttp(event, self.context.server)
        else:
            yield SendHttp(Enough(self.stream_id, event.message, event.code), self.context.client)
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored
        yield DropStream(self.stream_id)


class _OnePiece(Http1Connection):
    """HTTP/1.1 that sends a head and what follows it at once in one piece: one TLS record instead of two or three.

    A streamed message is not held back: its head may have to arrive long before the rest.
    """

    _head = b""

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but for a head that is kept until the next event of the same message."""
        for command in super().send(event):
            if not isinstance(command, commands.SendData):
                if self._head:
                    yield commands.SendData(self.conn, self._head)
                    self._head = b""
                yield command
            elif self._follows_at_once(event):
                self._head = command.data
            else:
                command.data, self._head = self._head + command.data, b""
                yield command
        if self._head and isinstance(event, RequestEndOfMessage | ResponseEndOfMessage):
            yield commands.SendData(self.conn, self._head)
            self._head = b""

    @staticmethod
    def _follows_at_once(event: HttpEvent) -> bool:
        if isinstance(event, RequestHeaders):
            return not event.request.stream
        if isinstance(event, ResponseHeaders):
            return not event.response.stream and event.response.status_code >= 200
        return False


class OnePieceClient(_OnePiece, Http1Client):
    """Towards the upstream."""


class OnePieceServer(_OnePiece, Http1Server):
    """Towards the client."""


mitmproxy.proxy.layers.http.Http1Client = OnePieceClient  # type: ignore[attr-defined]
mitmproxy.proxy.layers.http.Http1Server = OnePieceServer  # type: ignore[attr-defined]
mitmproxy.proxy.layers.http.Http2Client = Http2Client  # type: ignore[attr-defined]
mitmproxy.proxy.layers.http.Http2Server = Http2Server  # type: ignore[attr-defined]


class _Deaf:
    """Takes what is said to a connection that is over, or comes from it."""

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from ()


class _Connections(dict[Connection, Any]):
    def __missing__(self, connection: Connection) -> _Deaf:
        return _Deaf()


class Http(HttpLayer):
    """mitmproxy's HTTP layer, with our streams."""

    def __init__(self, context: Context, mode: HTTPMode) -> None:
        super().__init__(context, mode)
        self.connections = _Connections()
        context.client.borderpost_http = self  # type: ignore[attr-defined]

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, GoneOn) and http_of(self.context.client) is self:
            yield from self.event_to_child(self.connections[event.connection], event)
        elif isinstance(event, GoneOn | Look):
            for stream in list(self.streams.values()):
                yield from self.event_to_child(stream, event)
        else:
            yield from super()._handle_event(event)

    def held_bytes(self, connection: Connection) -> int:
        """How much of what came from `connection` is in memory, because those that it is for cannot take it yet."""
        if connection is not self.context.client:
            h2 = _h2_of(self.connections.get(self.context.client))
            if h2 is None or not h2.stream_buffers:
                return 0
            numbers = [number for number, one in self.streams.items() if one.context.server is connection]
            return sum(len(piece.data) for number in numbers for piece in h2.stream_buffers.get(number, ()))
        held = 0
        for stream in self.streams.values():
            for event in stream._paused_event_queue:
                held += len(event.data) if isinstance(event, RequestData) else 0
        for server in {stream.context.server for stream in self.streams.values()}:
            end = _metered(self.connections.get(server))
            if isinstance(end, Http2Client):
                held += end.held_bytes()
        return held

    def owes(self, connection: Connection) -> bool | None:
        """Whether `connection`, which speaks HTTP/2, waits for leave to send more; None where it speaks HTTP/1."""
        end = _metered(self.connections.get(connection))
        return None if end is None else bool(end.owed)

    def inside_tunnel(self) -> layer.Layer | None:
        """What the client speaks to through CONNECT, when it is established and all that is outside only passes on."""
        client = self.connections.get(self.context.client)
        if not isinstance(client, Http1Server) or client.state != client.passthrough or len(client.buf):
            return None
        streams = [stream for stream in self.streams.values() if stream._handle_event == stream.passthrough]
        return streams[0].child_layer if len(streams) == 1 else None

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        context = self.context.fork()
        self.streams[stream_id] = Stream(context, stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())

    def get_connection(self, event: GetHttpConnection, *, reuse: bool = True) -> layer.CommandGenerator[None]:
        """Forget connections that are over: mitmproxy keeps all, and fails every later call to where one has failed."""
        used = {stream.context.server for stream in self.streams.values()}
        for one in list(self.connections):
            over = isinstance(one, Server) and (one.error or one.state is ConnectionState.CLOSED)
            if over and one not in self.waiting_for_establishment and one not in used:
                del self.connections[one]
        yield from super().get_connection(event, reuse=reuse)


def _metered(end: object) -> Metered | None:
    """The end of an HTTP/2 connection that `end`, a layer, is, or some layer within it."""
    while end is not None and not isinstance(end, Metered):
        end = getattr(end, "child_layer", None)
    return end


def _h2_of(end: object) -> BufferedH2Connection | None:
    """The HTTP/2 connection that `end`, a layer, speaks, or some layer within it."""
    found = _metered(end)
    return found.h2_conn if found is not None else None


def http_of(client: Connection) -> Http | None:
    """The layer that reads the requests of `client`, once there is one."""
    return getattr(client, "borderpost_http", None)


def next_layer(undecided: layer.NextLayer) -> None:
    """What speaks inside a tunnel: TLS, then HTTP. Nothing else: what is not HTTP fails to parse and is closed."""
    data = undecided.data_client()
    tls = undecided.context.client.tls
    if not tls and data[:1] == b"\x16":
        if len(data) >= 3:
            undecided.layer = ClientTLSLayer(undecided.context)
    elif data:
        undecided.layer = Http(undecided.context, HTTPMode.transparent)


def is_private(connection: Connection) -> bool:
    """Whether `connection` leads to an address that only an exact host name may reach."""
    return bool(getattr(connection, "borderpost_private", True))


def mark_private(connection: Connection, private: bool) -> None:
    """Remember of `connection` whether its address is one that only an exact host name may reach."""
    connection.borderpost_private = private  # type: ignore[attr-defined]
