"""Bounded content-decoding: identity, gzip, deflate, br, zstd, and chains of two. Never more output than the cap.

Every decompressor streams, so a bomb costs its cap and not its contents. What is truncated, has trailing bytes, or can
be read in two ways is an error. Sources: RFC 9110 8.4, RFC 1950-1952, RFC 7932, RFC 8878.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import brotli  # type: ignore[import-untyped]  # it has neither stubs nor py.typed
import zstandard

CHAIN_CAP = 2
_MEMBERS_CAP = 1000
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
_ZSTD_STEP_BYTES = 256
"""A zstd block of 4 bytes can say 128 KiB: with steps of this size the cap is overshot by 8 MiB at most."""


class CodingError(ValueError):
    """The bytes cannot be content-decoded; the message says why."""


class TooLargeError(CodingError):
    """They can, as far as was tried, but to more than the cap."""

    def __init__(self) -> None:
        super().__init__("it decodes to more than may be read")


def codings(content_encoding: str | None) -> tuple[str, ...]:
    """The codings that Content-Encoding names, in the order of their application, without `identity`."""
    if content_encoding is None:
        return ()
    names = [name.strip(" \t").lower() for name in content_encoding.split(",")]
    return tuple("gzip" if name == "x-gzip" else name for name in names if name != "identity")


def decompress(raw: bytes, content_encoding: str | None, cap_bytes: int) -> bytes:
    """`raw` without its content-codings. Raises `CodingError`, also when there would be more than `cap_bytes`."""
    names = codings(content_encoding)
    if len(names) > CHAIN_CAP:
        raise CodingError(f"it has more than {CHAIN_CAP} content-codings")
    for name in reversed(names):
        if name == "gzip":
            raw = _gzip(raw, cap_bytes)
        elif name == "deflate":
            raw = _deflate(raw, cap_bytes)
        elif name == "br":
            raw = _brotli(raw, cap_bytes)
        elif name == "zstd":
            raw = _zstd(raw, cap_bytes)
        else:
            raise CodingError("its content-coding is not one of gzip, deflate, br and zstd")
    if len(raw) > cap_bytes:
        raise TooLargeError
    return raw


UNPACKED_CAP_BYTES = 256 * 1024 * 1024
"""What a compressed stream may unpack to; then nobody reads on."""


class Unpacking:
    """Takes a content-coding off as its bytes come, in pieces of at most some MiB. For streams without end.

    Trailing bytes are not looked at, and the end is not missed: who needs to know that decodes the whole.
    """

    def __init__(self, content_encoding: str | None) -> None:
        """Raises `CodingError` for what can not be taken off bit by bit."""
        names = codings(content_encoding)
        if len(names) > 1 or (names and names[0] not in _UNPACKING):
            raise CodingError("its content-coding can not be taken off as it comes")
        self._unpack = _UNPACKING[names[0]]() if names else None
        self._left_bytes = UNPACKED_CAP_BYTES

    def feed(self, raw: bytes) -> Iterator[bytes]:
        """What `raw` adds. Raises `CodingError`."""
        if self._unpack is None:
            yield raw
            return
        try:
            for piece in self._unpack(raw):
                self._left_bytes -= len(piece)
                if self._left_bytes < 0:
                    raise CodingError("it unpacks to more than may be read")
                yield piece
        except (zlib.error, brotli.error, zstandard.ZstdError):
            raise CodingError("its content-coding is broken") from None


def _gzip_unpacking() -> Callable[[bytes], Iterator[bytes]]:
    stream = zlib.decompressobj(31)

    def feed(raw: bytes) -> Iterator[bytes]:
        while not stream.eof:
            piece = stream.decompress(raw, _PIECE_BYTES)
            raw = stream.unconsumed_tail
            yield piece
            if len(piece) < _PIECE_BYTES and not raw:
                return

    return feed


def _brotli_unpacking() -> Callable[[bytes], Iterator[bytes]]:
    stream = brotli.Decompressor()

    def feed(raw: bytes) -> Iterator[bytes]:
        piece = stream.process(raw, output_buffer_limit=_PIECE_BYTES)
        while piece:
            yield piece
            piece = stream.process(b"", output_buffer_limit=_PIECE_BYTES) if not stream.is_finished() else b""

    return feed


def _zstd_unpacking() -> Callable[[bytes], Iterator[bytes]]:
    stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()

    def feed(raw: bytes) -> Iterator[bytes]:
        for at in range(0, len(raw), _ZSTD_STEP_BYTES):
            if stream.eof:
                return
            yield stream.decompress(raw[at : at + _ZSTD_STEP_BYTES])

    return feed


_UNPACKING = {"gzip": _gzip_unpacking, "br": _brotli_unpacking, "zstd": _zstd_unpacking}
_PIECE_BYTES = 64 * 1024


def _inflate(raw: bytes, wbits: int, cap_bytes: int) -> tuple[bytes, bytes]:
    """One zlib stream of `raw`, and what follows it."""
    stream = zlib.decompressobj(wbits)
    try:
        out = stream.decompress(raw, cap_bytes + 1)
    except zlib.error:
        raise CodingError("its content-coding is broken") from None
    if len(out) > cap_bytes:
        raise TooLargeError
    if not stream.eof:
        raise CodingError("its content-coding is cut short")
    return out, stream.unused_data


def _gzip(raw: bytes, cap_bytes: int) -> bytes:
    out, rest = _inflate(raw, 31, cap_bytes)
    members = [out]
    size_bytes = len(out)
    while rest:
        if len(members) == _MEMBERS_CAP:
            raise CodingError("it has too many gzip members")
        out, rest = _inflate(rest, 31, cap_bytes - size_bytes)
        size_bytes += len(out)
        members.append(out)
    return b"".join(members)


def _deflate(raw: bytes, cap_bytes: int) -> bytes:
    """`deflate` means the zlib format; some senders leave out its header. What begins in both ways is refused."""
    has_header = len(raw) >= 2 and raw[0] & 0x0F == 8 and int.from_bytes(raw[:2]) % 31 == 0
    readings = []
    problem = CodingError("its content-coding is broken")
    for wbits in (-15, 15) if has_header else (-15,):
        try:
            readings.append(_inflate(raw, wbits, cap_bytes))
        except TooLargeError:
            raise
        except CodingError as error:
            problem = error
    if not readings:
        raise problem
    if len(readings) > 1:
        raise CodingError("its deflate coding can be read in two ways")
    out, rest = readings[0]
    if rest:
        raise CodingError("it has bytes after its content-coding")
    return out


def _brotli(raw: bytes, cap_bytes: int) -> bytes:
    stream = brotli.Decompressor()
    pieces: list[bytes] = []
    size_bytes = 0
    feed = raw
    try:
        while not stream.is_finished():
            piece = stream.process(feed, output_buffer_limit=cap_bytes - size_bytes + 1)
            feed = b""
            size_bytes += len(piece)
            if size_bytes > cap_bytes:
                raise TooLargeError
            pieces.append(piece)
            if not piece and not stream.is_finished():
                raise CodingError("its content-coding is cut short")
    except brotli.error:  # also for bytes after the end
        raise CodingError("its content-coding is broken") from None
    return b"".join(pieces)


def _zstd(raw: bytes, cap_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size_bytes = 0
    frames = 0
    stream = None
    at = 0
    try:
        while at < len(raw):
            if stream is None:
                frames += 1
                if frames > _MEMBERS_CAP:
                    raise CodingError("it has too many zstd frames")
                stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
            step = raw[at : at + _ZSTD_STEP_BYTES]
            piece = stream.decompress(step)
            at += len(step)
            size_bytes += len(piece)
            if size_bytes > cap_bytes:
                raise TooLargeError
            pieces.append(piece)
            if stream.eof:
                at -= len(stream.unused_data)
                stream = None
    except zstandard.ZstdError:
        raise CodingError("its content-coding is broken") from None
    if stream is not None or not frames:
        raise CodingError("its content-coding is cut short")
    return b"".join(pieces)
