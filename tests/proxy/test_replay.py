"""Replays: byte for byte what the upstream said, marked, and framed anew for this connection."""

from __future__ import annotations

import gzip

import brotli  # type: ignore[import-untyped]  # it has neither stubs nor py.typed
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger.entries import StoredAnswer
from proxy.refusal import Reply
from proxy.replay import DECODED_CAP_BYTES, accepts, reply
from tests.rules.world import call

BODY = b'{"id":"re_1"}'
MARKS = [("idempotent-replayed", "true"), ("cache-status", "borderpost; hit; detail=dedupe")]

type Fields = list[tuple[bytes, bytes]]


def stored(*headers: tuple[bytes, bytes], body: bytes = BODY, status: int = 200, reason: bytes = b"OK") -> StoredAnswer:
    return StoredAnswer("c_00", 0, status, reason, "HTTP/1.1", headers, body)


def replayed(answer: StoredAnswer, accept_encoding: str = "gzip", method: str = "POST") -> Reply:
    headers = (("accept-encoding", accept_encoding),) if accept_encoding else ()
    return reply(answer, call(method=method, headers=headers))


def test_a_replay_is_the_answer_with_marks_and_its_length() -> None:
    answer = stored(
        (b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
        (b"Content-Type", b"application/json"),
        (b"X-Request-Id", b"req_1"),
        status=201,
        reason=b"Created",
    )
    assert replayed(answer) == Reply(
        201,
        "Created",
        (
            ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("content-type", "application/json"),
            ("x-request-id", "req_1"),
            *MARKS,
            ("content-length", "13"),
        ),
        BODY,
    )


DROPPED = [
    "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding",
    "Upgrade", "Set-Cookie", "Content-Length", "Retry-After", "RateLimit", "RateLimit-Policy", "RateLimit-Remaining",
    "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Rate-Limit-Limit", "X-Rate-Limit-Reset",
    "anthropic-ratelimit-requests-remaining",
]  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_what_belongs_to_the_first_exchange_is_left_out(name: str) -> None:
    sent = replayed(stored((name.encode(), b"1"), (b"x-kept", b"1"))).headers
    assert list(sent) == [("x-kept", "1"), *MARKS, ("content-length", "13")]


def test_fields_that_connection_names_are_left_out() -> None:
    sent = dict(replayed(stored((b"Connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"x-kept", b"1"))).headers)
    assert "x-hop" not in sent
    assert sent["x-kept"] == "1"


@pytest.mark.parametrize("name", ["Date", "Age", "ETag", "Cache-Control", "Location", "X-Generate-Limit", "X-Kept"])
def test_other_fields_are_kept(name: str) -> None:
    assert replayed(stored((name.encode(), b"1"))).headers[0] == (name.lower(), "1")


def test_fields_sent_twice_are_kept_twice_in_order() -> None:
    sent = replayed(stored((b"Link", b"a"), (b"X", b"y"), (b"Link", b"b"))).headers
    assert sent[:3] == (("link", "a"), ("x", "y"), ("link", "b"))


def test_values_outside_ascii_survive() -> None:
    sent = replayed(stored((b"x-name", "é".encode()))).headers
    assert sent[0][1].encode("latin-1") == "é".encode()


def test_marks_of_the_upstream_are_not_doubled() -> None:
    sent = replayed(stored((b"Idempotent-Replayed", b"false"), (b"Cache-Status", b"cdn; fwd=miss"))).headers
    assert ("idempotent-replayed", "true") in sent
    assert ("cache-status", "cdn; fwd=miss, borderpost; hit; detail=dedupe") in sent
    assert len({name for name, _ in sent}) == len(sent)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 204), ("GET", 304)])
def test_where_http_has_no_body_there_is_none(method: str, status: int) -> None:
    sent = replayed(stored(status=status, body=BODY if status == 200 else b""), method=method)
    assert sent.body == b""
    assert "content-length" not in dict(sent.headers)


def test_an_empty_body_has_length_zero() -> None:
    assert dict(replayed(stored(body=b"")).headers)["content-length"] == "0"


@pytest.mark.parametrize(
    ("reason", "shown"), [(b"OK", "OK"), (b"", ""), ("zu spät".encode(), ""), (b"a\r\nb: c", ""), (b"\xff", "")]
)
def test_a_reason_that_cannot_be_sent_is_left_out(reason: bytes, shown: str) -> None:
    assert replayed(stored(reason=reason)).reason == shown


GZIP = [(b"Content-Encoding", b"gzip"), (b"ETag", b'"v1"'), (b"Content-MD5", b"x"), (b"Vary", b"Accept-Encoding")]


def test_a_coding_that_the_client_accepts_is_kept_byte_for_byte() -> None:
    body = gzip.compress(BODY)
    sent = replayed(stored(*GZIP, body=body), "br, gzip")
    assert sent.body == body
    assert sent.headers[:4] == (
        ("content-encoding", "gzip"),
        ("etag", '"v1"'),
        ("content-md5", "x"),
        ("vary", "Accept-Encoding"),
    )


@pytest.mark.parametrize("accept", ["", "identity", "br", "gzip;q=0", "gzip;q=0.0, br", "*;q=0"])
def test_a_coding_that_the_client_does_not_accept_is_undone(accept: str) -> None:
    sent = replayed(stored(*GZIP, body=gzip.compress(BODY)), accept)
    assert sent.body == BODY
    assert list(sent.headers) == [
        ("etag", 'W/"v1"'),
        ("vary", "Accept-Encoding"),
        *MARKS,
        ("content-length", str(len(BODY))),
    ]


def test_a_weak_etag_stays_as_it_is() -> None:
    answer = stored((b"Content-Encoding", b"br"), (b"ETag", b'W/"v1"'), body=brotli.compress(BODY))
    assert dict(replayed(answer).headers)["etag"] == 'W/"v1"'


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", b"no gzip at all"),
        (b"gzip", gzip.compress(BODY, mtime=0)[:-3]),
        (b"compress", b"x"),
        (b"gzip", gzip.compress(bytes(DECODED_CAP_BYTES + 1))),
    ],
)
def test_what_cannot_be_undone_is_sent_as_it_is(coding: bytes, body: bytes) -> None:
    sent = replayed(stored((b"Content-Encoding", coding), body=body), "")
    assert sent.body == body
    assert dict(sent.headers)["content-encoding"] == coding.decode()


