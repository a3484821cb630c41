"""Request targets: what is canonical is read, everything else is refused with its reason."""

from __future__ import annotations

import re
from urllib.parse import quote_plus, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.error import WireError
from proxy.wire.target import PAIRS_CAP, TARGET_CAP_BYTES, read_pairs, read_target

PATHS: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("the root", b"/", ("",)),
    ("one segment", b"/a", ("a",)),
    ("two segments", b"/v1/refunds", ("v1", "refunds")),
    ("a slash at the end is an empty last segment", b"/a/", ("a", "")),
    ("case is kept", b"/A/b", ("A", "b")),
    ("an encoded space", b"/a%20b", ("a b",)),
    ("a plus is a plus in a path", b"/a+b", ("a+b",)),
    ("an encoded slash stays inside its segment", b"/group%2Fproject/x", ("group/project", "x")),
    ("hex digits in lower case", b"/group%2fproject", ("group/project",)),
    ("a whole URL as one segment", b"/u/https%3A%2F%2Fa.example%2F", ("u", "https://a.example/")),
    ("UTF-8", b"/caf%C3%A9", ("café",)),
    ("beyond the basic plane", b"/%F0%9F%92%A9", ("\U0001f4a9",)),
    ("an encoded percent sign", b"/100%25", ("100%",)),
    ("an encoded escape is decoded once", b"/%252e", ("%2e",)),
    ("an encoded question mark", b"/a%3Fb", ("a?b",)),
    ("an encoded hash", b"/a%23b", ("a#b",)),
    ("path parameters are text", b"/a;v=1/b", ("a;v=1", "b")),
    ("sub-delimiters are text", b"/!$&'()*+,;=:@", ("!$&'()*+,;=:@",)),
    ("an encoded colon", b"/m%3AgenerateContent", ("m:generateContent",)),
    ("a colon", b"/models/gemini:generateContent", ("models", "gemini:generateContent")),
    ("brackets and bars, as clients send them", b"/a[0]|b", ("a[0]|b",)),
    ("encoded braces", b"/%7Bid%7D", ("{id}",)),
    ("unreserved characters", b"/-._~", ("-._~",)),
    ("dots in a name", b"/a..b/.git/c.", ("a..b", ".git", "c.")),
    ("three dots are a name", b"/...", ("...",)),
    ("a dot before a parameter that is a name", b"/a.;x", ("a.;x",)),
    ("an encoded escape of a tab is text", b"/%2509", ("%09",)),
]


@pytest.mark.parametrize(("raw", "segments"), [row[1:] for row in PATHS], ids=[row[0] for row in PATHS])
def test_a_canonical_path_is_read_and_kept_as_sent(raw: bytes, segments: tuple[str, ...]) -> None:
    target = read_target(raw)
    assert target.segments == segments
    assert target.path.encode() == raw
    assert target.query == ()


