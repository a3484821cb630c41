"""What a parameter may be, in words that a language model can act on: `a whole number from 1 to 5000`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from rules.call import Json
from rules.params.typed import flat

SHOWN = 12
"""Of the values or names that are possible, so many are named."""

SHOWN_LENGTH = 100
ANYTHING = "anything"

_SPLITS = {",": "commas", " ": "spaces", "|": "`|`"}
_PLAIN = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true` or `false`",
    "array": "a list",
    "object": "an object",
    "null": "`null`",
}
_FORMATS = {
    "date": "a date such as 2026-01-31",
    "date-time": "a moment such as 2026-01-31T12:00:00Z",
    "time": "a time such as 12:00:00Z",
    "duration": "a duration such as PT15M",
    "email": "an e-mail address",
    "hostname": "a host name",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "uri": "an absolute URI",
    "uri-reference": "a URI",
    "uuid": "a UUID",
    "binary": "a file",
}


def legal(schema: Mapping[str, Any]) -> str:
    """The legal form of a value under `schema`, without article of its own: `a text of at most 20 characters`."""
    if "const" in schema:
        return shown(schema["const"])
    if "enum" in schema:
        return one_of([shown(value) for value in schema["enum"]])
    said = schema.get("type")
    kinds = [said] if isinstance(said, str) else list(said or ())
    choices = [choice for word in ("anyOf", "oneOf") for choice in schema.get(word, ())]
    if choices and "object" not in kinds:
        return " or ".join(dict.fromkeys([*(_of(kind, schema) for kind in kinds), *map(legal, choices)]))
    if not kinds:
        inside = [legal(each) for each in schema.get("allOf", ())]
        return next((words for words in inside if words != ANYTHING), ANYTHING)
    return " or ".join(dict.fromkeys(_of(kind, schema) for kind in kinds))


def _of(kind: str, schema: Mapping[str, Any]) -> str:
    words = _PLAIN[kind]
    if kind == "string":
        words = _FORMATS.get(schema.get("format", ""), words) + _span(schema, "minLength", "maxLength", "characters")
        if "pattern" in schema:
            words += f" that matches {schema['pattern']}"
    elif kind in ("integer", "number"):
        words += _bounds(schema)
    elif kind == "array":
        if "items" in schema:
            words += f" of which each is {legal(schema['items'])}"
        words += _span(schema, "minItems", "maxItems", "elements")
        if "split" in schema:
            words += f", parted by {_SPLITS[schema['split']]}"
    elif kind == "object":
        names = list(dict.fromkeys(name for part in flat(schema) for name in part.get("properties", ())))
        if names:
            words += f" with {one_of([f'`{name}`' for name in names], 'and')}"
        words += _span(schema, "minProperties", "maxProperties", "members")
    return words


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    words = f" from {low} to {high}" if low is not None and high is not None else ""
    if not words:
        words = f" of at least {low}" if low is not None else f" of at most {high}" if high is not None else ""
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    words += f" above {above}" if above is not None else ""
    words += f" below {below}" if below is not None else ""
    factor = schema.get("multipleOf")
    words += f", a multiple of {factor}" if factor is not None else ""
    bits = schema.get("format")
    return words + (f" ({bits})" if bits in ("int32", "int64") else "")


def _span(schema: Mapping[str, Any], low: str, high: str, what: str) -> str:
    least, most = schema.get(low), schema.get(high)
    if least is not None and least == most:
        return f" of {least} {what}"
    words = []
    if least:
        words.append(f"at least {least}")
    if most is not None:
        words.append(f"at most {most}")
    return f" of {' and '.join(words)} {what}" if words else ""


def one_of(words: Iterable[str], joint: str = "or") -> str:
    """`a, b or c`; of many, the first and how many more there are."""
    found = list(words)
    if len(found) > SHOWN:
        found = [*found[: SHOWN - 1], f"{len(found) - SHOWN + 1} more"]
    *others, last = found
    return f"{', '.join(others)} {joint} {last}" if others else last


def shown(value: Json) -> str:
    """A value of a contract as JSON, cut when it is long."""
    text = _on_one_line(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 3]}..."


def actual(value: Json) -> str:
    """A value of a call as JSON; of a long one what it is, since the beginning of a secret is no less one."""
    text = _on_one_line(value)
    if len(text) <= SHOWN_LENGTH:
        return text
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    if isinstance(value, dict):
        return f"an object of {len(value)} members"
    return f"a list of {len(value)} elements" if isinstance(value, list) else f"a number of {len(text)} digits"


def _on_one_line(value: Json) -> str:
    text = str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False, default=str)
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text)
