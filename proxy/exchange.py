"""One call on its way through the proxy: what the hooks and the HTTP layer need to know of it, in one place."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping

from proxy.admission import Admission, Asked
from proxy.refusal import Reply
from proxy.wire.error import WireError
from proxy.wire.events import UsageEvents
from proxy.wire.grpcweb import WebTrailers
from rules.call import Call
from rules.usage import Usage

EXTENSIONS = "sec-websocket-extensions"
"""None is offered to upstreams: a compressed frame of a few bytes could unfold to any size."""

ANSWER_CAP_BYTES = 1024 * 1024
"""Answers up to this size are kept for replay, and for rules that read them."""

BUFFERED_CAP_BYTES = 256 * 1024 * 1024
"""All buffered request bodies together take no more than this."""


class Exchange:
    """The mutable record of one request and its answer. It lives from the request's head to its end.

    `refusal`: set until the gate has let the call out; the HTTP layer sends nothing upstream while it is set.
    `credentials`: what its client has proved with who it is.
    `gone`: set when the client has left. `finish`: the upstream exchange is finished even without its client.
    `asked_by`: who needs the body of the request to be whole before it is decided. `stalled`: it does not become so.
    `streamed`: what of a body that nobody needs has gone out. `read_answer`: rules read the body of the answer.
    `hold_answer`: its status may have to be replaced. `sent`: the request may have begun to leave.
    `settled`: its outcome is recorded.
    `upgrade`: it asks for a WebSocket. `socket`: what went through one, once it is open.
    `cut`: why it may not go on, though it is out. `given_up`: nobody waits for it any more, so it must not be let out.
    """

    def __init__(self, call_id: str, refusal: Reply, pool: BufferPool) -> None:
        self._pool = pool
        self.call_id = call_id
        self.refusal: Reply | None = refusal
        self.asked = Asked("", "")
        self.credentials: list[str] = []
        self.call: Call | None = None
        self.admission: Admission | None = None
        self.asked_by = ""
        self.stalled = False
        self.streamed: Passed | None = None
        self.body_cap_bytes = 0
        self.oversized = False
        self.buffered_bytes = 0
        self.answer_now = False
        self.gone = asyncio.Event()
        self.ended = asyncio.Event()
        self.finish = False
        self.read_answer = False
        self.hold_answer = False
        self.sent = False
        self.settled = False
        self.cut: WireError | None = None
        self.given_up = False
        self.client_left = False
        self.exact_host = False
        self.copy: Passed | None = None
        self.upgrade = False
        self.socket: Counted | None = None

    def opens(self, headers: Mapping[str, str]) -> bool:
        """Whether an answer 101 with these headers opens the WebSocket that was asked for."""
        if self.upgrade and headers.get("upgrade", "").lower() == "websocket" and EXTENSIONS not in headers:
            self.socket = Counted()
        return self.socket is not None

    @property
    def must_finish(self) -> bool:
        """Whether the upstream exchange goes on although its client has left."""
        return self.finish and self.sent and not self.settled

    def buffer(self, size_bytes: int) -> bool:
        """Make room for `size_bytes` more of the body, or say that there is none: then the call is refused."""
        if self.buffered_bytes + size_bytes > self.body_cap_bytes or not self._pool.take(size_bytes):
            self.oversized = True
            return False
        self.buffered_bytes += size_bytes
        return True

    def release_buffer(self) -> None:
        """Give the room of the buffered body back."""
        self._pool.give(self.buffered_bytes)
        self.buffered_bytes = 0


class BufferPool:
    """The room that all buffered bodies share."""

    def __init__(self, cap_bytes: int = BUFFERED_CAP_BYTES) -> None:
        self._left_bytes = cap_bytes

    def take(self, size_bytes: int) -> bool:
        """Whether `size_bytes` more fit; if so they are taken."""
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        """Give back what was taken."""
        self._left_bytes += size_bytes


class Counted:
    """What went through a WebSocket: messages of the client and of the server, and bytes of the server's."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.received_bytes = 0


class Passed:
    """Sees every chunk of a body that passes: counts, hashes, and keeps the first `cap_bytes`, for replay.

    `whole`: it has come to its end. `events`: reads what a stream of events tells of a model's usage; `web`: the
    trailers that gRPC-Web has in its body.
    """

    def __init__(self, cap_bytes: int, events: UsageEvents | None = None, web: WebTrailers | None = None) -> None:
        self._cap_bytes = cap_bytes
        self._events = events
        self.web = web
        self._hash = hashlib.sha256()
        self._kept = bytearray()
        self.size_bytes = 0
        self.whole = False

    def __call__(self, chunk: bytes) -> bytes:
        """Take note of `chunk`, of which an empty one is the end, and hand it on as it is."""
        self.whole = not chunk
        if chunk:
            self.size_bytes += len(chunk)
            self._hash.update(chunk)
            if self.size_bytes <= self._cap_bytes:
                self._kept += chunk
            elif self._kept:
                self._kept = bytearray()
            if self._events is not None:
                self._events.feed(chunk)
            if self.web is not None:
                self.web.feed(chunk)
        return chunk

    @property
    def usage(self) -> Usage | None:
        """What a stream of events has told of a model's usage."""
        return self._events.usage if self._events is not None else None

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def body(self) -> bytes | None:
        """All of it, or None when it was larger than the cap."""
        return bytes(self._kept) if self.size_bytes <= self._cap_bytes else None
