"""Usage from streams of events: whole, byte by byte, packed, broken, and of any length."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import brotli  # type: ignore[import-untyped]  # it has neither stubs nor py.typed
import pytest
import zstandard

from proxy.wire import coding as coding_of
from proxy.wire.coding import CodingError, Unpacking
from proxy.wire.events import LINE_CAP_BYTES, UsageEvents, usage_events
from rules.usage import Usage

CHAT = (
    b'data: {"model":"gpt-4o","choices":[{"delta":{"content":"\\"usage\\" h\xc3\xa9"}}],"usage":null}\n\n'
    b'data: {"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\n'
    b"data: [DONE]\n\n"
)
MESSAGE = (
    b'event: message_start\r\ndata: {"type":"message_start","message":{"model":"claude","usage":{"input_tokens":7,'
    b'"output_tokens":1}}}\r\n\r\nevent: ping\r\ndata: {"type":"ping"}\r\n\r\n'
    b'event: message_delta\r\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":30}}\r\n\r\n'
)
OF_CHAT = Usage("gpt-4o", 10, 5)


def read(stream: bytes, size: int = 1 << 20, coding: str | None = None) -> Usage | None:
    reader = UsageEvents(coding)
    for at in range(0, len(stream), size):
        reader.feed(stream[at : at + size])
    return reader.usage


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize(("stream", "usage"), [(CHAT, OF_CHAT), (MESSAGE, Usage("claude", 7, 30))])
def test_it_does_not_matter_how_a_stream_is_cut(stream: bytes, usage: Usage, size: int) -> None:
    assert read(stream, size) == usage


def _zstd(stream: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(stream)


PACKED: list[tuple[str | None, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("br", brotli.compress),
    ("zstd", _zstd),
    ("identity", bytes),
    (None, bytes),
]


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_a_packed_stream_is_unpacked_as_it_comes(coding: str | None, pack: Callable[[bytes], bytes], size: int) -> None:
    long = b"data: {}\n\n" * 30_000
    assert read(pack(long + CHAT), max(size, len(pack(long)) // 500), coding) == OF_CHAT
    assert read(pack(CHAT), size, coding) == OF_CHAT


def test_events_that_are_flushed_one_by_one_are_read_at_once() -> None:
    packer = zlib.compressobj(wbits=31)
    reader = UsageEvents("gzip")
    reader.feed(packer.compress(CHAT) + packer.flush(zlib.Z_SYNC_FLUSH))
    assert reader.usage == OF_CHAT


@pytest.mark.parametrize("coding", ["deflate", "gzip, br", "rot13"])
def test_what_can_not_be_unpacked_as_it_comes_tells_nothing(coding: str) -> None:
    assert read(CHAT, coding=coding) is None
    with pytest.raises(CodingError):
        Unpacking(coding)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_what_is_not_packed_as_it_says_tells_nothing(coding: str) -> None:
    assert read(CHAT, coding=coding) is None
    with pytest.raises(CodingError):
        list(Unpacking(coding).feed(CHAT))


def test_what_breaks_tells_nothing_any_more() -> None:
    reader = UsageEvents("gzip")
    packer = zlib.compressobj(wbits=31)
    reader.feed(packer.compress(CHAT) + packer.flush(zlib.Z_SYNC_FLUSH))
    reader.feed(b"\xff" * 100)
    assert reader.usage is None
    reader.feed(CHAT)
    assert reader.usage is None


def test_what_follows_the_end_of_a_packed_stream_is_not_read() -> None:
    assert read(gzip.compress(CHAT) + gzip.compress(MESSAGE), coding="gzip") == OF_CHAT
    assert read(_zstd(CHAT) + _zstd(MESSAGE), coding="zstd") == OF_CHAT


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"usage": {"prompt_tokens": 1}',
        b'data: {"usage": {"prompt_tokens": 1, "prompt_tokens": 2}}',
        b'data: {"usage": {"prompt_tokens": NaN}}',
        b'data: {"usage": ' + b"[" * 100_000 + b"}",
        b'event: {"usage": {"prompt_tokens": 1}}',
        b'data: "usage"',
        b'data: \xff"usage"',
    ],
)
def test_a_line_that_can_not_be_read_is_skipped(line: bytes) -> None:
    assert read(line + b"\n\n") is None
    assert read(line + b"\n\n" + CHAT) == OF_CHAT


def test_a_line_that_is_too_long_is_skipped() -> None:
    long = b'data: {"usage": {"prompt_tokens": 1}, "text": "' + b"a" * LINE_CAP_BYTES + b'"}\n\n'
    assert read(long, 1 << 16) is None
    assert read(long + CHAT, 1 << 16) == OF_CHAT


def test_a_response_that_says_all_of_its_text_at_the_end_is_read() -> None:
    told = {"response": {"model": "gpt-5", "text": "a" * 1_000_000, "usage": {"input_tokens": 1, "output_tokens": 2}}}
    assert read(f"data: {json.dumps(told)}\n\n".encode(), 1 << 14) == Usage("gpt-5", 1, 2)


def bombs() -> Iterator[tuple[str, bytes]]:
    zeros = b"\0" * (64 << 20)
    yield "gzip", gzip.compress(zeros)
    yield "zstd", _zstd(zeros)


@pytest.mark.parametrize(("coding", "bomb"), bombs())
def test_a_bomb_costs_a_bounded_amount_of_memory(coding: str, bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding_of, "UNPACKED_CAP_BYTES", 16 << 20)
    reader = UsageEvents(coding)
    tracemalloc.start()
    reader.feed(bomb)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 40 << 20
    reader.feed(CHAT)
    assert reader.usage is None


def test_only_a_stream_of_events_is_read() -> None:
    assert usage_events([("content-type", "application/json")]) is None
    assert usage_events([]) is None
    assert usage_events([("content-type", "Text/Event-Stream; charset=utf-8")]) is not None
