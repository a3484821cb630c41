"""The request target: bytes as sent -> path, decoded segments, query pairs.

A path is matched in one canonical form and sent on in exactly that form, or refused. Only the case of hex digits is
free. Upstreams disagree on dot segments, `//`, `\\`, `%2E`, `..;` and `%00` (RFC 3986 section 6), so none of them pass.
`%2F` stays a `/` inside its decoded segment; whoever matches decides what that means. `;` is text.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import msgspec

from proxy.wire.error import WireError, ambiguous

TARGET_CAP_BYTES = 32 * 1024
PAIRS_CAP = 1000

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

# RFC 3986 `pchar` and, because common clients send them as they are, `[`, `]` and `|`.
_PATH = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@\[\]|/]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(rb"[!-~]*")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Target(msgspec.Struct, frozen=True):
    """A request target. `path` as sent; `segments` decoded, without the leading slash; `query` decoded, in order."""

    path: str
    segments: tuple[str, ...]
    query: tuple[tuple[str, str], ...]


def read_target(raw: bytes) -> Target:
    """Read an origin-form target. Raises `WireError` for every other form and for everything not canonical."""
    if len(raw) > TARGET_CAP_BYTES:
        raise ambiguous(f"The request target is longer than {TARGET_CAP_BYTES} bytes.")
    if not raw.startswith(b"/"):
        raise ambiguous("The request target is not a path: it must begin with `/`.")
    if b"#" in raw:
        raise ambiguous("The request target holds a `#`: leave the fragment out, or write `%23`.")
    path, mark, query = raw.partition(b"?")
    segments = _segments(path)
    if not mark:
        return Target(path.decode("ascii"), segments, ())
    if not _QUERY.fullmatch(query):
        raise ambiguous("The query holds a space, a control character or a byte outside ASCII: percent-encode it.")
    return Target(path.decode("ascii"), segments, read_pairs(query, "query"))


def read_pairs(raw: bytes, what: str) -> tuple[tuple[str, str], ...]:
    """The decoded pairs of a query or a form: split at `&` only, `+` is a space, a missing `=` an empty value.

    Empty pairs (`a=1&&b=2`) say nothing and are left out, as every server does. `what` names it in messages.
    Raises `WireError` for broken percent-encoding, text that is not UTF-8, NUL, and more than 1000 pairs.
    """
    if not raw:
        return ()
    if raw.count(b"&") >= PAIRS_CAP:
        raise ambiguous(f"The {what} has more than {PAIRS_CAP} fields.")
    if _BAD_ESCAPE.search(raw):
        raise ambiguous(f"The {what} holds a `%` without two hex digits: write `%25`.")
    pairs: list[tuple[str, str]] = []
    try:
        for pair in raw.replace(b"+", b" ").split(b"&"):
            if pair:
                name, _, value = pair.partition(b"=")
                pairs.append((_text(name), _text(value)))
    except UnicodeDecodeError:
        raise ambiguous(f"The {what} is not UTF-8 after percent-decoding.") from None
    if b"\0" in raw or (b"%00" in raw and any("\0" in name or "\0" in value for name, value in pairs)):
        raise ambiguous(f"The {what} holds a NUL character.")
    return tuple(pairs)


def _text(raw: bytes) -> str:
    return (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8")


def _segments(path: bytes) -> tuple[str, ...]:
    if not _PATH.fullmatch(path):
        raise _why_not_a_path(path)
    if b"//" in path:
        raise ambiguous("The path has an empty segment (`//`): servers disagree on what that means.")
    if b"%" not in path:
        segments = tuple(path.decode("ascii").split("/")[1:])
    else:
        for match in _ESCAPE.finditer(path):
            if int(match[1], 16) in _UNRESERVED:
                plain = chr(int(match[1], 16))
                raise ambiguous(f"The path encodes `{plain}` as `{match[0].decode()}`: write the character itself.")
        try:
            segments = tuple(_text(segment) for segment in path.split(b"/")[1:])
        except UnicodeDecodeError:
            raise ambiguous("The path is not UTF-8 after percent-decoding.") from None
        if _CONTROL.search("".join(segments)):
            raise ambiguous("The path holds an encoded control character.")
        if any("\\" in segment for segment in segments):
            raise ambiguous("The path holds an encoded backslash (`%5C`): some servers read it as `/`.")
    if b"." in path and any(_has_dots(segment) for segment in segments):
        raise ambiguous("The path holds a dot segment (`.` or `..`): write the path that is meant.")
    return segments


def _has_dots(segment: str) -> bool:
    """Whether some server would walk up: `..` itself, before a `;` parameter, or between encoded slashes."""
    return any(piece.partition(";")[0] in (".", "..") for piece in segment.split("/"))


def _why_not_a_path(path: bytes) -> WireError:
    if _BAD_ESCAPE.search(path):
        return ambiguous("The path holds a `%` without two hex digits: write `%25`.")
    if b"\\" in path:
        return ambiguous("The path holds a backslash: some servers read it as `/`.")
    if any(byte >= 0x7F or byte <= 0x20 for byte in path):
        return ambiguous("The path holds a space, a control character or a byte outside ASCII: percent-encode it.")
    return ambiguous('The path holds one of `"<>^{}` or a backtick: percent-encode it.')
