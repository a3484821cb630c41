"""A request body: raw bytes -> content-decoded -> read as its media type says, strictly and once.

Nothing is guessed: what a rule decides on must be what the server reads. A body that cannot be read in exactly one way
is `undecodable`, with a `problem` that says why; rules that need it then refuse. No exception leaves `decode`.
"""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal
from typing import NoReturn

from proxy.wire.coding import CodingError, decompress
from proxy.wire.error import WireError
from proxy.wire.multipart import MultipartError, read_multipart
from proxy.wire.target import read_pairs
from rules.call import NO_BODY, Body, BodyKind, Json, read_decimal

DECODED_CAP_BYTES = 16 * 1024 * 1024
"""What a body may decode to unless its tool says `cap`: the same as it may be large."""

JSON_DEPTH_CAP = 100

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_ESSENCE = re.compile(rf"({_WORD}/{_WORD})[ \t]*")
_PARAMETER = re.compile(rf';[ \t]*(?:({_WORD})=(?:"((?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*)"|({_WORD})))?[ \t]*')
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_JSON_TYPES = frozenset({"application/json", "text/json", "application/x-amz-json-1.0", "application/x-amz-json-1.1"})


class _Unreadable(ValueError):
    """The content is not what its media type says; the message says why."""


def decode(raw: bytes, content_type: str | None, content_encoding: str | None, cap_bytes: int) -> Body:
    """The body that `raw` is. Never more than `cap_bytes` of it are unpacked."""
    if not raw:
        return NO_BODY
    media_type = ""
    content = b""
    try:
        content = decompress(raw, content_encoding, cap_bytes)
        media_type, parameters = _media_type(content_type)
        return _read(content, media_type, parameters, len(raw))
    except (CodingError, MultipartError, _Unreadable) as error:
        problem = str(error)
    except WireError as error:
        problem = error.detail[:1].lower() + error.detail[1:].rstrip(".")
    except RecursionError:
        problem = f"its JSON is nested more than {JSON_DEPTH_CAP} deep"
    except Exception:  # noqa: BLE001  parsers fail in ways of their own; whatever it was, the body was not read
        problem = "it could not be read"
    sha256 = hashlib.sha256(content).digest() if content else b""
    return Body("undecodable", media_type=media_type, sha256=sha256, size_bytes=len(raw), problem=problem)


def read_json(content: bytes) -> Json:
    """Strict JSON (RFC 8259, I-JSON's unique keys): exact integers, `Decimal` for all else. Raises `ValueError`."""
    if content.startswith(b"\xef\xbb\xbf"):
        raise _Unreadable("its JSON begins with a byte order mark")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise _Unreadable("its JSON is not UTF-8") from None
    try:
        value: Json = _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise _Unreadable(f"its JSON is broken at character {error.pos}") from None
    if content.count(b"[") + content.count(b"{") > JSON_DEPTH_CAP:
        _check_depth(value)
    if _SURROGATE.search(content):
        _check_surrogates(value)
    return value


def _read(content: bytes, media_type: str, parameters: dict[str, str], size_bytes: int) -> Body:
    kind: BodyKind = "binary"
    value: Json = None
    text = ""
    fields: tuple[tuple[str, str], ...] = ()
    if media_type in _JSON_TYPES or media_type.endswith("+json"):
        _check_charset(parameters, content)
        kind, value = "json", read_json(content)
    elif media_type == "application/x-www-form-urlencoded":
        _check_charset(parameters, content)
        kind, fields = "form", read_pairs(content, "form")
    elif media_type == "multipart/form-data":
        if "boundary" not in parameters:
            raise _Unreadable("its media type names no boundary")
        parts = read_multipart(content, parameters["boundary"])
        digest = hashlib.sha256(content).digest()
        return Body("multipart", media_type=media_type, parts=parts, sha256=digest, size_bytes=size_bytes)
    elif media_type.startswith("text/"):
        _check_charset(parameters, content)
        kind, text = "text", _utf8(content)
    return Body(
        kind,
        media_type=media_type,
        json=value,
        fields=fields,
        text=text,
        sha256=hashlib.sha256(content).digest(),
        size_bytes=size_bytes,
    )


def _media_type(content_type: str | None) -> tuple[str, dict[str, str]]:
    """Essence and parameters of a Content-Type, names in lower case; a parameter twice is an error."""
    if content_type is None:
        return "", {}
    match = _ESSENCE.match(content_type)
    parameters: dict[str, str] = {}
    if match:
        at = match.end()
        while at < len(content_type):
            found = _PARAMETER.match(content_type, at)
            if not found:
                raise _Unreadable("its Content-Type is malformed")
            at = found.end()
            if found[1]:
                name = found[1].lower()
                if name in parameters:
                    raise _Unreadable("its Content-Type says a parameter twice")
                quoted = found[2]
                parameters[name] = found[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        return match[1].lower(), parameters
    raise _Unreadable("its Content-Type is malformed")


def _check_charset(parameters: dict[str, str], content: bytes) -> None:
    charset = parameters.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8") and not (charset in ("us-ascii", "ascii") and content.isascii()):
        raise _Unreadable("its charset is not UTF-8")


def _utf8(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _Unreadable("its text is not UTF-8") from None


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Unreadable("its JSON has a key twice in one object")
    return members


def _decimal(text: str) -> Decimal:
    try:
        return read_decimal(text)
    except ValueError as error:
        raise _Unreadable(f"its JSON has {error}") from None


def _no_constant(_: str) -> NoReturn:
    raise _Unreadable("its JSON holds NaN or Infinity")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_decimal, parse_constant=_no_constant)


def _check_depth(value: Json) -> None:
    level: list[Json] = [value]
    for _ in range(JSON_DEPTH_CAP):
        below: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                below.extend([child for child in item.values() if isinstance(child, (dict, list))])
            elif isinstance(item, list):
                below.extend([child for child in item if isinstance(child, (dict, list))])
        if not below:
            return
        level = below
    raise _Unreadable(f"its JSON is nested more than {JSON_DEPTH_CAP} deep")


def _check_surrogates(value: Json) -> None:
    """Half a surrogate pair is no character: it cannot be written as UTF-8, and readers replace it as they like."""
    open_items: list[Json] = [value]
    while open_items:
        item = open_items.pop()
        if isinstance(item, str):
            if not item.isascii():
                try:
                    item.encode("utf-8")
                except UnicodeEncodeError:
                    raise _Unreadable("its JSON holds half a surrogate pair") from None
        elif isinstance(item, dict):
            open_items.extend(item)
            open_items.extend(item.values())
        elif isinstance(item, list):
            open_items.extend(item)
