"""The trailers of gRPC-Web: read in whatever pieces they come, and not at all where anything is not as it has to be."""

from __future__ import annotations

import base64
import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import coding
from proxy.wire.grpcweb import TRAILERS_CAP_BYTES, WebTrailers, web_trailers

type Fields = tuple[tuple[str, str], ...]

OK: Fields = (("grpc-status", "0"), ("grpc-message", ""))


def frame(content: bytes, flags: int = 0) -> bytes:
    return bytes([flags]) + len(content).to_bytes(4) + content


def end(*lines: bytes) -> bytes:
    return frame(b"\r\n".join(lines) + b"\r\n", 0x80)


MESSAGE = frame(b"hello")
TRAILERS = end(b"grpc-status: 0", b"grpc-message:")


def read(body: bytes, text: bool = False, coded: str | None = None) -> tuple[Fields, bool]:
    reading = WebTrailers(text, coded)
    reading.feed(body)
    return reading.trailers, reading.only


BODIES = [
    ("a message and its end", MESSAGE + TRAILERS, OK, False),
    ("nothing but the end", TRAILERS, OK, True),
    ("an empty message", frame(b"") + TRAILERS, OK, False),
    ("a compressed message", frame(b"x", 1) + TRAILERS, OK, False),
    ("names in capitals, no spaces", end(b"Grpc-Status:7"), (("grpc-status", "7"),), True),
    ("no last line end", frame(b"grpc-status:7", 0x80), (("grpc-status", "7"),), True),
    ("an empty end", frame(b"", 0x80), (), True),
    ("nothing", b"", (), False),
    ("a message alone", MESSAGE, (), False),
    ("a message that is cut", MESSAGE[:-1], (), False),
    ("an end that is cut", MESSAGE + TRAILERS[:-1], (), False),
    ("something after the end", TRAILERS + MESSAGE, (), False),
    ("two ends", TRAILERS + TRAILERS, (), False),
    ("a compressed end", frame(b"grpc-status:0\r\n", 0x81), (), False),
    ("a line that is no field", end(b"grpc-status: 0", b"grpc-message"), (), False),
    ("an end that is too long", end(b"a:" + b"x" * TRAILERS_CAP_BYTES), (), False),
]


@pytest.mark.parametrize(("case", "body", "trailers", "only"), BODIES, ids=[case for case, *_ in BODIES])
def test_what_an_answer_says_at_its_end(case: str, body: bytes, trailers: Fields, only: bool) -> None:
    assert read(body) == (trailers, only)
    assert read(base64.b64encode(body), text=True) == (trailers, only)
    assert read(gzip.compress(body), coded="gzip") == (trailers, only)


@given(st.lists(st.binary(max_size=40), max_size=4), st.booleans(), st.integers(1, 9))
def test_it_does_not_matter_in_what_pieces_it_comes(messages: list[bytes], text: bool, size: int) -> None:
    frames = [*map(frame, messages), TRAILERS]
    # a server pads each frame by itself, as it sends it
    body = b"".join(map(base64.b64encode, frames)) if text else b"".join(frames)
    reading = WebTrailers(text, None)
    for at in range(0, len(body), size):
        assert reading.trailers == ()
        reading.feed(body[at : at + size])
    assert (reading.trailers, reading.only) == (OK, not messages)


@given(st.binary(max_size=200), st.booleans())
def test_whatever_comes_it_never_raises(body: bytes, text: bool) -> None:
    trailers, only = read(body, text)
    assert bool(trailers) <= (b"\x80" in body or text) and only <= bool(body)


@pytest.mark.parametrize("body", [b"AAAA=", b"AA==A", b"AAA\n", b"AAA*", b"=AAA", b"AAAAA"])
def test_what_is_no_base64_says_nothing(body: bytes) -> None:
    assert read(base64.b64encode(TRAILERS) + body, text=True) == ((), False)


def test_an_answer_that_unpacks_to_too_much_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    body = gzip.compress(frame(bytes(3 << 20)) + TRAILERS)
    assert read(body, coded="gzip")[0] == OK
    monkeypatch.setattr(coding, "UNPACKED_CAP_BYTES", 2 << 20)
    assert read(body, coded="gzip")[0] == ()


def test_little_is_kept_of_long_messages() -> None:
    reading = WebTrailers(False, None)
    reading.feed(b"\0" + (2**31).to_bytes(4))
    for _ in range(2**11):
        reading.feed(bytes(2**20))
    assert not reading._frame
    reading.feed(TRAILERS)
    assert reading.trailers == OK


TYPES = [
    ("application/grpc-web", False),
    ("application/grpc-web+proto", False),
    ("Application/gRPC-Web-Text+proto; charset=utf-8", True),
    ("application/grpc-web-text", True),
    ("application/grpc", None),
    ("application/grpc-websocket", None),
    ("text/plain", None),
    ("", None),
]


@pytest.mark.parametrize(("kind", "text"), TYPES)
def test_which_answers_are_read(kind: str, text: bool | None) -> None:
    reading = web_trailers((("content-type", kind),))
    assert (None if reading is None else reading._text) == text
