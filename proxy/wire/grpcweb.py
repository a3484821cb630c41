"""The end of an answer in gRPC-Web: what HTTP/2 has as trailers stands in the last frame of the body.

It is read as it passes. Nothing is kept but that frame, up to a cap. What is not in every detail as it has to be tells
nothing, and whatever goes wrong here, the answer itself goes on.
Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md.
"""

from __future__ import annotations

import binascii
import contextlib
import re
from collections.abc import Iterable

from proxy.wire.coding import CodingError, Unpacking

TRAILERS_CAP_BYTES = 16 * 1024

_HEAD_BYTES = 5
"""One byte of flags, four of the length of what follows."""

_TRAILERS = 0x80
_AFTER_PADDING = re.compile(rb"(?<==)(?!=)")
_TYPE = re.compile(r"application/grpc-web(-text)?(?:\+[^;]*)?[ \t]*(?:;.*)?", re.IGNORECASE)

type Fields = tuple[tuple[str, str], ...]


def web_trailers(headers: Iterable[tuple[str, str]]) -> WebTrailers | None:
    """A reader for an answer with these `headers` (lower-case names), None where it is none of gRPC-Web."""
    found = dict(headers)
    kind = _TYPE.fullmatch(found.get("content-type", "").strip())
    return WebTrailers(kind[1] is not None, found.get("content-encoding")) if kind else None


class WebTrailers:
    """Give it every chunk of the body; then ask for the `trailers`. `text`: it is written in Base64.

    `only`: nothing came before them.
    """

    def __init__(self, text: bool, content_encoding: str | None) -> None:
        self._text = text
        self._digits = b""
        self._frame = bytearray()
        self._skip_bytes = 0
        self._found: Fields | None = None
        self._messages = False
        self._unpacking: Unpacking | None = None
        with contextlib.suppress(CodingError):
            self._unpacking = Unpacking(content_encoding)

    @property
    def trailers(self) -> Fields:
        """What the last frame says, once all has come; nothing where that cannot be told."""
        return self._found or () if self._whole else ()

    @property
    def only(self) -> bool:
        return self._whole and not self._messages

    @property
    def _whole(self) -> bool:
        return self._found is not None and self._unpacking is not None and not self._digits

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body. Never raises."""
        if self._unpacking is None:
            return
        try:
            for piece in self._unpacking.feed(chunk):
                self._take(self._decoded(piece) if self._text else piece)
        except Exception:  # noqa: BLE001  decoders fail in ways of their own; the answer is none of their business
            self._unpacking = None
            self._frame.clear()

    def _decoded(self, piece: bytes) -> bytes:
        """What `piece` says in Base64, as far as it is whole. Each part that a server sends may be padded by itself."""
        digits = self._digits + piece
        whole = len(digits) // 4 * 4
        self._digits = digits[whole:]
        parts = _AFTER_PADDING.split(digits[:whole])
        return b"".join([binascii.a2b_base64(part, strict_mode=True) for part in parts if part])

    def _take(self, piece: bytes) -> None:
        """Read the frames in `piece`. What they hold is skipped, but for the trailers."""
        at = 0
        while at < len(piece):
            if self._found is not None:
                raise ValueError("something follows the trailers")
            if self._skip_bytes:
                skipped = min(self._skip_bytes, len(piece) - at)
                self._skip_bytes -= skipped
                at += skipped
                continue
            wanted = self._wanted_bytes()
            taken = piece[at : at + wanted - len(self._frame)]
            self._frame += taken
            at += len(taken)
            if len(self._frame) == self._wanted_bytes():
                self._end()

    def _wanted_bytes(self) -> int:
        """How long what is gathered has to become: a frame's head, then all of the frame, if it is kept."""
        if len(self._frame) < _HEAD_BYTES:
            return _HEAD_BYTES
        if self._frame[0] != _TRAILERS:
            return len(self._frame)
        length = int.from_bytes(self._frame[1:_HEAD_BYTES])
        if length > TRAILERS_CAP_BYTES:
            raise ValueError("the trailers are too long")
        return _HEAD_BYTES + length

    def _end(self) -> None:
        """What was gathered is a message's head, or all of the trailers."""
        if self._frame[0] == _TRAILERS:
            self._found = _fields(bytes(self._frame[_HEAD_BYTES:]))
        elif self._frame[0] & _TRAILERS:
            raise ValueError("the trailers are compressed")
        else:
            self._messages = True
            self._skip_bytes = int.from_bytes(self._frame[1:_HEAD_BYTES])
        self._frame.clear()


def _fields(block: bytes) -> Fields:
    """Header lines as (lower-case name, value) pairs."""
    found = []
    for line in block.decode("latin-1").split("\r\n"):
        if line:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("a line of the trailers is no field")
            found.append((name.strip().lower(), value.strip()))
    return tuple(found)
