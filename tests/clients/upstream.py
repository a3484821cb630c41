"""What real clients talk to: one server with TLS, HTTP/1.1, HTTP/2 and WebSockets, that counts.

Its count is the truth that the ledger is compared with: every request in order, with the digest of its body. What it
answers is in `answers.py`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from wsproto import ConnectionType
from wsproto.connection import Connection as Frames
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from tests.clients import http2
from tests.clients.answers import Answer, Asked, answer

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 1.3."""


class Hit(msgspec.Struct, frozen=True):
    """One request as it arrived."""

    method: str
    path: str
    body_bytes: int
    body_sha256: str
    version: str


class Upstream(ThreadingHTTPServer):
    """`hits` is what came. `messages`: what came through WebSockets. `speaks`: its protocols, the best one first."""

    daemon_threads = True

    def __init__(self, certificate: Path, directory: Path, speaks: tuple[str, ...] = ("http/1.1",)) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        tls.set_alpn_protocols(list(speaks))
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.directory = directory
        self.hits: list[Hit] = []
        self.messages: list[str | bytes] = []
        self._counting = threading.Lock()

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.server_port}"

    def answer(self, asked: Asked, version: str) -> Answer:
        """Count the request, and say what is answered."""
        digest = hashlib.sha256(asked.body).hexdigest()
        with self._counting:
            self.hits.append(Hit(asked.method, asked.path, len(asked.body), digest, version))
            before = sum(hit.path == asked.path for hit in self.hits) - 1
        return answer(asked, self.directory, self.origin, before)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that leaves


class Answering(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Upstream

    def handle(self) -> None:
        self.connection.do_handshake()
        if self.connection.selected_alpn_protocol() == "h2":
            http2.serve(self.connection, lambda asked: self.server.answer(asked, "HTTP/2"))
        else:
            super().handle()

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        said = self.server.answer(Asked(self.command, path, query, headers, self._body()), self.request_version)
        if said.cut:
            self.close_connection = True
            return
        if headers.get("upgrade", "").lower() == "websocket":
            self._socket(headers["sec-websocket-key"])
            return
        self.send_response(said.status)
        for name, value in said.headers:
            self.send_header(name, value)
        if said.streamed:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(sum(map(len, said.pieces))))
        self.end_headers()
        if self.command != "HEAD":
            for piece in said.pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if said.streamed else piece)
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n" if said.streamed else b"")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def _body(self) -> bytes:
        """The body, however it is framed."""
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self._exactly(int(self.headers.get("content-length") or 0))
        body = bytearray()
        while count := int(self.rfile.readline().partition(b";")[0], 16):
            body += self._exactly(count)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(body)

    def _exactly(self, count: int) -> bytes:
        content = self.rfile.read(count)
        if len(content) < count:
            raise ConnectionError("the body ended early")
        return content

    def _socket(self, key: str) -> None:
        """A WebSocket that sends back what it gets, text in capitals, until it is closed."""
        accept = base64.b64encode(hashlib.sha1(key.encode() + WEBSOCKET_GUID).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        frames, text, content = Frames(ConnectionType.SERVER), "", b""
        while data := self.connection.recv(65536):
            frames.receive_data(data)
            for event in frames.events():
                if isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        self.server.messages.append(text)
                        self.wfile.write(frames.send(TextMessage(data=text.upper())))
                        text = ""
                elif isinstance(event, BytesMessage):
                    content += event.data
                    if event.message_finished:
                        self.server.messages.append(content)
                        self.wfile.write(frames.send(BytesMessage(data=content)))
                        content = b""
                elif isinstance(event, Ping):
                    self.wfile.write(frames.send(event.response()))
                elif isinstance(event, CloseConnection):
                    with contextlib.suppress(OSError):
                        self.wfile.write(frames.send(event.response()))
                    return

    def log_message(self, format: str, *arguments: object) -> None:
        pass
