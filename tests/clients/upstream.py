"""What real clients talk to: one server with TLS that speaks as much of several APIs as they need, and counts.

Its count is the truth that the ledger is compared with: every request in order, with the digest of its body.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import ssl
import tarfile
import threading
import zipfile
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

WHEEL = "nothing-1.0-py3-none-any.whl"
CHUNK_BYTES = 64 * 1024


class Hit(msgspec.Struct, frozen=True):
    """One request as it arrived."""

    method: str
    path: str
    body_bytes: int
    body_sha256: str
    case: str


class Upstream(ThreadingHTTPServer):
    """Serves `directory` under /git, a package index under /simple, an npm registry under /npm, and JSON elsewhere.

    `failing`: it answers with 500, whatever it did.
    """

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.directory = directory
        self.hits: list[Hit] = []
        self.failing = False
        self._counting = threading.Lock()

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.server_port}"

    def count(self, hit: Hit) -> None:
        with self._counting:
            self.hits.append(hit)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that leaves


class Answering(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Upstream

    def answer(self) -> None:
        digest, size_bytes = self._read()
        path = self.path.partition("?")[0]
        case = self.headers.get("x-case", "")
        self.server.count(Hit(self.command, path, size_bytes, digest, case))
        kind, body = self._content(path)
        self.send_response(500 if self.server.failing else 404 if body is None else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body or b"")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def _read(self) -> tuple[str, int]:
        """The body's digest and size, however it is framed."""
        digest, size_bytes = hashlib.sha256(), 0

        def take(count: int) -> None:
            nonlocal size_bytes
            while count:
                piece = self.rfile.read(min(count, CHUNK_BYTES))
                if not piece:
                    raise ConnectionError("the body ended early")
                digest.update(piece)
                size_bytes += len(piece)
                count -= len(piece)

        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while count := int(self.rfile.readline().partition(b";")[0], 16):
                take(count)
                self.rfile.readline()
            self.rfile.readline()
        else:
            take(int(self.headers.get("content-length") or 0))
        return digest.hexdigest(), size_bytes

    def _content(self, path: str) -> tuple[str, bytes | None]:
        if path.startswith("/git/"):
            file = self.server.directory / path.removeprefix("/git/")
            return "application/octet-stream", file.read_bytes() if file.is_file() else None
        if path == "/simple/nothing/":
            return "text/html", f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode()
        if path == f"/files/{WHEEL}":
            return "application/octet-stream", wheel()
        if path == "/npm/nothing":
            return "application/json", json.dumps(packument(self.server.origin)).encode()
        if path == "/npm/nothing/-/nothing-1.0.0.tgz":
            return "application/octet-stream", tarball()
        return "application/json", json.dumps(reply(path)).encode()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def reply(path: str) -> dict[str, Any]:
    """An answer in the form that the API's own package wants."""
    if path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": "hello"}
        return {
            "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }  # fmt: skip
    if path.endswith("/messages"):
        return {
            "id": "m1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "hello"}], "usage": {"input_tokens": 1, "output_tokens": 1},
        }  # fmt: skip
    if "/refunds" in path:
        return {"id": "re_1", "object": "refund", "amount": 500}
    if path.startswith("/slack/"):
        return {"ok": True, "ts": "1.0"}
    return {"ok": True, "path": path}


def wheel() -> bytes:
    """A wheel with nothing in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        file.writestr("nothing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("nothing-1.0.dist-info/RECORD", "")
    return buffer.getvalue()


@cache
def tarball() -> bytes:
    """An npm package with nothing in it: one for all, since gzip writes the time into it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        text = b'{"name": "nothing", "version": "1.0.0"}'
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(text)
        file.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def packument(origin: str) -> dict[str, Any]:
    """What an npm registry says of that package."""
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball()).digest()).decode()
    dist = {"tarball": f"{origin}/npm/nothing/-/nothing-1.0.0.tgz", "integrity": integrity}
    version = {"name": "nothing", "version": "1.0.0", "dist": dist}
    return {"name": "nothing", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
