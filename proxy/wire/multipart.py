"""multipart/form-data, strictly: what two servers could split differently is an error. Sources: RFC 7578, RFC 2046 5.1.

Parsers in the field differ on preambles, epilogues, bare line feeds, folded part headers, backslashes in quoted names
and `name*`: all refused, and so is a boundary anywhere but at the start of a line of its own.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote_to_bytes

from rules.call import Part

PARTS_CAP = 1000
PART_HEAD_CAP_BYTES = 16 * 1024

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_FIELD = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_PARAMETER = re.compile(r';[ \t]*([A-Za-z0-9!#$&+.^_`|~-]+\*?)=(?:"([^"\\]*)"|([A-Za-z0-9!#$%&\'*+.^_`|~-]+))[ \t]*')
_DISPOSITION = re.compile(r"form-data[ \t]*((?:;.*)?)", re.IGNORECASE)
_SAFE_TRANSFER = ("7bit", "8bit", "binary")


class MultipartError(ValueError):
    """Not a multipart/form-data body that everybody reads alike; the message says why."""


def read_multipart(raw: bytes, boundary: str) -> tuple[Part, ...]:
    """The parts of `raw` in order, duplicates kept. Raises `MultipartError`."""
    if not _BOUNDARY.fullmatch(boundary):
        raise MultipartError("its boundary is not valid")
    delimiter = b"--" + boundary.encode("ascii")
    if not raw.startswith(delimiter):
        raise MultipartError("it does not begin with its boundary")
    # The first delimiter has no line end before it; prefixing one makes all delimiters alike.
    pieces = (b"\r\n" + raw).split(b"\r\n" + delimiter, PARTS_CAP + 2)
    if len(pieces) > PARTS_CAP + 2:
        raise MultipartError(f"it has more than {PARTS_CAP} parts")
    if raw.count(delimiter) != len(pieces) - 1:
        raise MultipartError("its boundary occurs inside a part")
    if len(pieces) < 2 or pieces[-1] not in (b"--", b"--\r\n"):
        raise MultipartError("it does not end with its closing boundary")
    return tuple(_part(piece) for piece in pieces[1:-1])


def _part(piece: bytes) -> Part:
    if not piece.startswith(b"\r\n"):
        raise MultipartError("a boundary is not at the end of its line")
    head, blank, content = piece[2:].partition(b"\r\n\r\n")
    if not blank or len(head) > PART_HEAD_CAP_BYTES:
        raise MultipartError("the header of a part does not end")
    fields = _fields(head)
    transfer = fields.get("content-transfer-encoding", "binary")
    if transfer.lower() not in _SAFE_TRANSFER:
        raise MultipartError("a part has a content-transfer-encoding")
    parameters = _disposition(fields.get("content-disposition", ""))
    media_type, _, rest = fields.get("content-type", "").partition(";")
    plain = "filename" not in parameters and ("charset" not in rest.lower() or "utf-8" in rest.lower())
    return Part(
        name=parameters["name"],
        filename=parameters.get("filename", ""),
        media_type=media_type.strip().lower(),
        sha256=hashlib.sha256(content).digest(),
        text=_text(content) if plain else "",
    )


def _fields(head: bytes) -> dict[str, str]:
    try:
        lines = head.decode("utf-8").split("\r\n")
    except UnicodeDecodeError:
        raise MultipartError("the header of a part is not UTF-8") from None
    fields: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if not match:
            raise MultipartError("a part has a malformed header line")
        name = match[1].lower()
        if name in fields:
            raise MultipartError("a part has a header field twice")
        fields[name] = match[2].strip(" \t")
    return fields


def _disposition(value: str) -> dict[str, str]:
    match = _DISPOSITION.fullmatch(value)
    if not match:
        raise MultipartError("a part is not form-data")
    parameters: dict[str, str] = {}
    rest = match[1]
    while rest:
        found = _PARAMETER.match(rest)
        if not found:
            raise MultipartError("a part has a malformed Content-Disposition")
        name = found[1].lower()
        text = found[2] if found[2] is not None else found[3]
        if name == "filename*":
            name, text = "filename", _extended(text)
        if name in parameters or name.endswith("*"):
            raise MultipartError("a part has two names")
        parameters[name] = text
        rest = rest[found.end() :]
    if "name" not in parameters:
        raise MultipartError("a part has no name")
    return parameters


def _extended(value: str) -> str:
    """RFC 8187: `UTF-8''percent-encoded`, the only charset that it still allows."""
    charset, _, rest = value.partition("'")
    _, quote, encoded = rest.partition("'")
    if charset.lower() != "utf-8" or not quote:
        raise MultipartError("a part has a malformed file name")
    try:
        return unquote_to_bytes(encoded).decode("utf-8")
    except UnicodeDecodeError:
        raise MultipartError("a part has a malformed file name") from None


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return ""
