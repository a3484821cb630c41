"""From a request's head and body to a `Call`, or a `WireError`.

The rule of this file: whoever reads the same bytes behind us must come to the same method, host, path, headers and
framing. What RFC 9110, 9112 and 9113 call malformed is refused; so is what they leave to the reader (repeated single
fields, `X-HTTP-Method-Override`, underscored framing fields), because servers are known to differ there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

import msgspec

from proxy.wire.body import DECODED_CAP_BYTES, decode
from proxy.wire.credential import find_credential
from proxy.wire.credential import with_credential as with_credential
from proxy.wire.error import WireError as WireError
from proxy.wire.error import ambiguous
from proxy.wire.host import canonical_authority, canonical_host, is_ip
from proxy.wire.target import read_target
from rules.call import NO_BODY, UNREAD_BODY, Body, Call
from rules.pattern import MESSAGE, PLAIN

HEADERS_CAP = 256
HEADERS_CAP_BYTES = 64 * 1024

_METHOD = re.compile(rb"[A-Z0-9!#$%&'*+.^_`|~-]{1,32}")
_NAMES = re.compile(rb"(?:[A-Za-z0-9!#$%&'*+.^_`|~-]+\n)+")
_CONTROL_VALUES = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_C1 = re.compile("[\x80-\x9f]")
_LENGTH = re.compile(r"[0-9]{1,18}")

_VERSIONS = {"HTTP/1.0": 10, "HTTP/1.1": 11, "HTTP/2": 20, "HTTP/2.0": 20}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEBSOCKET = {plain: scheme for scheme, plain in PLAIN.items()}

OVERRIDES = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
"""Some servers take the method from these instead of the request line."""

QUERY_OVERRIDES = frozenset({"_method", "_httpmethod"})
"""And some from these in the query (Laravel and Symfony; Salesforce)."""

REWRITES = frozenset({"x-original-url", "x-rewrite-url"})
"""Some servers take the path from these instead of the request line."""

SINGLE = OVERRIDES | frozenset({
    "api-key", "apikey", "authorization", "content-disposition", "content-encoding", "content-length", "content-range",
    "content-type", "date", "expect", "from", "host", "http2-settings", "idempotency-key", "if-modified-since",
    "if-range", "if-unmodified-since", "max-forwards", "origin", "private-token", "proxy-authorization", "range",
    "referer", "transfer-encoding", "upgrade", "user-agent", "x-amz-content-sha256", "x-amz-date",
    "x-access-token", "x-amz-security-token", "x-amz-target", "x-api-key", "x-auth-token", "x-goog-api-key",
    "x-idempotency-key",
})  # fmt: skip
"""Fields that may be sent once. A second one is read by some servers, ignored or joined by others."""

UNDERSCORED = OVERRIDES | REWRITES | frozenset({
    "authorization", "connection", "content-encoding", "content-length", "content-type", "expect", "host", "te",
    "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
"""Fields that decide how a request is read. CGI and WSGI servers take `_` in their names for `-`."""

_HOP_BY_HOP = frozenset({
    "connection", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "upgrade",
})  # fmt: skip
_NOMINATED = frozenset({"", "close", "http2-settings", "keep-alive", "proxy-connection", "te", "upgrade"})
_H2_FORBIDDEN = ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")


class Head(msgspec.Struct, frozen=True):
    """A request's head as it arrived. `host` and `port` are what will be dialled; all else was chosen by the client.

    `target`: the request target in origin form, raw. `authority`: of an absolute-form target or :authority, or empty.
    `headers`: raw pairs in order, without pseudo-headers. `sni`: what the client named in its TLS handshake.
    `tunnelled`: it came through CONNECT, so that an HTTP/1 absolute-form target makes no sense.
    `host_verified`: without SNI, the upstream's certificate is checked against `host`.
    """

    method: bytes
    scheme: str
    host: str
    port: int
    target: bytes
    authority: bytes
    http_version: str
    headers: tuple[tuple[bytes, bytes], ...]
    sni: str | None
    tunnelled: bool = False
    host_verified: bool = False


def read_head(head: Head, agent: str, run: str, hash_secret: Callable[[bytes], str]) -> Call:
    """The call that `head` begins, its body `NO_BODY` when the head says so, else `UNREAD_BODY`.

    Raises `WireError` for everything ambiguous.
    """
    version = _VERSIONS.get(head.http_version)
    if version is None:
        raise ambiguous("Only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here.")
    if head.scheme not in _DEFAULT_PORTS:
        raise ambiguous("Only http and https are spoken here.")
    method = _method(head.method)
    host = canonical_host(head.host)
    target = read_target(head.target)
    headers = read_headers(head.headers)
    single = _single(headers)
    _check_destination(head, version, host, headers)
    _check_meaning(method, target.query, single)
    _check_framing(version, headers, single)
    return Call(
        agent=agent,
        run=run,
        method=method,
        scheme=head.scheme,
        host=host,
        port=head.port,
        path=target.path,
        segments=target.segments,
        query=target.query,
        headers=headers,
        body=UNREAD_BODY if _has_body(version, single) else NO_BODY,
        credential=find_credential(headers, target.query, hash_secret),
    )


def read_body(call: Call, raw: bytes, cap_bytes: int = DECODED_CAP_BYTES) -> Call:
    """`call` with its whole body `raw` decoded; neither `raw` nor what it decodes to may be larger than `cap_bytes`.

    Raises `WireError` when it is not as long as announced, or too long as it is.
    """
    if len(raw) > cap_bytes:
        raise WireError("body-too-large", f"The body is larger than {cap_bytes} bytes.")
    length = call.header("content-length")
    if length is not None and int(length) != len(raw):
        raise ambiguous("The body is not as long as Content-Length says.")
    body = decode(raw, call.header("content-type"), call.header("content-encoding"), cap_bytes)
    return msgspec.structs.replace(call, body=body)


def is_upgrade(call: Call) -> bool:
    """Whether the call asks to leave HTTP, as WebSocket does. `h2c` does not count: a server may always ignore it."""
    asked = [name.strip().lower() for value in _all(call.headers, "upgrade") for name in value.split(",")]
    return any(name and not name.startswith("h2c") for name in asked) or call.header("sec-websocket-key") is not None


def opens_websocket(call: Call) -> bool:
    """Whether the upgrade that `call` asks for is one to WebSocket, in every detail (RFC 6455 4.1)."""
    upgrade = [name.strip().lower() for value in _all(call.headers, "upgrade") for name in value.split(",")]
    connection = [name.strip().lower() for value in _all(call.headers, "connection") for name in value.split(",")]
    return (
        call.method == "GET"
        and upgrade == ["websocket"]
        and "upgrade" in connection
        and len(_all(call.headers, "sec-websocket-key")) == 1
        and _all(call.headers, "sec-websocket-version") == ["13"]
        and call.body.kind == "none"
    )


def as_websocket(call: Call) -> Call:
    """`call` as rules see it: by the scheme of a WebSocket."""
    return msgspec.structs.replace(call, scheme=_WEBSOCKET[call.scheme])


def read_message(call: Call, content: str | bytes) -> Call:
    """A message that is sent in the WebSocket which `call` opened, as a call of its own."""
    if isinstance(content, bytes):
        body = Body("binary", sha256=hashlib.sha256(content).digest(), size_bytes=len(content))
        return msgspec.structs.replace(call, method=MESSAGE, body=body)
    raw = content.encode("utf-8")
    body = decode(raw, "application/json", None, DECODED_CAP_BYTES)
    if body.kind == "undecodable":
        body = decode(raw, "text/plain", None, DECODED_CAP_BYTES)
    return msgspec.structs.replace(call, method=MESSAGE, body=body)


def headers_to_strip(call: Call) -> frozenset[str]:
    """Names (lower case) that end at this proxy. `TE: trailers` goes on: gRPC servers demand it."""
    if call.scheme in PLAIN:
        return frozenset({"proxy-authorization", "proxy-connection", "sec-websocket-extensions", "http2-settings"})
    trailers = all(value.lower() == "trailers" for value in _all(call.headers, "te"))
    return _HOP_BY_HOP if trailers else _HOP_BY_HOP | {"te"}


def read_headers(raw: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Raw header pairs as text: names lower case, values without outer white space. Raises `WireError`.

    Values are read as UTF-8, those that are not as Latin-1 (RFC 9110 5.5 allows both, and neither hides the other).
    """
    if not raw:
        return ()
    if len(raw) > HEADERS_CAP:
        raise ambiguous(f"There are more than {HEADERS_CAP} header fields.")
    names = b"".join([name + b"\n" for name, _ in raw])
    values = b"\n".join([value for _, value in raw])
    if len(names) + len(values) > HEADERS_CAP_BYTES:
        raise ambiguous(f"The header fields are larger than {HEADERS_CAP_BYTES} bytes together.")
    # One pass over all names and one over all values: a line feed separates them and may not occur inside.
    if names.count(b"\n") != len(raw) or not _NAMES.fullmatch(names):
        raise ambiguous("A header field has a name that is not a token.")
    if values.count(b"\n") != len(raw) - 1 or _CONTROL_VALUES.search(values):
        raise ambiguous("A header field's value holds a control character.")
    try:
        texts = values.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        texts = [_value(value) for value in values.split(b"\n")]
    if _C1.search("\n".join(texts)):
        raise ambiguous("A header field's value holds a control character.")
    lowered = names.decode("ascii").lower().split("\n")
    return tuple([(name, text.strip(" \t")) for name, text in zip(lowered[:-1], texts, strict=True)])


