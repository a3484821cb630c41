"""Heads: what everybody reads alike becomes a call, everything else is refused with its reason."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.error import WireError
from proxy.wire.request import (
    HEADERS_CAP,
    HEADERS_CAP_BYTES,
    OVERRIDES,
    SINGLE,
    UNDERSCORED,
    Head,
    headers_to_strip,
    is_upgrade,
    read_body,
    read_head,
    read_headers,
)
from rules.call import NO_BODY, UNREAD_BODY, Call

type Fields = list[tuple[bytes, bytes]]

HOST = (b"Host", b"api.example")


def hash_secret(secret: bytes) -> str:
    return hashlib.sha256(b"key" + secret).hexdigest()


def head(*headers: tuple[bytes, bytes], host_header: bool = True, **changes: Any) -> Head:
    fields: dict[str, Any] = {
        "method": b"POST",
        "scheme": "https",
        "host": "api.example",
        "port": 443,
        "target": b"/v1/things",
        "authority": b"",
        "http_version": "HTTP/1.1",
        "headers": ((HOST,) if host_header else ()) + headers,
        "sni": "api.example",
    }
    return Head(**(fields | changes))


def head2(*headers: tuple[bytes, bytes], **changes: Any) -> Head:
    changes = {"http_version": "HTTP/2.0", "authority": b"api.example"} | changes
    return head(*headers, host_header=False, **changes)


def read(sent: Head) -> Call:
    return read_head(sent, "agent", "run", hash_secret)


def test_a_head_becomes_a_call() -> None:
    call = read(
        head(
            (b"Content-Type", b" application/json\t"),
            (b"X-Tag", b"one"),
            (b"x-tag", b"two"),
            (b"Content-Length", b"12"),
            target=b"/v1/a%2Fb?q=1&q=2",
        )
    )
    assert call == Call(
        agent="agent",
        run="run",
        method="POST",
        scheme="https",
        host="api.example",
        port=443,
        path="/v1/a%2Fb",
        segments=("v1", "a/b"),
        query=(("q", "1"), ("q", "2")),
        headers=(
            ("host", "api.example"),
            ("content-type", "application/json"),
            ("x-tag", "one"),
            ("x-tag", "two"),
            ("content-length", "12"),
        ),
        body=UNREAD_BODY,
        credential="",
    )


ACCEPTED: list[tuple[str, Head]] = [
    ("the host in capitals everywhere", head((b"HOST", b"API.Example"), host_header=False, sni="API.EXAMPLE")),
    ("the default port said", head((b"host", b"api.example:443"), host_header=False)),
    ("another port, said", head((b"host", b"api.example:8443"), host_header=False, port=8443)),
    ("cleartext needs no SNI", head(scheme="http", port=80, sni=None)),
    ("cleartext inside a client's TLS to us", head(scheme="http", port=80, sni="proxy.example")),
    ("an absolute-form target that agrees", head(scheme="http", port=80, sni=None, authority=b"api.example")),
    ("an IP literal needs no SNI", head((b"Host", b"10.0.0.1"), host_header=False, host="10.0.0.1", sni=None)),
    ("IPv6, brackets stripped", head((b"Host", b"[::1]"), host_header=False, host="::1", sni=None)),
    ("no SNI where the host itself is verified", head(sni=None, host_verified=True)),
    ("a Unicode host, decoded on the way", head((b"Host", b"xn--mnchen-3ya.example"), host_header=False,
                                               host="münchen.example", sni="xn--mnchen-3ya.example")),
    ("HTTP/1.0 with a Host", head(http_version="HTTP/1.0")),
    ("HTTP/2 with :authority", head2()),
    ("HTTP/2 with :authority and the same Host", head2((b"host", b"API.example:443"))),
    ("HTTP/2 with Host alone", head2(HOST, authority=b"")),
    ("HTTP/2 with te: trailers, as gRPC sends", head2((b"te", b"trailers"))),
    ("HTTP/2 with cookies in crumbs", head2((b"cookie", b"a=1"), (b"cookie", b"b=2"))),
    ("connection options that are none of the upstream's business", head((b"Connection", b"keep-alive, TE"))),
    ("an HTTP/2 upgrade offer on cleartext", head((b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"),
                                                  (b"HTTP2-Settings", b"AAMAAABkAAQAAP__"))),
    ("two Accept fields", head((b"Accept", b"a/b"), (b"Accept", b"c/d"))),
    ("an empty value", head((b"X-Empty", b""))),
    ("a tab inside a value", head((b"X-Tab", b"a\tb"))),
    ("an extension method", head(method=b"PROPFIND")),
    ("an extension method with a hyphen", head(method=b"M-SEARCH")),
    ("an override that says the same", head((b"X-HTTP-Method-Override", b"POST"))),
    ("an override in the query that says the same", head(target=b"/v1/things?_method=post")),
    ("an underscore in a name of no matter", head((b"api_key", b"k"), (b"x_request_id", b"1"))),
    ("Expect: 100-continue", head((b"Expect", b"100-Continue"), (b"Content-Length", b"3"))),
    ("as many fields as the cap", head(*[(b"a", b"b")] * (HEADERS_CAP - 1))),
]  # fmt: skip


@pytest.mark.parametrize("sent", [row[1] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_what_everybody_reads_alike_is_accepted(sent: Head) -> None:
    assert read(sent).path == "/v1/things"


REFUSED: list[tuple[str, Head, str]] = [
    # who is called
    ("no Host", head(host_header=False), "no Host"),
    ("no Host in HTTP/1.0", head(host_header=False, http_version="HTTP/1.0"), "no Host"),
    ("an absolute-form target does not replace Host", head(host_header=False, authority=b"api.example"), "no Host"),
    ("neither :authority nor Host", head2(authority=b""), "neither"),
    ("an empty Host", head((b"Host", b""), host_header=False), "empty"),
    ("two Hosts", head(HOST), "`host` is sent more than once"),
    ("two Hosts that differ", head((b"host", b"evil.example")), "`host` is sent more than once"),
    ("another Host", head((b"Host", b"evil.example"), host_header=False), "another destination"),
    ("Host with another port", head((b"Host", b"api.example:8443"), host_header=False), "another destination"),
    ("Host without the port that is dialled", head(port=8443), "another destination"),
    ("Host with user information", head((b"Host", b"api.example@evil.example"), host_header=False), "not a valid"),
    ("two hosts in one Host", head((b"Host", b"api.example, evil.example"), host_header=False), "not a valid"),
    ("Host with a trailing dot", head((b"Host", b"api.example."), host_header=False), "ends in a dot"),
    ("a host with a trailing dot", head(host="api.example."), "ends in a dot"),
    ("a host that resolvers read as 127.0.0.1", head(host="0x7f.1"), "plain dotted decimal"),
    ("another :authority", head2(authority=b"evil.example"), "another destination"),
    (":authority and another Host", head2((b"host", b"evil.example")), "another destination"),
    (":authority and two Hosts", head2(HOST, HOST), "`host` is sent more than once"),
    (":authority with another port", head2(authority=b"api.example:444"), "another destination"),
    (":authority that is not ASCII", head2(authority="é.example".encode()), "not ASCII"),
    ("an absolute-form target for another host", head(authority=b"evil.example"), "another destination"),
    ("an absolute-form target inside a tunnel", head(authority=b"api.example", tunnelled=True), "inside a tunnel"),
    ("a whole URL as path", head(target=b"http://evil.example/"), "must begin with"),
    ("another SNI", head(sni="evil.example"), "SNI"),
    ("an empty SNI", head(sni=""), "empty"),
    ("no SNI for a name", head(sni=None), "no TLS server name"),
    ("SNI for an IP literal that differs", head((b"Host", b"10.0.0.1"), host_header=False, host="10.0.0.1"), "SNI"),
    ("port 0", head(port=0), "port"),
    ("port 65536", head(port=65536), "port"),
    ("another scheme", head(scheme="ftp"), "http and https"),
    # how it is asked
    ("a method in lower case", head(method=b"get"), "upper case"),
    ("a method in mixed case", head(method=b"Post"), "upper case"),
    ("an empty method", head(method=b""), "upper case"),
    ("a method with a space", head(method=b"GET /x"), "upper case"),
    ("a method with a line feed", head(method=b"GET\n"), "upper case"),
    ("a method with a NUL", head(method=b"GET\0"), "upper case"),
    ("a method outside ASCII", head(method=b"G\xc9T"), "upper case"),
    ("a method without end", head(method=b"A" * 33), "upper case"),
    ("CONNECT inside", head(method=b"CONNECT"), "CONNECT"),
    ("TRACE", head(method=b"TRACE"), "TRACE"),
    ("PRI", head(method=b"PRI"), "PRI"),
    ("an override to another method", head((b"X-HTTP-Method-Override", b"DELETE")), "another method"),
    ("a short override", head((b"X-Method-Override", b"DELETE")), "another method"),
    ("an older override", head((b"X-HTTP-Method", b"DELETE")), "another method"),
    ("an override with underscores", head((b"X_HTTP_Method_Override", b"DELETE")), "by some servers"),
    ("an override twice", head(*[(b"x-http-method-override", b"POST")] * 2), "more than once"),
    ("an override in the query", head(target=b"/a?_method=DELETE"), "in the query names another method"),
    ("an override in the query, as Salesforce has it", head(target=b"/a?_HttpMethod=PATCH"), "in the query names"),
    ("an override in the query, encoded", head(target=b"/a?b=1&%5Fmethod=%44ELETE"), "in the query names"),
    ("a rewritten path", head((b"X-Original-URL", b"/admin")), "another path"),
    ("another rewritten path", head((b"X-Rewrite-URL", b"/admin")), "another path"),
    ("a path that is not canonical", head(target=b"/a/../b"), "dot segment"),
    ("HTTP/0.9", head(http_version="HTTP/0.9"), "HTTP/1.0, HTTP/1.1 and HTTP/2"),
    ("HTTP/1.2", head(http_version="HTTP/1.2"), "HTTP/1.0, HTTP/1.1 and HTTP/2"),
    ("HTTP/3", head(http_version="HTTP/3"), "HTTP/1.0, HTTP/1.1 and HTTP/2"),
    ("http/1.1", head(http_version="http/1.1"), "HTTP/1.0, HTTP/1.1 and HTTP/2"),
    # names and values
    ("an empty name", head((b"", b"x")), "not a token"),
    ("a name with a space at its end", head((b"Content-Length ", b"3")), "not a token"),
    ("a name with a space in front (obs-fold)", head((b" folded", b"x")), "not a token"),
    ("a name with a colon", head((b":authority", b"evil.example")), "not a token"),
    ("a name with a line feed", head((b"a\nb", b"x")), "not a token"),
    ("a name with a line feed at its end", head((b"a\n", b"x")), "not a token"),
    ("a name outside ASCII", head(("é".encode(), b"x")), "not a token"),
    ("a name with parentheses", head((b"a(b)", b"x")), "not a token"),
    ("a name with a NUL", head((b"a\0", b"x")), "not a token"),
    ("a bare line feed", head((b"a", b"x\ny: z")), "control character"),
    ("a bare carriage return", head((b"a", b"x\ry")), "control character"),
    ("a folded value (obs-fold)", head((b"a", b"x\r\n y")), "control character"),
    ("a NUL", head((b"a", b"x\0")), "control character"),
    ("an escape character", head((b"a", b"\x1b[31m")), "control character"),
    ("a delete", head((b"a", b"\x7f")), "control character"),
    ("a C1 control in Latin-1", head((b"a", b"\x85")), "control character"),
    ("a C1 control in UTF-8", head((b"a", b"\xc2\x85")), "control character"),
    ("too many fields", head(*[(b"a", b"b")] * HEADERS_CAP), "more than"),
    ("too large together", head((b"a", b"b" * HEADERS_CAP_BYTES)), "larger than"),
    # framing
    ("a length twice", head((b"Content-Length", b"3"), (b"content-length", b"3")), "more than once"),
    ("two lengths in one field", head((b"Content-Length", b"3, 3")), "not a number"),
    ("a length with a sign", head((b"Content-Length", b"+3")), "not a number"),
    ("a negative length", head((b"Content-Length", b"-3")), "not a number"),
    ("a hexadecimal length", head((b"Content-Length", b"0x3")), "not a number"),
    ("an empty length", head((b"Content-Length", b"")), "not a number"),
    ("a length in other digits", head((b"Content-Length", "\u0663".encode())), "not a number"),
    ("a length with underscores", head((b"Content-Length", b"1_0")), "not a number"),
    ("a length beyond all reason", head((b"Content-Length", b"9" * 19)), "not a number"),
    ("both framings", head((b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")), "Both"),
    ("both framings, the other way", head((b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"3")), "Both"),
    ("gzip and chunked", head((b"Transfer-Encoding", b"gzip, chunked")), "not `chunked`"),
    ("identity", head((b"Transfer-Encoding", b"identity")), "not `chunked`"),
    ("chunked twice", head((b"Transfer-Encoding", b"chunked, chunked")), "not `chunked`"),
    ("chunked in quotes", head((b"Transfer-Encoding", b'"chunked"')), "not `chunked`"),
    ("an obscured chunked", head((b"Transfer-Encoding", b"xchunked")), "not `chunked`"),
    ("two transfer-encodings", head(*[(b"Transfer-Encoding", b"chunked")] * 2), "more than once"),
    ("chunked in HTTP/1.0", head((b"Transfer-Encoding", b"chunked"), http_version="HTTP/1.0"), "HTTP/1.0 has no"),
    ("chunked in HTTP/2", head2((b"transfer-encoding", b"chunked")), "HTTP/2 has no"),
    ("Connection in HTTP/2", head2((b"connection", b"close")), "HTTP/2 has no"),
    ("Upgrade in HTTP/2", head2((b"upgrade", b"websocket")), "HTTP/2 has no"),
    ("a length under another spelling", head((b"Content_Length", b"3")), "read as `content-length`"),
    ("a framing under another spelling", head((b"Transfer_Encoding", b"chunked")), "read as `transfer-encoding`"),
    ("a type under another spelling", head((b"content_type", b"a/b")), "read as `content-type`"),
    ("trailers announced", head((b"Trailer", b"X-Sum")), "Trailer"),
    ("another expectation", head((b"Expect", b"200-ok")), "Expect"),
    ("a field that Connection drops", head((b"Connection", b"close, Authorization")), "dropped"),
    ("a field that a second Connection drops", head((b"Connection", b"close"), (b"Connection", b"x-a")), "dropped"),
    ("a length that Connection drops", head((b"Connection", b"Content-Length")), "dropped"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_readers_take_differently_is_refused(sent: Head, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        read(sent)
    assert refused.value.code == "ambiguous-request"
    assert reason in refused.value.detail


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_a_single_field_sent_twice_is_refused(name: str) -> None:
    field = (name.encode(), b"POST" if name in OVERRIDES else b"1")
    with pytest.raises(WireError, match=f"`{name}` is sent more than once"):
        read(head(field, field))


@pytest.mark.parametrize("name", sorted(name for name in UNDERSCORED if "-" in name))
def test_a_field_that_decides_the_reading_is_refused_with_underscores(name: str) -> None:
    with pytest.raises(WireError, match="by some servers"):
        read(head((name.replace("-", "_").encode(), b"POST")))


@pytest.mark.parametrize(
    ("sent", "texts"),
    [
        ([(b"A", b"b")], (("a", "b"),)),
        ([(b"A", b" \t b \t ")], (("a", "b"),)),
        ([(b"A", "é".encode())], (("a", "é"),)),
        ([(b"A", b"\xe9")], (("a", "é"),)),
        ([(b"A", b"\xe9"), (b"B", "é".encode())], (("a", "é"), ("b", "é"))),
        ([(b"A", b""), (b"A", b"")], (("a", ""), ("a", ""))),
        ([], ()),
    ],
)
def test_values_are_read_as_utf8_or_latin1_without_outer_space(
    sent: Fields, texts: tuple[tuple[str, str], ...]
) -> None:
    assert read_headers(sent) == texts


BODIES: list[tuple[str, Head, bool]] = [
    ("HTTP/1.1 without framing has none", head(), False),
    ("a length of zero is none", head((b"Content-Length", b"0")), False),
    ("a length", head((b"Content-Length", b"1")), True),
    ("chunked", head((b"Transfer-Encoding", b"Chunked")), True),
    ("a GET with a length", head((b"Content-Length", b"1"), method=b"GET"), True),
    ("HTTP/2 without a length may have one", head2(), True),
    ("HTTP/2 with a length of zero has none", head2((b"content-length", b"0")), False),
]


@pytest.mark.parametrize(("sent", "has_body"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
def test_the_head_tells_whether_a_body_can_follow(sent: Head, has_body: bool) -> None:
    assert read(sent).body == (UNREAD_BODY if has_body else NO_BODY)


def test_a_body_is_read_by_its_content_type_and_coding() -> None:
    call = read(head((b"Content-Type", b"application/json"), (b"Content-Length", b"7")))
    body = read_body(call, b'{"a":1}').body
    assert (body.kind, body.json, body.size_bytes) == ("json", {"a": 1}, 7)


def test_an_empty_body_is_none() -> None:
    assert read_body(read(head2()), b"").body == NO_BODY


def test_a_body_of_another_length_than_announced_is_refused() -> None:
    call = read(head((b"Content-Length", b"7")))
    with pytest.raises(WireError, match="not as long as Content-Length says"):
        read_body(call, b"123456")


def test_a_body_over_its_cap_is_refused() -> None:
    call = read(head((b"Transfer-Encoding", b"chunked")))
    assert read_body(call, b"12345", cap_bytes=5).body.kind == "binary"
    with pytest.raises(WireError) as refused:
        read_body(call, b"123456", cap_bytes=5)
    assert refused.value.code == "body-too-large"


UPGRADES: list[tuple[str, Head, bool]] = [
    ("an ordinary call", head(), False),
    ("WebSocket", head((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")), True),
    ("WebSocket in capitals", head((b"Connection", b"upgrade"), (b"Upgrade", b"WebSocket")), True),
    ("Upgrade without Connection", head((b"Upgrade", b"websocket")), True),
    ("any other protocol", head((b"Upgrade", b"TLS/1.0")), True),
    ("h2c can be ignored", head((b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")), False),
    ("h2c beside WebSocket", head((b"Upgrade", b"h2c, websocket")), True),
    ("a WebSocket key alone", head((b"Sec-WebSocket-Key", b"x")), True),
]


@pytest.mark.parametrize(("sent", "upgrade"), [row[1:] for row in UPGRADES], ids=[row[0] for row in UPGRADES])
def test_upgrades_are_told(sent: Head, upgrade: bool) -> None:
    assert is_upgrade(read(sent)) is upgrade


def test_proxy_credentials_and_hop_by_hop_fields_end_here() -> None:
    strip = headers_to_strip(read(head((b"TE", b"trailers"))))
    assert {"proxy-authorization", "proxy-connection", "connection", "keep-alive", "upgrade"} <= strip
    assert not {"te", "authorization", "host", "content-length", "transfer-encoding", "cookie"} & strip


def test_te_goes_on_only_for_trailers() -> None:
    assert "te" in headers_to_strip(read(head((b"TE", b"gzip"))))
    assert "te" in headers_to_strip(read(head((b"TE", b"trailers"), (b"TE", b"gzip"))))


names = st.one_of(st.binary(max_size=8), st.sampled_from([name.encode() for name in SINGLE | UNDERSCORED]))


@given(
    method=st.one_of(st.binary(max_size=6), st.just(b"POST")),
    host=st.one_of(st.text(max_size=8), st.just("api.example")),
    port=st.integers(-1, 70000),
    target=st.binary(max_size=12).map(lambda tail: b"/" + tail),
    authority=st.one_of(st.binary(max_size=12), st.just(b"")),
    http_version=st.sampled_from(["HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "x"]),
    headers=st.lists(st.tuples(names, st.binary(max_size=12)), max_size=5).map(lambda fields: (HOST, *fields)),
    sni=st.one_of(st.none(), st.text(max_size=8), st.just("api.example")),
)
def test_arbitrary_heads_are_read_or_refused(**fields: Any) -> None:
    for sent in (Head(scheme="https", **fields), head(*fields["headers"][1:]), head(target=fields["target"])):
        try:
            call = read(sent)
        except WireError as refused:
            assert refused.code == "ambiguous-request"
            assert refused.detail.isascii()
        else:
            assert [value for name, value in call.headers if name == "host"] == ["api.example"]
            assert call.host == "api.example"
