"""Bodies of answers: decoded strictly and never unbounded."""

from __future__ import annotations

import gzip

from proxy.wire.answer import DECODED_CAP_BYTES, read_answer_body

JSON = ("content-type", "application/json; charset=utf-8")
GZIP = ("content-encoding", "gzip")


def test_json_is_read() -> None:
    body = read_answer_body([JSON], b'{"ok": false}')
    assert (body.kind, body.json) == ("json", {"ok": False})


def test_a_coding_is_undone() -> None:
    assert read_answer_body([GZIP, JSON], gzip.compress(b'{"ok": 1}')).json == {"ok": 1}


def test_a_bomb_is_not_unpacked() -> None:
    body = read_answer_body([GZIP, JSON], gzip.compress(b" " * (DECODED_CAP_BYTES + 1)))
    assert (body.kind, body.problem) == ("undecodable", "it decodes to more than may be read")


def test_a_body_that_was_not_kept_is_unread() -> None:
    assert read_answer_body([JSON], None).kind == "unread"


def test_of_two_headers_the_first_counts() -> None:
    assert read_answer_body([JSON, ("content-type", "text/plain")], b"{}").kind == "json"