REFUSED: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "must begin with"),
    ("no slash", b"v1/refunds", "must begin with"),
    ("an absolute URL", b"http://a.example/", "must begin with"),
    ("the asterisk form", b"*", "must begin with"),
    ("an authority", b"a.example:443", "must begin with"),
    ("only a query", b"?a=1", "must begin with"),
    ("two slashes", b"//a", "empty segment"),
    ("two slashes inside", b"/a//b", "empty segment"),
    ("two slashes at the end", b"/a//", "empty segment"),
    ("a dot segment", b"/a/./b", "dot segment"),
    ("a dot segment at the end", b"/a/.", "dot segment"),
    ("a parent segment", b"/a/../b", "dot segment"),
    ("a parent segment at the end", b"/a/..", "dot segment"),
    ("an encoded dot segment", b"/a/%2e%2e/b", "encodes `.`"),
    ("a half-encoded dot segment", b"/a/.%2E/b", "encodes `.`"),
    ("a parent segment with a parameter (Tomcat)", b"/a/..;x=1/b", "dot segment"),
    ("a parent segment with an empty parameter", b"/a/..;/b", "dot segment"),
    ("a parent segment with an encoded parameter", b"/a/..%3B/b", "dot segment"),
    ("a parent segment between encoded slashes", b"/a%2F..%2Fb", "dot segment"),
    ("a parent segment before an encoded slash", b"/..%2fb", "dot segment"),
    ("an encoded letter", b"/%61dmin", "encodes `a`"),
    ("an encoded capital", b"/%41", "encodes `A`"),
    ("an encoded digit", b"/%30", "encodes `0`"),
    ("an encoded hyphen", b"/a%2Db", "encodes `-`"),
    ("an encoded underscore", b"/a%5Fb", "encodes `_`"),
    ("an encoded tilde", b"/%7euser", "encodes `~`"),
    ("a percent sign alone", b"/100%", "two hex digits"),
    ("a percent sign and one digit", b"/%4", "two hex digits"),
    ("a percent sign and no hex", b"/%zz", "two hex digits"),
    ("a percent sign and a Unicode escape (IIS)", b"/%u002e", "two hex digits"),
    ("two percent signs", b"/%%20", "two hex digits"),
    ("an encoded NUL", b"/a%00.json", "control character"),
    ("an encoded line feed", b"/a%0Ab", "control character"),
    ("an encoded carriage return", b"/a%0d", "control character"),
    ("an encoded tab", b"/a%09b", "control character"),
    ("an encoded delete", b"/a%7F", "control character"),
    ("an encoded C1 control", b"/a%C2%85b", "control character"),
    ("a backslash", b"/a\\b", "backslash"),
    ("an encoded backslash", b"/a%5Cb", "backslash"),
    ("an encoded backslash and dots", b"/a%5c..%5cb", "backslash"),
    ("a raw space", b"/a b", "percent-encode"),
    ("a raw tab", b"/a\tb", "percent-encode"),
    ("a raw NUL", b"/a\0b", "percent-encode"),
    ("a raw line feed", b"/a\nb", "percent-encode"),
    ("a request line inside", b"/a HTTP/1.1\r\nHost: x", "percent-encode"),
    ("raw UTF-8", "/café".encode(), "percent-encode"),
    ("raw Latin-1", b"/caf\xe9", "percent-encode"),
    ("a raw delete", b"/a\x7f", "percent-encode"),
    ("a raw quote", b'/a"b', "percent-encode"),
    ("raw braces", b"/{id}", "percent-encode"),
    ("raw angle brackets", b"/<a>", "percent-encode"),
    ("a raw caret", b"/a^b", "percent-encode"),
    ("a raw backtick", b"/a`b", "percent-encode"),
    ("encoded Latin-1", b"/caf%E9", "not UTF-8"),
    ("an overlong slash", b"/a%C0%AFb", "not UTF-8"),
    ("an overlong NUL", b"/a%C0%80", "not UTF-8"),
    ("an encoded surrogate", b"/%ED%A0%80", "not UTF-8"),
    ("UTF-8 cut short", b"/%E2%82", "not UTF-8"),
    ("UTF-8 cut by a slash", b"/%C3/%A9", "not UTF-8"),
    ("a fragment", b"/a#b", "`#`"),
    ("a fragment in the query", b"/a?b#c", "`#`"),
    ("a fragment before the query", b"/a#b?c", "`#`"),
    ("a raw space in the query", b"/a?b c", "percent-encode"),
    ("raw UTF-8 in the query", "/a?b=é".encode(), "percent-encode"),
    ("a raw line feed in the query", b"/a?b\r\nX: y", "percent-encode"),
    ("a broken escape in the query", b"/a?b=100%", "two hex digits"),
    ("Latin-1 in the query", b"/a?b=%E9", "not UTF-8"),
    ("a NUL in the query", b"/a?b=%00", "NUL"),
    ("a NUL in a name of the query", b"/a?b%00c=1", "NUL"),
    ("too long", b"/" + b"a" * TARGET_CAP_BYTES, "longer than"),
    ("too many pairs", b"/?" + b"&".join([b"a"] * (PAIRS_CAP + 1)), "more than"),
    ("too many empty pairs", b"/?" + b"&" * PAIRS_CAP, "more than"),
]


