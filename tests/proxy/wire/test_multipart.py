"""multipart/form-data: what all servers split alike is read, everything else is an error with its reason."""

from __future__ import annotations

import hashlib

import httpx
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.multipart import PART_HEAD_CAP_BYTES, PARTS_CAP, MultipartError, read_multipart
from rules.call import Part


def part(name: str, content: bytes, filename: str = "", media_type: str = "", text: str | None = None) -> Part:
    shown = content.decode() if text is None else text
    return Part(name, filename, media_type, hashlib.sha256(content).digest(), shown)


def one(head: bytes, content: bytes = b"1") -> bytes:
    """A body of one part with this header."""
    return b"--B\r\n" + head + b"\r\n\r\n" + content + b"\r\n--B--\r\n"


def named(parameters: bytes) -> bytes:
    return one(b"Content-Disposition: form-data" + parameters)


A = b'Content-Disposition: form-data; name="a"'

READ: list[tuple[str, bytes, list[Part]]] = [
    ("one field", one(A), [part("a", b"1")]),
    ("no line end after the closing boundary", one(A)[:-2], [part("a", b"1")]),
    ("an empty value", one(A, b""), [part("a", b"")]),
    ("line ends in a value", one(A, b"x\r\ny\n\r\n"), [part("a", b"x\r\ny\n\r\n")]),
    ("blank lines in a value", one(A, b"\r\n\r\nx"), [part("a", b"\r\n\r\nx")]),
    ("UTF-8", one(A, "é".encode()), [part("a", "é".encode())]),
    ("bytes that are no text", one(A, b"\xff"), [part("a", b"\xff", text="")]),
    ("two fields in order", b"--B\r\n" + A + b"\r\n\r\n1\r\n" + one(A.replace(b'"a"', b'"b"'), b"2"),
     [part("a", b"1"), part("b", b"2")]),
    ("a name twice", b"--B\r\n" + A + b"\r\n\r\n1\r\n" + one(A, b"2"), [part("a", b"1"), part("a", b"2")]),
    ("no parts", b"--B--\r\n", []),
    ("a name without quotes", named(b"; name=a"), [part("a", b"1")]),
    ("an empty name", named(b'; name=""'), [part("", b"1")]),
    ("a name as browsers escape it", named(b'; name="a%22b"'), [part("a%22b", b"1")]),
    ("a name with a semicolon", named(b'; name="a;b=c"'), [part("a;b=c", b"1")]),
    ("a name in UTF-8", named('; name="é"'.encode()), [part("é", b"1")]),
    ("a file's content is no text", named(b'; name="f"; filename="x.txt"'), [part("f", b"1", "x.txt", text="")]),
    ("a file without a name", named(b'; name="f"; filename=""'), [part("f", b"1", "", text="")]),
    ("a file name in UTF-8", named('; name="f"; filename="é.txt"'.encode()), [part("f", b"1", "é.txt", text="")]),
    ("an extended file name", named(b"; name=\"f\"; filename*=UTF-8''%C3%A9.txt"), [part("f", b"1", "é.txt", text="")]),
    ("a type", one(A + b"\r\nContent-Type: Application/JSON; charset=utf-8", b"{}"),
     [part("a", b"{}", media_type="application/json")]),
    ("another charset is no text", one(A + b"\r\nContent-Type: text/plain; charset=latin-1"),
     [part("a", b"1", media_type="text/plain", text="")]),
    ("a harmless transfer encoding", one(A + b"\r\nContent-Transfer-Encoding: BINARY"), [part("a", b"1")]),
    ("names of fields in any case", one(b"CONTENT-disposition: FORM-DATA; NAME=a"), [part("a", b"1")]),
    ("other fields are no matter", one(b"X-A: b\r\n" + A), [part("a", b"1")]),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "parts"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_what_all_servers_split_alike_is_read(raw: bytes, parts: list[Part]) -> None:
    assert list(read_multipart(raw, "B")) == parts


ERRORS: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "begin with its boundary"),
    ("another boundary", one(A).replace(b"--B", b"--C"), "begin with its boundary"),
    ("a preamble", b"hello\r\n" + one(A), "begin with its boundary"),
    ("a line end first", b"\r\n" + one(A), "begin with its boundary"),
    ("no closing boundary", one(A)[:-4] + b"\r\n", "closing boundary"),
    ("cut short", one(A)[:-6], "closing boundary"),
    ("only a boundary", b"--B", "closing boundary"),
    ("an epilogue", one(A) + b"more", "closing boundary"),
    ("a second body behind the first", one(A) + one(A), "boundary is not at the end"),
    ("a boundary that goes on", one(A).replace(b"--B\r\n", b"--Bx\r\n"), "end of its line"),
    ("space after a boundary", one(A).replace(b"--B\r\n", b"--B \r\n"), "end of its line"),
    ("a line feed alone after a boundary", one(A).replace(b"--B\r\n", b"--B\n"), "end of its line"),
    ("a boundary behind a line feed alone", one(A, b"1\n--B\r\n" + A + b"\r\n\r\n2"), "occurs inside"),
    ("a boundary in the middle of a line", one(A, b"x--By"), "occurs inside"),
    ("line feeds alone throughout", one(A).replace(b"\r\n", b"\n"), "occurs inside"),
    ("a header without end", b"--B\r\n" + A + b"\r\n--B--\r\n", "does not end"),
    ("no header", one(b""), "malformed header"),
    ("an endless header", one(A + b"\r\nX: " + b"y" * PART_HEAD_CAP_BYTES), "does not end"),
    ("a header line without a colon", one(A + b"\r\nhello"), "malformed header"),
    ("a space before the colon", one(A.replace(b"n:", b"n :")), "malformed header"),
    ("a folded header", one(b'Content-Disposition: form-data;\r\n name="a"'), "malformed header"),
    ("a line feed in a header", one(b'Content-Disposition: form-data;\nname="a"'), "malformed header"),
    ("a NUL in a header", one(A + b"\r\nX: \0"), "malformed header"),
    ("a header of spaces, then a NUL", one(b"X:" + b" " * 16_000 + b"\0"), "malformed header"),
    ("a header outside UTF-8", named(b'; name="\xe9"'), "not UTF-8"),
    ("no disposition", one(b"X-A: b"), "not form-data"),
    ("another disposition", one(b'Content-Disposition: attachment; name="a"'), "not form-data"),
    ("a disposition that goes on", one(b'Content-Disposition: form-datax; name="a"'), "not form-data"),
    ("two dispositions", one(A + b"\r\n" + A.replace(b'"a"', b'"b"')), "twice"),
    ("no name", named(b'; filename="x"'), "no name"),
    ("nothing but form-data", named(b""), "no name"),
    ("two names", named(b'; name="a"; name="b"'), "two names"),
    ("an extended name", named(b"; name=\"a\"; name*=UTF-8''b"), "two names"),
    ("two file names", named(b"; name=\"f\"; filename=\"a\"; filename*=UTF-8''b"), "two names"),
    ("a backslash in a name", named(b'; name="a\\"b"'), "malformed Content-Disposition"),
    ("a quote that does not close", named(b'; name="a'), "malformed Content-Disposition"),
    ("text after a quoted name", named(b'; name="a"b'), "malformed Content-Disposition"),
    ("an empty parameter", named(b'; ; name="a"'), "malformed Content-Disposition"),
    ("a semicolon at the end", named(b'; name="a";'), "malformed Content-Disposition"),
    ("spaces round the equals sign", named(b'; name = "a"'), "malformed Content-Disposition"),
    ("single quotes with a space", named(b"; name='a b'"), "malformed Content-Disposition"),
    ("an extended file name in Latin-1", named(b"; name=\"f\"; filename*=iso-8859-1''%E9"), "malformed file name"),
    ("an extended file name without quotes", named(b'; name="f"; filename*=x'), "malformed file name"),
    ("an extended file name that is no UTF-8", named(b"; name=\"f\"; filename*=utf-8''%E9"), "malformed file name"),
    ("base64", one(A + b"\r\nContent-Transfer-Encoding: base64"), "content-transfer-encoding"),
    ("quoted-printable", one(A + b"\r\nContent-Transfer-Encoding: quoted-printable"), "content-transfer-encoding"),
    ("too many parts", (b"--B\r\n" + A + b"\r\n\r\n1\r\n") * (PARTS_CAP + 1) + b"--B--\r\n", "more than"),
    ("far too many parts", (b"--B\r\n" + A + b"\r\n\r\n1\r\n") * (PARTS_CAP * 3) + b"--B--\r\n", "more than"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_what_servers_split_differently_is_an_error(raw: bytes, reason: str) -> None:
    with pytest.raises(MultipartError, match=reason):
        read_multipart(raw, "B")


def test_as_many_parts_as_the_cap_are_read() -> None:
    raw = (b"--B\r\n" + A + b"\r\n\r\n1\r\n") * PARTS_CAP + b"--B--\r\n"
    assert len(read_multipart(raw, "B")) == PARTS_CAP


@pytest.mark.parametrize("boundary", ["", "a" * 71, "a ", "é", "a\r\nb", 'a"b', "a\\b"])
def test_a_boundary_that_is_none_is_an_error(boundary: str) -> None:
    with pytest.raises(MultipartError, match="boundary is not valid"):
        read_multipart(b"--a", boundary)


def test_every_truncation_is_an_error() -> None:
    whole = one(A, b"some content")[:-2]
    for size in range(len(whole)):
        with pytest.raises(MultipartError):
            read_multipart(whole[:size], "B")


def test_what_requests_sends_is_read() -> None:
    sent = requests.Request(
        "POST", "http://a.example/", data={"a": "é", "b": ["1", "2"]}, files={"f": ("é.txt", b"x\r\n", "text/plain")}
    ).prepare()
    boundary = str(sent.headers["Content-Type"]).partition("boundary=")[2]
    assert isinstance(sent.body, bytes)
    assert [(part.name, part.text, part.filename) for part in read_multipart(sent.body, boundary)] == [
        ("a", "é", ""),
        ("b", "1", ""),
        ("b", "2", ""),
        ("f", "", "é.txt"),
    ]


def test_what_httpx_sends_is_read() -> None:
    sent = httpx.Request("POST", "http://a.example/", data={"a": "é"}, files={"f": ('q".bin', b"\xff\0")})
    boundary = sent.headers["Content-Type"].partition("boundary=")[2]
    assert [(part.name, part.text, part.filename) for part in read_multipart(sent.read(), boundary)] == [
        ("a", "é", ""),
        ("f", "", "q%22.bin"),
    ]


@given(st.lists(st.tuples(st.text("ab é;=,'", max_size=6), st.binary(max_size=40)), max_size=5))
def test_parts_survive_encoding(fields: list[tuple[str, bytes]]) -> None:
    boundary = "f3a1c4e07b8d4a53"
    raw = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in fields
    )
    parts = read_multipart(raw + f"--{boundary}--\r\n".encode(), boundary)
    assert [(part.name, part.sha256) for part in parts] == [
        (name, hashlib.sha256(content).digest()) for name, content in fields
    ]


@given(st.binary(max_size=80), st.integers(0, 70))
def test_arbitrary_bytes_are_read_or_an_error(junk: bytes, at: int) -> None:
    whole = one(A, b"x")
    for raw in (junk, b"--B\r\n" + junk, whole[:at] + junk + whole[at:]):
        try:
            read_multipart(raw, "B")
        except MultipartError as error:
            assert str(error).startswith(("it", "a ", "the "))