def _value(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _method(raw: bytes) -> str:
    if not _METHOD.fullmatch(raw):
        raise ambiguous("The method is not a token in upper case.")
    method = raw.decode("ascii")
    if method in ("CONNECT", "TRACE", "PRI"):
        raise ambiguous(f"The method {method} makes no sense here.")
    return method


def _single(headers: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The first value of every field, once nothing is sent twice that may be sent once, under any spelling."""
    first: dict[str, str] = {}
    for name, value in headers:
        if name in first:
            if name in SINGLE:
                raise ambiguous(f"The header field `{name}` is sent more than once.")
        else:
            first[name] = value
            if "_" in name and name.replace("_", "-") in UNDERSCORED:
                raise ambiguous(f"The header field `{name}` is read as `{name.replace('_', '-')}` by some servers.")
    return first


def _check_destination(head: Head, version: int, host: str, headers: tuple[tuple[str, str], ...]) -> None:
    """Everything that names a host or a port names the one that will be dialled."""
    if not 0 < head.port < 65536:
        raise ambiguous("The port is not a number from 1 to 65535.")
    hosts = _all(headers, "host")
    if head.authority:
        if version < 20 and head.tunnelled:
            raise ambiguous("A whole URL as request target makes no sense inside a tunnel.")
        try:
            hosts.append(head.authority.decode("ascii"))
        except UnicodeDecodeError:
            raise ambiguous("The authority is not ASCII.") from None
    if version < 20 and not _all(headers, "host"):
        raise ambiguous("There is no Host.")
    if not hosts:
        raise ambiguous("There is neither :authority nor Host.")
    destination = (host, head.port)
    for named in hosts:
        if canonical_authority(named, _DEFAULT_PORTS[head.scheme]) != destination:
            raise ambiguous("Host or :authority names another destination than the one that would be dialled.")
    if head.scheme == "https":
        if head.sni is not None:
            if canonical_host(head.sni) != host:
                raise ambiguous("The TLS server name (SNI) is not the host of the request.")
        elif not (is_ip(host) or head.host_verified):
            raise ambiguous("There is no TLS server name (SNI), so the server's certificate could not be checked.")


def _check_meaning(method: str, query: tuple[tuple[str, str], ...], single: dict[str, str]) -> None:
    """No field says that another method or path is meant."""
    for name, value in query:
        if name[:1] == "_" and name.lower() in QUERY_OVERRIDES and value.upper() != method:
            raise ambiguous(f"`{name}` in the query names another method than the request itself.")
    for name in OVERRIDES & single.keys():
        if single[name].upper() != method:
            raise ambiguous(f"`{name}` names another method than the request itself.")
    for name in REWRITES & single.keys():
        raise ambiguous(f"`{name}` names another path for the request: some servers would take it.")


def _check_framing(version: int, headers: tuple[tuple[str, str], ...], single: dict[str, str]) -> None:
    """The body ends at one place for everybody, and no field is dropped on the way."""
    if "trailer" in single:
        raise ambiguous("Trailer fields after a request body are not forwarded.")
    if single.get("expect", "100-continue").lower() != "100-continue":
        raise ambiguous("Expect says something other than `100-continue`.")
    if version == 20:
        for name in _H2_FORBIDDEN:
            if name in single:
                raise ambiguous(f"HTTP/2 has no `{name}`.")
    if "connection" in single:
        nominated = {name.strip(" \t").lower() for value in _all(headers, "connection") for name in value.split(",")}
        if not nominated <= _NOMINATED:
            raise ambiguous("Connection asks for a header field to be dropped on the way.")
    coding = single.get("transfer-encoding")
    length = single.get("content-length")
    if coding is not None:
        if length is not None:
            raise ambiguous("Both Content-Length and Transfer-Encoding are sent.")
        if coding.lower() != "chunked":
            raise ambiguous("Transfer-Encoding is not `chunked`.")
        if version == 10:
            raise ambiguous("HTTP/1.0 has no Transfer-Encoding.")
    if length is not None and not _LENGTH.fullmatch(length):
        raise ambiguous("Content-Length is not a number.")


def _has_body(version: int, single: dict[str, str]) -> bool:
    """Whether a body can follow. HTTP/2 frames it without a field, so there only `content-length: 0` excludes one."""
    length = single.get("content-length")
    if length is not None:
        return int(length) != 0
    return version == 20 or "transfer-encoding" in single


def _all(headers: tuple[tuple[str, str], ...], name: str) -> list[str]:
    return [value for sent, value in headers if sent == name]