ACCEPTS: list[tuple[str, tuple[str, ...], bool]] = [
    ("gzip", ("gzip",), True),
    ("gzip, deflate, br", ("br",), True),
    ("GZIP", ("gzip",), True),
    ("x-gzip", ("gzip",), True),
    ("gzip;q=0.5", ("gzip",), True),
    ("gzip ; q=1.000", ("gzip",), True),
    ("gzip;q=0", ("gzip",), False),
    ("gzip;q=0.000", ("gzip",), False),
    ("gzip;q=x", ("gzip",), False),
    ("", ("gzip",), False),
    ("*", ("zstd",), True),
    ("*;q=0", ("zstd",), False),
    ("gzip;q=0, *", ("gzip",), False),
    ("br", ("gzip",), False),
    ("br, gzip", ("gzip", "br"), True),
    ("br", ("gzip", "br"), False),
    ("", (), True),
]


@pytest.mark.parametrize(("accept", "names", "fine"), ACCEPTS)
def test_accept_encoding_is_read_with_its_weights(accept: str, names: tuple[str, ...], fine: bool) -> None:
    assert accepts(accept, names) is fine


@given(
    st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6), st.binary(max_size=50), st.text()
)
def test_any_stored_answer_can_be_replayed(headers: Fields, body: bytes, accept: str) -> None:
    sent = replayed(stored(*headers, body=body), accept)
    assert dict(sent.headers)["content-length"] == str(len(sent.body))
    assert ("idempotent-replayed", "true") in sent.headers
    assert all(value.encode("latin-1") is not None for _, value in sent.headers)