@pytest.mark.parametrize(("raw", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_servers_read_differently_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        read_target(raw)
    assert refused.value.code == "ambiguous-request"
    assert reason in refused.value.detail


QUERIES: list[tuple[str, bytes, list[tuple[str, str]]]] = [
    ("no query", b"", []),
    ("one pair", b"a=1", [("a", "1")]),
    ("two pairs in order", b"b=2&a=1", [("b", "2"), ("a", "1")]),
    ("a name twice is kept twice", b"a=1&a=2", [("a", "1"), ("a", "2")]),
    ("no equals sign is an empty value", b"a", [("a", "")]),
    ("an empty value", b"a=", [("a", "")]),
    ("an empty name", b"=1", [("", "1")]),
    ("only an equals sign", b"=", [("", "")]),
    ("a second equals sign is text", b"a=b=c", [("a", "b=c")]),
    ("empty pairs say nothing", b"a=1&&b=2&", [("a", "1"), ("b", "2")]),
    ("only separators", b"&&&", []),
    ("plus is a space", b"q=a+b", [("q", "a b")]),
    ("an encoded plus is a plus", b"q=a%2Bb", [("q", "a+b")]),
    ("an encoded space", b"q=a%20b", [("q", "a b")]),
    ("an encoded ampersand is text", b"q=a%26b", [("q", "a&b")]),
    ("an encoded equals sign in a name is text", b"a%3Db=1", [("a=b", "1")]),
    ("a semicolon is text", b"a=1;b=2", [("a", "1;b=2")]),
    ("UTF-8", b"q=%C3%A9", [("q", "é")]),
    ("an encoded line feed is text in a value", b"q=a%0Ab", [("q", "a\nb")]),
    ("slashes and question marks are text", b"u=/a?b", [("u", "/a?b")]),
    ("encoded letters are no matter in a query", b"%61=%62", [("a", "b")]),
    ("brackets in names", b"a[b][]=1", [("a[b][]", "1")]),
    ("braces as browsers send them", b'f={"a":1}', [("f", '{"a":1}')]),
]


@pytest.mark.parametrize(("query", "pairs"), [row[1:] for row in QUERIES], ids=[row[0] for row in QUERIES])
def test_a_query_is_split_at_ampersands_only(query: bytes, pairs: list[tuple[str, str]]) -> None:
    target = read_target(b"/a?" + query)
    assert list(target.query) == pairs
    assert target.path == "/a"


def test_as_many_pairs_as_the_cap_are_read() -> None:
    assert len(read_target(b"/?" + b"&".join([b"a"] * PAIRS_CAP)).query) == PAIRS_CAP


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused(raw: bytes) -> None:
    for target in (raw, b"/" + raw, b"/?" + raw):
        try:
            read_target(target)
        except WireError as refused:
            assert refused.code == "ambiguous-request"


@given(st.text("/.%;\\2eEfF5cC0aA?#", max_size=12))
def test_no_path_that_is_read_walks_up_or_changes_when_decoded_again(text: str) -> None:
    try:
        target = read_target(b"/" + text.encode())
    except WireError:
        return
    pieces = [piece for segment in target.segments for piece in segment.split("/")]
    assert not {".", ".."} & set(pieces)
    assert tuple(unquote(segment, errors="strict") for segment in target.path[1:].split("/")) == target.segments
    assert not [escape for escape in re.findall("%..", target.path) if re.fullmatch("[A-Za-z0-9._~-]", unquote(escape))]


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(words.filter(bool), words), max_size=6))
def test_pairs_survive_encoding(pairs: list[tuple[str, str]]) -> None:
    raw = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs).encode()
    assert list(read_pairs(raw, "query")) == pairs
