"""Bodies: each media type is read strictly; what can be read in more than one way is `undecodable`, with its reason."""

from __future__ import annotations

import gzip
import hashlib
import json
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import brotli  # type: ignore[import-untyped]  # it has neither stubs nor py.typed
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.body import DECODED_CAP_BYTES, JSON_DEPTH_CAP, decode
from rules.call import NO_BODY, Body, Json

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def body(raw: bytes, content_type: str | None = JSON, coding: str | None = None) -> Body:
    return decode(raw, content_type, coding, DECODED_CAP_BYTES)


def test_no_bytes_are_no_body_whatever_the_headers_say() -> None:
    assert body(b"") == NO_BODY
    assert body(b"", JSON, "gzip") == NO_BODY


KINDS: list[tuple[str, str | None, bytes, str, str]] = [
    ("JSON", "application/json", b"{}", "json", "application/json"),
    ("JSON in capitals", "Application/JSON", b"{}", "json", "application/json"),
    ("JSON with a charset", "application/json; charset=UTF-8", b"{}", "json", "application/json"),
    ("JSON with a quoted charset", 'application/json;charset="utf-8"', b"{}", "json", "application/json"),
    ("JSON in ASCII", "application/json; charset=us-ascii", b"{}", "json", "application/json"),
    ("JSON with another parameter", "application/json; profile=x", b"{}", "json", "application/json"),
    ("JSON by its suffix", "application/vnd.api+json", b"{}", "json", "application/vnd.api+json"),
    ("JSON of AWS", "application/x-amz-json-1.0", b"{}", "json", "application/x-amz-json-1.0"),
    ("JSON as text", "text/json", b"{}", "json", "text/json"),
    ("a form", FORM, b"a=1", "form", FORM),
    ("a form with a charset", FORM + "; charset=utf-8", b"a=1", "form", FORM),
    ("a multipart form", "multipart/form-data; boundary=B", b"--B--", "multipart", "multipart/form-data"),
    ("a quoted boundary", 'multipart/form-data; boundary="B"', b"--B--", "multipart", "multipart/form-data"),
    ("text", "text/plain", b"{}", "text", "text/plain"),
    ("XML as text", "text/xml; charset=utf-8", b"<a/>", "text", "text/xml"),
    ("XML", "application/xml", b"<a/>", "binary", "application/xml"),
    ("lines of JSON are not one JSON", "application/x-ndjson", b"{}\n{}", "binary", "application/x-ndjson"),
    ("a JSON sequence is not one JSON", "application/json-seq", b"\x1e{}", "binary", "application/json-seq"),
    ("another multipart", "multipart/related; boundary=B", b"--B--", "binary", "multipart/related"),
    ("bytes", "application/octet-stream", b"{}", "binary", "application/octet-stream"),
    ("gRPC", "application/grpc+proto", b"\0", "binary", "application/grpc+proto"),
    ("no type: nothing is guessed", None, b'{"a":1}', "binary", ""),
    ("a semicolon at the end", "application/json;", b"{}", "json", "application/json"),
    ("space round the semicolon", "application/json ; charset=utf-8", b"{}", "json", "application/json"),
    ("a type that only looks like JSON", "application/jsonp", b"{}", "binary", "application/jsonp"),
    ("a type that only contains a form", "application/x-www-form-urlencodedx", b"a=1", "binary",
     "application/x-www-form-urlencodedx"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content_type", "raw", "kind", "media_type"), [row[1:] for row in KINDS], ids=[row[0] for row in KINDS]
)
def test_the_media_type_says_how_a_body_reads(content_type: str | None, raw: bytes, kind: str, media_type: str) -> None:
    found = body(raw, content_type)
    assert (found.kind, found.media_type, found.problem) == (kind, media_type, "")
    assert found.sha256 == hashlib.sha256(raw).digest()
    assert found.size_bytes == len(raw)


UNDECODABLE: list[tuple[str, str | None, bytes, str]] = [
    # the media type itself
    ("an empty type", "", b"{}", "Content-Type is malformed"),
    ("half a type", "application", b"{}", "Content-Type is malformed"),
    ("a type without its second half", "application/", b"{}", "Content-Type is malformed"),
    ("two types", "application/json, text/plain", b"{}", "Content-Type is malformed"),
    ("a space in front", " application/json", b"{}", "Content-Type is malformed"),
    ("a parameter without a value", "application/json; charset", b"{}", "Content-Type is malformed"),
    ("a parameter that does not close", 'application/json; charset="utf-8', b"{}", "Content-Type is malformed"),
    ("a parameter without a semicolon", "application/json charset=utf-8", b"{}", "Content-Type is malformed"),
    ("a charset twice", "application/json; charset=utf-8; charset=utf-7", b"{}", "a parameter twice"),
    ("a boundary twice", "multipart/form-data; boundary=B; BOUNDARY=C", b"--B--", "a parameter twice"),
    ("JSON in UTF-16", "application/json; charset=utf-16", b"{\0}\0", "charset"),
    ("JSON in UTF-7", "application/json; charset=utf-7", b"{}", "charset"),
    ("JSON in ASCII that is not", "application/json; charset=ascii", '"é"'.encode(), "charset"),
    ("a form in Latin-1", FORM + "; charset=iso-8859-1", b"a=%E9", "charset"),
    ("text in Latin-1", "text/plain; charset=latin-1", b"\xe9", "charset"),
    ("an empty charset", 'text/plain; charset=""', b"a", "charset"),
    # JSON
    ("a byte order mark", JSON, b"\xef\xbb\xbf{}", "byte order mark"),
    ("UTF-16 without being said", JSON, '{"a":1}'.encode("utf-16-le"), "broken"),
    ("UTF-16 with its mark", JSON, '{"a":1}'.encode("utf-16"), "not UTF-8"),
    ("Latin-1", JSON, b'"\xe9"', "not UTF-8"),
    ("overlong UTF-8", JSON, b'"\xc0\xaf"', "not UTF-8"),
    ("a key twice", JSON, b'{"a":1,"a":2}', "a key twice"),
    ("a key twice, equal values", JSON, b'{"a":1,"a":1}', "a key twice"),
    ("a key twice, one of them escaped", JSON, b'{"a":1,"\\u0061":2}', "a key twice"),
    ("a key twice, deep inside", JSON, b'[{"x":[{"a":1,"b":2,"a":3}]}]', "a key twice"),
    ("NaN", JSON, b"[NaN]", "NaN or Infinity"),
    ("Infinity", JSON, b'{"a":Infinity}', "NaN or Infinity"),
    ("minus Infinity", JSON, b"-Infinity", "NaN or Infinity"),
    ("only space", JSON, b"  ", "broken"),
    ("trailing data", JSON, b"{} {}", "broken"),
    ("a trailing comma", JSON, b"[1,]", "broken"),
    ("a trailing NUL", JSON, b"{}\0", "broken"),
    ("a comment", JSON, b"{}//x", "broken"),
    ("single quotes", JSON, b"{'a':1}", "broken"),
    ("a key without quotes", JSON, b"{a:1}", "broken"),
    ("cut short", JSON, b'{"a":', "broken"),
    ("a string without end", JSON, b'"a', "broken"),
    ("a control character in a string", JSON, b'"a\nb"', "broken"),
    ("a NUL in a string", JSON, b'"a\0b"', "broken"),
    ("an escape that is none", JSON, b'"\\x41"', "broken"),
    ("a vertical tab as space", JSON, b"\x0b{}", "broken"),
    ("a no-break space", JSON, b"\xc2\xa0{}", "broken"),
    ("a leading zero", JSON, b"[01]", "broken"),
    ("a leading plus", JSON, b"[+1]", "broken"),
    ("a dot first", JSON, b"[.5]", "broken"),
    ("a dot last", JSON, b"[5.]", "broken"),
    ("a hexadecimal number", JSON, b"[0x10]", "broken"),
    ("digits of another script", JSON, "[\u0661]".encode(), "broken"),
    ("True", JSON, b"True", "broken"),
    ("half a surrogate pair", JSON, b'"\\ud800"', "half a surrogate"),
    ("half a surrogate pair in a key", JSON, b'{"\\uDFFF":1}', "half a surrogate"),
    ("a pair the wrong way round", JSON, b'[["\\udc00\\ud800"]]', "half a surrogate"),
    ("a surrogate in UTF-8", JSON, b'"\xed\xa0\x80"', "not UTF-8"),
    ("a number beyond every double", JSON, b"[1e999]", "out of range"),
    ("a number just beyond every double", JSON, b"[1e309]", "out of range"),
    ("a number just below every double", JSON, b"[1e-325]", "out of range"),
    ("a number below every double", JSON, b"[1e-999]", "out of range"),
    ("an exponent beyond reason", JSON, b"[1e99999999999999999999]", "could not be read"),
    ("an integer of five thousand digits", JSON, b"9" * 5000, "could not be read"),
    ("arrays too deep", JSON, b"[" * (JSON_DEPTH_CAP + 1) + b"]" * (JSON_DEPTH_CAP + 1), "nested more than"),
    ("objects too deep", JSON, b'{"a":' * 101 + b"1" + b"}" * 101, "nested more than"),
    ("arrays deeper than any stack", JSON, b"[" * 200_000 + b"]" * 200_000, "nested more than"),
    ("objects deeper than any stack", JSON, b'{"a":' * 200_000, "nested more than"),
    # forms
    ("a broken escape in a form", FORM, b"a=100%", "two hex digits"),
    ("Latin-1 in a form", FORM, b"a=%E9", "not UTF-8"),
    ("raw Latin-1 in a form", FORM, b"a=\xe9", "not UTF-8"),
    ("a NUL in a form", FORM, b"a=%00", "NUL"),
    ("a raw NUL in a form", FORM, b"a=\0", "NUL"),
    ("too many fields", FORM, b"a&" * 1001, "more than 1000"),
    # multipart, text
    ("no boundary", "multipart/form-data", b"--B--", "no boundary"),
    ("a broken multipart", "multipart/form-data; boundary=B", b"--C--", "begin with its boundary"),
    ("an empty boundary", 'multipart/form-data; boundary=""', b"--B--", "boundary is not valid"),
    ("text that is not UTF-8", "text/plain", b"\xff", "not UTF-8"),
]


@pytest.mark.parametrize(
    ("content_type", "raw", "reason"), [row[1:] for row in UNDECODABLE], ids=[row[0] for row in UNDECODABLE]
)
def test_what_readers_take_differently_is_undecodable(content_type: str | None, raw: bytes, reason: str) -> None:
    found = body(raw, content_type)
    assert found.kind == "undecodable"
    assert reason in found.problem
    assert found.problem[0].islower()
    assert not found.problem.endswith(".")
    assert (found.json, found.fields, found.parts, found.text) == (None, (), (), "")
    assert found.size_bytes == len(raw)


VALUES: list[tuple[str, bytes, Json]] = [
    ("null", b"null", None),
    ("true", b" true ", True),
    ("an integer", b"100", 100),
    ("a large integer is exact", b"9007199254740993", 9007199254740993),
    ("2^64 + 1 is exact", b"18446744073709551617", 18446744073709551617),
    ("minus zero", b"-0", 0),
    ("a fraction is a decimal", b"0.1", Decimal("0.1")),
    ("a fraction keeps its digits", b"0.10000000000000000000000000001", Decimal("0.10000000000000000000000000001")),
    ("an exponent is a decimal", b"1e2", Decimal("1E+2")),
    ("about the largest double", b"1e308", Decimal("1E+308")),
    ("about the smallest double", b"5e-324", Decimal("5E-324")),
    ("zero with a large exponent is zero", b"0e999", Decimal(0)),
    ("escapes", b'"\\u00e9\\n\\/\\ud83d\\udca9"', "é\n/\U0001f4a9"),
    ("raw UTF-8", '"é"'.encode(), "é"),
    ("an escaped NUL is a character", b'"\\u0000"', "\0"),
    ("keys that differ in case", b'{"a":1,"A":2}', {"a": 1, "A": 2}),
    ("an empty key", b'{"":1}', {"": 1}),
    ("nothing is folded", '{"e\u0301":1,"é":2}'.encode(), {"e\u0301": 1, "é": 2}),
    ("as deep as the cap", b"[" * JSON_DEPTH_CAP + b"]" * JSON_DEPTH_CAP, None),
    ("brackets in text are text", b'"' + b"[" * 500 + b'"', "[" * 500),
    ("many brackets, not deep", b"[" + b"[]," * 500 + b"[]]", [[] for _ in range(501)]),
]


@pytest.mark.parametrize(("raw", "value"), [row[1:] for row in VALUES], ids=[row[0] for row in VALUES])
def test_json_is_exact(raw: bytes, value: Json) -> None:
    found = body(raw)
    assert found.kind == "json"
    if value is not None:
        assert found.json == value
        assert type(found.json) is type(value)


FIELDS: list[tuple[str, bytes, list[tuple[str, str]]]] = [
    ("pairs in order", b"b=2&a=1&b=3", [("b", "2"), ("a", "1"), ("b", "3")]),
    ("plus and percent", b"a=b+c%2Bd", [("a", "b c+d")]),
    ("raw UTF-8, as curl -d sends it", "a=é".encode(), [("a", "é")]),
    ("raw spaces, as curl -d sends them", b"text=hello world", [("text", "hello world")]),
    ("a semicolon is text", b"a=1;b=2", [("a", "1;b=2")]),
    ("a hash is text", b"a=#1", [("a", "#1")]),
    ("nested names are kept as they are", b"a[b][]=1", [("a[b][]", "1")]),
    ("only separators", b"&", []),
]


@pytest.mark.parametrize(("raw", "fields"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_a_form_is_its_decoded_pairs(raw: bytes, fields: list[tuple[str, str]]) -> None:
    assert list(body(raw, FORM).fields) == fields


def test_text_is_its_text() -> None:
    assert body("é".encode(), "text/plain").text == "é"


def test_a_multipart_body_is_its_parts() -> None:
    raw = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--B--\r\n'
    found = body(raw, "multipart/form-data; boundary=B")
    assert [(part.name, part.text) for part in found.parts] == [("a", "1")]
    assert found.sha256 == hashlib.sha256(raw).digest()


def test_a_coded_body_is_decoded_first() -> None:
    raw = gzip.compress(b'{"a":1}')
    found = body(raw, JSON, "gzip")
    assert (found.kind, found.json, found.size_bytes) == ("json", {"a": 1}, len(raw))
    assert found.sha256 == hashlib.sha256(b'{"a":1}').digest()


CODED: list[tuple[str, bytes, str, str]] = [
    ("a coding of Python's", b"%7B%7D", "rot13", "not one of gzip"),
    ("a coding that is none", b"{}", "hex", "not one of gzip"),
    ("no gzip", b"{}", "gzip", "broken"),
    ("cut short", gzip.compress(b"{}")[:-1], "gzip", "cut short"),
    ("trailing garbage", gzip.compress(b"{}") + b"{}", "gzip", "broken"),
    ("a bomb", gzip.compress(bytes(DECODED_CAP_BYTES + 1)), "gzip", "more than may be read"),
    ("a bomb in a bomb", brotli.compress(gzip.compress(bytes(DECODED_CAP_BYTES + 1))), "gzip, br", "more than may"),
    ("nothing inside", gzip.compress(b""), "gzip", "broken"),
]


@pytest.mark.parametrize(("raw", "coding", "reason"), [row[1:] for row in CODED], ids=[row[0] for row in CODED])
def test_what_cannot_be_decompressed_is_undecodable(raw: bytes, coding: str, reason: str) -> None:
    found = body(raw, JSON, coding)
    assert found.kind == "undecodable"
    assert reason in found.problem


types = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.sampled_from([JSON, FORM, "text/plain", "multipart/form-data; boundary=B", "application/x+json; charset=x"]),
)
encodings = st.one_of(st.none(), st.text(max_size=10), st.sampled_from(["gzip", "br", "deflate", "zstd", "gzip, br"]))


@given(st.binary(max_size=80), types, encodings)
def test_arbitrary_bytes_never_raise(raw: bytes, content_type: str | None, coding: str | None) -> None:
    found = decode(raw, content_type, coding, 1000)
    assert (found.problem != "") == (found.kind == "undecodable")


@given(st.text('[]{}",:\\ud8a0123eE.-+ntfN', max_size=20))
def test_what_is_read_as_json_is_json_to_the_strictest_reader(text: str) -> None:
    found = body(text.encode())
    if found.kind == "json":
        json.dumps(json.loads(text), allow_nan=False)


decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
texts = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), decimals, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


def written(value: Any) -> str:
    """`value` as JSON text; decimals with all their digits."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{written(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


@given(values)
def test_json_survives_encoding(value: Any) -> None:
    found = body(written(value).encode())
    assert found.kind == "json"
    assert found.json == value


@given(
    st.lists(st.tuples(st.text("ab é&=+%;[]", min_size=1, max_size=6), st.text("ab é&=+%\n", max_size=6)), min_size=1)
)
def test_forms_survive_encoding(pairs: list[tuple[str, str]]) -> None:
    assert list(body(urlencode(pairs).encode(), FORM).fields) == pairs
