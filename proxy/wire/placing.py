"""Putting a value into a request that was decided on: into its query, or into a body that is a JSON object or a form.

Nothing else may change: the bytes around the value stay as they were sent, down to the order of members and the
spelling of numbers. What comes out is read again, as strictly as what came in, and has to be the same but for it.
"""

from __future__ import annotations

import json
import re
from json.decoder import JSONDecodeError
from urllib.parse import quote

from proxy.wire.body import read_json
from proxy.wire.target import read_pairs
from rules.canonical import canonical_json

_SPACE = re.compile(r"[ \t\n\r]*")
_VALUES = json.JSONDecoder(parse_int=len, parse_float=len, strict=True)
"""Finds where values end. What they are does not matter here, and numbers of any length have to pass."""


class PlacingError(Exception):
    """The value cannot be put in without changing something else."""


def in_query(target: bytes, name: str, value: str) -> bytes:
    """`target` (path and query as sent) with the parameter `name`, once."""
    path, mark, query = target.partition(b"?")
    return path + b"?" + in_form(query, name, value, "query") if mark else b"%b?%b" % (path, _pair(name, value))


def in_form(raw: bytes, name: str, value: str, what: str = "form") -> bytes:
    """The form (or query) `raw` with the field `name`, once: where the first was, else at the end."""
    pairs = raw.split(b"&") if raw else []
    ours = [index for index, pair in enumerate(pairs) if pair and read_pairs(pair, what)[0][0] == name]
    if ours:
        pairs[ours[0]] = _pair(name, value)
        pairs = [pair for index, pair in enumerate(pairs) if index not in ours[1:]]
    else:
        pairs.append(_pair(name, value))
    changed = b"&".join(pairs)
    others = [pair for pair in read_pairs(raw, what) if pair[0] != name]
    read = read_pairs(changed, what)
    if [pair for pair in read if pair[0] != name] != others or [pair[1] for pair in read if pair[0] == name] != [value]:
        raise PlacingError(f"the {what} would read otherwise")
    return changed


def in_object(raw: bytes, name: str, value: str) -> bytes:
    """The JSON object `raw` with the member `name`: in place of its value, else as the first member."""
    before = read_json(raw)
    if not isinstance(before, dict):
        raise PlacingError("the body is no JSON object")
    text = raw.decode("utf-8")
    start, end = _span(text, name)
    written = json.dumps(value)
    if start == end:
        written = f"{json.dumps(name)}:{written}{',' if before else ''}"
    changed = (text[:start] + written + text[end:]).encode("utf-8")
    if canonical_json(read_json(changed)) != canonical_json({**before, name: value}):
        raise PlacingError("the body would read otherwise")
    return changed


def _pair(name: str, value: str) -> bytes:
    return f"{quote(name, safe='')}={quote(value, safe='')}".encode("ascii")


def _span(text: str, name: str) -> tuple[int, int]:
    """Where the value of member `name` of the object `text` stands; without one, twice the place behind the brace."""
    first = _after_space(text, 0) + 1
    at = _after_space(text, first)
    try:
        while text[at] != "}":
            key, at = _VALUES.raw_decode(text, at)
            start = _after_space(text, _after_space(text, at) + 1)
            _, end = _VALUES.raw_decode(text, start)
            if key == name:
                return start, end
            at = _after_space(text, end)
            if text[at] == ",":
                at = _after_space(text, at + 1)
    except (JSONDecodeError, IndexError):
        raise PlacingError("the body cannot be taken apart") from None
    return first, first


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None, "it matches nothing, too"
    return found.end()
