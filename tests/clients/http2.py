"""The server's side of one HTTP/2 connection, by h2: whole requests in, answers out as fast as they are taken."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated

from tests.clients.answers import Answer, Asked


def serve(connection: ssl.SSLSocket, answer: Callable[[Asked], Answer]) -> None:
    """Answer until the client leaves. Requests are taken one after the other, as they become whole."""
    state = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    state.initiate_connection()
    asked: dict[int, dict[str, str]] = {}
    bodies: dict[int, bytearray] = {}
    waiting: dict[int, bytes] = {}
    connection.sendall(state.data_to_send())
    while data := connection.recv(65536):
        for event in state.receive_data(data):
            match event:
                case RequestReceived(stream_id=int(stream), headers=list(headers)):
                    asked[stream] = {str(name): str(value) for name, value in headers}
                    bodies[stream] = bytearray()
                case DataReceived(stream_id=int(stream), data=bytes(content), flow_controlled_length=int(length)):
                    bodies[stream] += content
                    state.acknowledge_received_data(length, stream)
                case StreamEnded(stream_id=int(stream)):
                    one = _whole(asked.pop(stream), bytes(bodies.pop(stream)))
                    said = answer(one)
                    if said.cut:
                        return
                    state.send_headers(stream, [(":status", str(said.status)), *_lower(said.headers)])
                    waiting[stream] = b"" if one.method == "HEAD" else b"".join(said.pieces)
                case StreamReset(stream_id=int(stream)):
                    for kept in (asked, bodies, waiting):
                        kept.pop(stream, None)
                case WindowUpdated():
                    pass
        _flush(state, waiting)
        connection.sendall(state.data_to_send())


def _whole(headers: dict[str, str], body: bytes) -> Asked:
    path, _, query = headers[":path"].partition("?")
    plain = {name: value for name, value in headers.items() if not name.startswith(":")}
    return Asked(headers[":method"], path, query, plain, body)


def _lower(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers]


def _flush(state: H2Connection, waiting: dict[int, bytes]) -> None:
    """Send what the windows have room for."""
    for stream, content in list(waiting.items()):
        while content and (room := min(state.local_flow_control_window(stream), state.max_outbound_frame_size)):
            state.send_data(stream, content[:room])
            content = content[room:]
        waiting[stream] = content
        if not content:
            state.end_stream(stream)
            del waiting[stream]
