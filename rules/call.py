"""The call: one outbound request, decoded and canonical. Everything is decided on this value and nothing else.

`proxy.wire` makes it from bytes; embedded tests make it from YAML. A body is decoded once, here is its result.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

type Json = bool | int | Decimal | str | list[Json] | dict[str, Json] | None
"""A decoded JSON value. Numbers are `int` where written without fraction or exponent, else `Decimal`; never float."""

type BodyKind = Literal["none", "json", "form", "multipart", "text", "binary", "unread", "undecodable"]
"""`unread`: it was not needed and is streamed. `undecodable`: `Body.problem` says why. The others say how it reads."""


EXPONENTS = range(-324, 309)
"""Outside, a binary double is infinite or zero: what a server would compute is not what is written."""


def read_decimal(text: str) -> Decimal:
    """The number that JSON writes so. Raises `ValueError` where it is out of range: it could unfold to any size."""
    number = Decimal(text)
    if number and number.adjusted() not in EXPONENTS:
        raise ValueError("a number out of range")
    return number


class Part(msgspec.Struct, frozen=True):
    """One part of a multipart body. `text` is its content when it is not a file and valid UTF-8, else empty."""

    name: str
    filename: str
    media_type: str
    sha256: bytes
    text: str


class Body(msgspec.Struct, frozen=True):
    """A request body after content-decoding.

    `json` is set for kind `json`; `fields` for `form` (decoded pairs in order); `parts` for `multipart`;
    `text` for `text`. `sha256` is over the content-decoded bytes; `size_bytes` counts bytes as received.
    """

    kind: BodyKind
    media_type: str = ""
    json: Json = None
    fields: tuple[tuple[str, str], ...] = ()
    parts: tuple[Part, ...] = ()
    text: str = ""
    sha256: bytes = b""
    size_bytes: int = 0
    problem: str = ""


NO_BODY = Body("none")
UNREAD_BODY = Body("unread")


class Call(msgspec.Struct, frozen=True):
    """One outbound request.

    `method`: as sent, a token, upper case for the known methods.
    `host`: lower case A-label, no trailing dot, no brackets; an IP literal in its canonical text form.
    `path`: the path as sent, without the query; canonical (see `proxy.wire.target`), starts with `/`.
    `segments`: the path split at `/`, each segment percent-decoded; a segment holding `/` was sent with `%2F`.
        `/` is `("",)`, `/a/` is `("a", "")`.
    `query`: decoded pairs in order. `headers`: (lower-case name, value) in order, all that were sent.
    `credential`: keyed hash (hex) of the secret that the upstream sees, empty when there is none.
    """

    agent: str
    run: str
    method: str
    scheme: str
    host: str
    port: int
    path: str
    segments: tuple[str, ...]
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: Body = NO_BODY
    credential: str = ""

    def header(self, name: str) -> str | None:
        """The first value of header `name` (lower case), or None when it was not sent."""
        for sent, value in self.headers:
            if sent == name:
                return value
        return None
