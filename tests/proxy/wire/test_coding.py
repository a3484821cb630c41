"""Content-decoding: bounded, exact to the last byte, and never in two ways."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]  # it has neither stubs nor py.typed
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.coding import CodingError, codings, decompress

CAP = 1024 * 1024
TEXT = b'{"amount": 100}' * 20


def raw_deflate(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(content) + stream.flush()


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def zstd_streamed(content: bytes) -> bytes:
    """Without the content's size in the frame's header."""
    stream = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return stream.compress(content) + stream.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "identity": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "deflate, zlib": ("deflate", zlib.compress),
    "deflate, raw": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd),
    "zstd, streamed": ("zstd", zstd_streamed),
}
CODED = {name: pair for name, pair in ENCODERS.items() if name != "identity"}


@pytest.mark.parametrize("name", ENCODERS)
@given(content=st.one_of(st.binary(max_size=300), st.integers(0, 100_000).map(lambda size: b"ab" * size)))
def test_decoding_undoes_encoding(name: str, content: bytes) -> None:
    coding, encode = ENCODERS[name]
    assert decompress(encode(content), coding, CAP) == content


@pytest.mark.parametrize("name", ENCODERS)
def test_what_hardly_compresses_is_decoded_too(name: str) -> None:
    coding, encode = ENCODERS[name]
    noise = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(250))
    assert decompress(encode(noise), coding, CAP) == noise


@pytest.mark.parametrize("name", CODED)
def test_every_truncation_is_an_error(name: str) -> None:
    coding, encode = CODED[name]
    whole = encode(TEXT)
    for size in range(len(whole)):
        with pytest.raises(CodingError):
            decompress(whole[:size], coding, CAP)


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("garbage", [b"\0", b"\0" * 8, b"x", b"\r\n", b'{"amount":1}'])
def test_bytes_after_the_end_are_an_error(name: str, garbage: bytes) -> None:
    coding, encode = CODED[name]
    with pytest.raises(CodingError):
        decompress(encode(TEXT) + garbage, coding, CAP)


@pytest.mark.parametrize("name", CODED)
def test_plain_bytes_under_a_coding_are_an_error(name: str) -> None:
    with pytest.raises(CodingError):
        decompress(TEXT, CODED[name][0], CAP)


@pytest.mark.parametrize("name", CODED)
@given(st.binary(max_size=80))
def test_arbitrary_bytes_decode_or_are_an_error(name: str, raw: bytes) -> None:
    try:
        decompress(raw, CODED[name][0], CAP)
    except CodingError as error:
        assert str(error).startswith("it")


@pytest.mark.parametrize("name", ENCODERS)
def test_the_cap_is_exact(name: str) -> None:
    coding, encode = ENCODERS[name]
    assert len(decompress(encode(b"a" * CAP), coding, CAP)) == CAP
    with pytest.raises(CodingError, match="more than may be read"):
        decompress(encode(b"a" * (CAP + 1)), coding, CAP)


def test_gzip_members_are_joined() -> None:
    assert decompress(gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"b"), "gzip", CAP) == b"ab"


def test_zstd_frames_are_joined() -> None:
    assert decompress(zstd(b"a") + zstd(b"") + zstd(b"b"), "zstd", CAP) == b"ab"


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("zstd", zstd)])
def test_the_cap_counts_all_members_together(coding: str, encode: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CodingError, match="more than may be read"):
        decompress(encode(b"a" * 6) * 2, coding, 10)


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("zstd", zstd)])
def test_members_without_end_are_an_error(coding: str, encode: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CodingError, match="too many"):
        decompress(encode(b"") * 2000, coding, CAP)


CHAINS: list[tuple[str, bytes]] = [
    ("gzip, br", brotli.compress(gzip.compress(TEXT))),
    ("br,zstd", zstd(brotli.compress(TEXT))),
    ("gzip, gzip", gzip.compress(gzip.compress(TEXT))),
    ("identity, gzip", gzip.compress(TEXT)),
    ("deflate , identity , br", brotli.compress(zlib.compress(TEXT))),
]


@pytest.mark.parametrize(("coding", "raw"), CHAINS, ids=[row[0] for row in CHAINS])
def test_a_chain_is_undone_from_its_end(coding: str, raw: bytes) -> None:
    assert decompress(raw, coding, CAP) == TEXT


@pytest.mark.parametrize(
    ("coding", "reason"),
    [
        ("rot13", "not one of"),
        ("hex", "not one of"),
        ("base64", "not one of"),
        ("bz2", "not one of"),
        ("zlib", "not one of"),
        ("aws-chunked", "not one of"),
        ("compress", "not one of"),
        ("", "not one of"),
        ("gzip,", "not one of"),
        ("gzip;q=1", "not one of"),
        ('"gzip"', "not one of"),
        ("gzip br", "not one of"),
        ("gzip, gzip, gzip", "more than 2"),
        ("gzip, rot13", "not one of"),
    ],
)
def test_other_codings_are_an_error(coding: str, reason: str) -> None:
    with pytest.raises(CodingError, match=reason):
        decompress(gzip.compress(gzip.compress(TEXT)), coding, CAP)


def test_codings_are_named_in_their_order() -> None:
    assert codings(None) == ()
    assert codings("X-Gzip, identity,BR") == ("gzip", "br")


def test_a_deflate_that_reads_in_two_ways_is_an_error() -> None:
    """Bytes that open a zlib stream and a raw stored block alike, each holding something else."""
    # zlib: header 78 01, then 01 = a last, stored block of 0xFEFE bytes (fe fe, complement 01 01).
    # raw: 78 = a stored block of 0x0101 bytes (01 01, complement fe fe), then 03 00 = a last, empty block.
    content = b"a" * 255 + b"\x03\x00" + b"b" * (0xFEFE - 257)
    raw = b"\x78\x01\x01\xfe\xfe\x01\x01" + content + zlib.adler32(content).to_bytes(4, "big")
    assert zlib.decompress(raw) == content
    assert zlib.decompressobj(-15).decompress(raw) == b"\x01\x01" + b"a" * 255
    with pytest.raises(CodingError, match="two ways"):
        decompress(raw, "deflate", CAP)


BOMB_BYTES = 1024 * 1024 * 1024


def gzip_bomb() -> bytes:
    """After a full flush, the same compressed block can be appended again and again."""
    stream = zlib.compressobj(9, wbits=31)
    block = bytes(16 * 1024 * 1024)
    first, again = (stream.compress(block) + stream.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + again * (BOMB_BYTES // len(block) - 1) + stream.flush()


def zstd_bomb() -> bytes:
    """Blocks of four bytes that each stand for 128 KiB of the same byte (RFC 8878 3.1.1.2)."""
    size = 128 * 1024
    block = (size << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (size << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + b"\x00\x38" + block * (BOMB_BYTES // size - 1) + last


def brotli_bomb() -> bytes:
    stream = brotli.Compressor(quality=5)
    block = bytes(16 * 1024 * 1024)
    first, again = (bytes(stream.process(block) + stream.flush()) for _ in range(2))
    return first + again * (BOMB_BYTES // len(block) - 1) + bytes(stream.finish())


@pytest.mark.parametrize(("coding", "make"), [("gzip", gzip_bomb), ("zstd", zstd_bomb), ("br", brotli_bomb)])
def test_a_bomb_costs_its_cap_and_not_its_contents(coding: str, make: Callable[[], bytes]) -> None:
    bomb = make()
    assert len(bomb) < 2 * CAP  # and it stands for 1 GiB
    tracemalloc.start()
    try:
        with pytest.raises(CodingError, match="more than may be read"):
            decompress(bomb, coding, CAP)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20 * CAP
