"""Canonical bytes: two queries, bodies or field values get the same bytes exactly when they mean the same.

JSON: keys sorted by code point, array order kept, numbers by value (`100` = `1e2` = `100.0`), text as it is (no Unicode
folding). A type never passes for another: `1`, `"1"` and `true` differ. Forms and queries: decoded pairs, stable-sorted
by name. Multipart: name, file name, media type and digest of each part, in order. Everything else: a digest.

RFC 8785 is not used: it reads numbers as doubles, so 2^53 and 2^53 + 1 would be one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from json.encoder import encode_basestring_ascii

from rules.call import Body, Json

_quote: Callable[[str], str] = encode_basestring_ascii
_PLAIN_INT = 10**18
"""Integers below this are written by `str`, which is slow, and in CPython limited, for very long ones."""


def frame(*parts: bytes) -> bytes:
    """The parts with their lengths before them (netstrings): no two lists of parts have the same bytes."""
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def canonical_number(value: int | Decimal) -> str:
    """The one text of a number: shortest digits, then `e` and a power of ten unless that is 0.

    The exponent is never expanded, so `1e999999999` costs nothing. Minus zero is zero.
    """
    if isinstance(value, int) and -_PLAIN_INT < value < _PLAIN_INT and (value % 10 or not value):
        return str(value)
    sign, digits, exponent = Decimal(value).as_tuple()
    assert isinstance(exponent, int), "the decoder refuses NaN and Infinity"
    text = "".join(map(str, digits)).lstrip("0")
    short = text.rstrip("0")
    if not short:
        return "0"
    exponent += len(text) - len(short)
    return f"{'-' if sign else ''}{short}{f'e{exponent}' if exponent else ''}"


def canonical_json(value: Json) -> bytes:
    """The canonical bytes of a decoded JSON value. Works with an own stack, so depth is no limit."""
    out: list[str] = []
    stack: list[Json | bytes] = [value]  # bytes are punctuation: no JSON value is bytes
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            out.append(_quote(item))
        elif isinstance(item, bytes):
            out.append(item.decode("ascii"))
        elif item is None:
            out.append("null")
        elif isinstance(item, bool):
            out.append("true" if item else "false")
        elif isinstance(item, (int, Decimal)):
            out.append(canonical_number(item))
        elif isinstance(item, dict):
            out.append("{")
            stack.append(b"}")
            for key in sorted(item, reverse=True):
                stack.append(item[key])
                stack.append((_quote(key) + ":").encode("ascii"))
                stack.append(b",")
            if item:
                stack.pop()
        else:
            out.append("[")
            stack.append(b"]")
            for element in reversed(item):
                stack.append(element)
                stack.append(b",")
            if item:
                stack.pop()
    return "".join(out).encode("ascii")


def canonical_pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Pairs of a query or form: sorted by name, equal names in the order sent."""
    return canonical_json([[name, value] for name, value in sorted(pairs, key=lambda pair: pair[0])])


def canonical_body(body: Body) -> bytes:
    """The canonical bytes of a decoded body, its kind before it. An `undecodable` or `unread` body has none."""
    if body.kind == "none":
        return frame(b"none")
    if body.kind == "json":
        return frame(b"json", canonical_json(body.json))
    if body.kind == "form":
        return frame(b"form", canonical_pairs(body.fields))
    if body.kind == "multipart":
        parts: list[Json] = [[part.name, part.filename, part.media_type, part.sha256.hex()] for part in body.parts]
        return frame(b"multipart", canonical_json(parts))
    if body.kind in ("text", "binary"):
        return frame(b"bytes", body.sha256)
    raise ValueError(f"a body that is `{body.kind}` has no canonical form")
