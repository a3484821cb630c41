"""Canonical bytes: two queries, bodies or field values get the same bytes exactly when they mean the same.

JSON: keys sorted by code point, array order kept, numbers by value (`100` = `1e2` = `100.0`), text as it is (no Unicode
folding). A type never passes for another: `1`, `"1"` and `true` differ. Forms and queries: decoded pairs, stable-sorted
by name. Multipart: name, file name, media type and digest of each part, in order. Everything else: a digest.

RFC 8785 is not used: it reads numbers as doubles, so 2^53 and 2^53 + 1 would be one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from json import JSONEncoder
from json.encoder import encode_basestring_ascii
from operator import itemgetter

from rules.call import Body, Json

_quote: Callable[[str], str] = encode_basestring_ascii
_fast = JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False, allow_nan=False)

PLAIN_DIGITS = 40
"""Whole numbers up to so many digits are written out; longer ones get an exponent."""

_SHORT = 10**PLAIN_DIGITS
_LONG_NUMBER = re.compile(rf"[0-9]{{{PLAIN_DIGITS + 1}}}")


_LENGTHS = [b"%d:" % length for length in range(1000)]
"""How the length of nearly every part is written: deciding a call frames fifty."""


def frame(*parts: bytes) -> bytes:
    """The parts with their lengths before them (netstrings): no two lists of parts have the same bytes."""
    try:
        return b"".join([_LENGTHS[len(part)] + part for part in parts])
    except IndexError:  # a longer one
        return b"".join([b"%d:" % len(part) + part for part in parts])


def canonical_number(value: int | Decimal) -> str:
    """The one text of a number: its digits when it is whole and not too long, else digits, `e` and a power of ten.

    An exponent is not expanded beyond that, so `1e999999999` costs nothing. Minus zero is zero.
    """
    if type(value) is int and -_SHORT < value < _SHORT:
        return str(value)
    written = str(value) if type(value) is Decimal else ""
    if written.isascii() and written.replace(".", "", 1).lstrip("-").isdigit():  # the usual case
        sign = written[0] == "-"
        whole, _, fraction = written.lstrip("-").partition(".")
        text, exponent = (whole + fraction).lstrip("0"), -len(fraction)
    else:
        sign, text, exponent = _parts(value)
    short = text.rstrip("0")
    if not short:
        return "0"
    exponent += len(text) - len(short)
    minus = "-" if sign else ""
    if exponent >= 0 and len(short) + exponent <= PLAIN_DIGITS:
        return f"{minus}{short}{'0' * exponent}"
    return f"{minus}{short}e{exponent}"


def _parts(value: int | Decimal) -> tuple[bool, str, int]:
    """Is it negative; its digits without leading zeros; and the power of ten that they are multiplied by."""
    sign, digits, exponent = Decimal(value).as_tuple()
    assert isinstance(exponent, int), "the decoder refuses NaN and Infinity"
    return bool(sign), "".join(map(str, digits)).lstrip("0"), exponent


def canonical_json(value: Json) -> bytes:
    """The canonical bytes of a decoded JSON value, however deep it is nested."""
    try:
        try:
            if isinstance(value, dict) and Decimal in map(type, value.values()):
                return _canonical(value).encode("ascii")
            text = _fast.encode(value)
        except TypeError:  # a Decimal farther down
            return _canonical(value).encode("ascii")
    except (RecursionError, ValueError):  # too deep, an integer too long for `str`
        return _canonical_slowly(value)
    return _canonical_slowly(value) if _LONG_NUMBER.search(text) else text.encode("ascii")


def _canonical(value: Json) -> str:
    """As `_canonical_slowly`, in half the time, where the stack of Python is deep enough."""
    if isinstance(value, str):
        return _quote(value)
    if type(value) is int:  # not bool
        return canonical_number(value)
    if isinstance(value, dict):
        return "{" + ",".join([_quote(key) + ":" + _canonical(value[key]) for key in sorted(value)]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([_canonical(element) for element in value]) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return canonical_number(value)


def _canonical_slowly(value: Json) -> bytes:
    """The canonical bytes of every value: with an own stack, and numbers by value."""
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
                stack += (item[key], (_quote(key) + ":").encode("ascii"), b",")
            if item:
                stack.pop()
        else:
            out.append("[")
            stack.append(b"]")
            for element in reversed(item):
                stack += (element, b",")
            if item:
                stack.pop()
    return "".join(out).encode("ascii")


def canonical_pairs(pairs: Sequence[tuple[str, str]]) -> bytes:
    """Pairs of a query or form: sorted by name, equal names in the order sent."""
    if not pairs:
        return b""
    return frame(*[text_bytes(text) for pair in sorted(pairs, key=itemgetter(0)) for text in pair])


def text_bytes(text: str) -> bytes:
    """UTF-8; halves of surrogate pairs, which JSON may hold, keep apart too."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def canonical_body(body: Body) -> bytes:
    """The canonical bytes of a decoded body, its kind before it. An `undecodable` or `unread` body has none."""
    if body.kind == "none":
        return b"none"
    if body.kind == "json":
        return b"json:" + canonical_json(body.json)
    if body.kind == "form":
        return b"form:" + canonical_pairs(body.fields)
    if body.kind == "multipart":
        parts = [
            frame(*[text_bytes(text) for text in (part.name, part.filename, part.media_type)], part.sha256)
            for part in body.parts
        ]
        return b"multipart:" + frame(*parts)
    if body.kind in ("text", "binary"):
        return b"bytes:" + body.sha256
    raise ValueError(f"a body that is `{body.kind}` has no canonical form")
