"""What a stream of server-sent events tells of a model's usage, read as it passes: a stream may last for hours.

Nothing is kept but the current line, and no more than a bounded part of that. What can not be read tells nothing, and
whatever goes wrong here, the stream itself goes on. Each event is read by itself: its `data` is one line of JSON, as
OpenAI and Anthropic send it (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from proxy.wire.body import read_json
from proxy.wire.coding import CodingError, Unpacking
from rules.usage import Reading, Usage

LINE_CAP_BYTES = 4 * 1024 * 1024
"""A longer line is skipped. OpenAI's last event of a response holds all of its text."""


def usage_events(headers: Iterable[tuple[str, str]]) -> UsageEvents | None:
    """A reader for an answer with these `headers` (lower-case names), None where it is no stream of events."""
    found = dict(headers)
    if found.get("content-type", "").partition(";")[0].strip().lower() != "text/event-stream":
        return None
    return UsageEvents(found.get("content-encoding"))


class UsageEvents:
    """Give it every chunk of the stream; then ask for the `usage`."""

    def __init__(self, content_encoding: str | None) -> None:
        self._reading = Reading()
        self._line = bytearray()
        self._skipping = False
        self._unpacking: Unpacking | None = None
        with contextlib.suppress(CodingError):
            self._unpacking = Unpacking(content_encoding)

    @property
    def usage(self) -> Usage | None:
        """What has been told so far, if that is all of it."""
        return self._reading.usage if self._unpacking is not None else None

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the stream. Never raises."""
        if self._unpacking is None:
            return
        try:
            for piece in self._unpacking.feed(chunk):
                self._take(piece)
        except Exception:  # noqa: BLE001  decoders fail in ways of their own; the stream is none of their business
            self._unpacking = None
            self._line.clear()

    def _take(self, piece: bytes) -> None:
        """Read the lines that `piece` ends."""
        at = 0
        while (end := piece.find(b"\n", at)) >= 0:
            self._line += piece[at:end]
            if not self._skipping and len(self._line) <= LINE_CAP_BYTES:
                self._read(bytes(self._line))
            self._line.clear()
            self._skipping = False
            at = end + 1
        self._line += piece[at:]
        if len(self._line) > LINE_CAP_BYTES:
            self._line.clear()
            self._skipping = True

    def _read(self, line: bytes) -> None:
        """Read one line, if it is data that speaks of usage."""
        if line.startswith(b"data:") and b'"usage"' in line:
            with contextlib.suppress(ValueError, RecursionError):
                self._reading.take(read_json(line[5:].strip()))
