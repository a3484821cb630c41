"""From text to values: what a path, a query or a form spells, read by the types that its contract declares.

Text has no type. It becomes a number or a boolean only where the contract asks for one, by an exact grammar: `05`,
`+5`, `5.0` (for a whole number), `True` and `1` (for a boolean) stay text, and then do not fit. A name that stands
several times is a list where a list is declared, and else can be read in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rules.call import Json
from rules.checks import TEXT_NUMBER
from rules.fields import File, WireText
from rules.forms import Either, Indexed
from rules.params.keywords import BRANCHES

type Schema = Mapping[str, Any]
type Steps = tuple[str | int, ...]
"""Where a value stands: names of members and places in lists."""

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,399}")
_BOOLEANS = {"true": True, "false": False}


def exact(value: Json) -> Json:
    """`value` with each number in its one form: whole ones as `int`, others without trailing zeros."""
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int), "the decoder refuses NaN and Infinity"
        while exponent < 0 and digits[-1] == 0 and len(digits) > 1:
            digits, exponent = digits[:-1], exponent + 1
        if exponent >= 0 or digits == (0,):
            return int(value)
        return Decimal((sign, digits, exponent))
    if isinstance(value, list):
        return [exact(each) for each in value]
    if isinstance(value, dict):
        return {name: exact(member) for name, member in value.items()}
    return value


def flat(schema: Schema) -> Iterator[Schema]:
    """`schema` and all that it is composed of."""
    yield schema
    for word in BRANCHES:
        for branch in schema.get(word, ()):
            yield from flat(branch)


def members(schemas: Sequence[Schema], name: str) -> list[Schema]:
    """What `schemas` say about the member `name` of an object; what they say of others where none names it."""
    parts = [part for schema in schemas for part in flat(schema)]
    found = [part["properties"][name] for part in parts if name in part.get("properties", ())]
    if not found:
        found = [part[word] for part in parts for word in REST if isinstance(part.get(word), dict)]
    return found


REST = ("additionalProperties", "unevaluatedProperties")


def elements(schemas: Sequence[Schema]) -> list[Schema]:
    """What `schemas` say about the elements of a list."""
    return [part["items"] for schema in schemas for part in flat(schema) if "items" in part]


def types(schemas: Sequence[Schema]) -> set[str]:
    """The types that `schemas` speak of."""
    found: set[str] = set()
    for part in (part for schema in schemas for part in flat(schema)):
        said = part.get("type")
        if isinstance(said, str):
            found.add(said)
        elif said is not None:
            found.update(said)
        else:
            values = [*part.get("enum", ()), *([part["const"]] if "const" in part else ())]
            found.update(type_of(value) for value in values)
    return found


def type_of(value: Json) -> str:
    """JSON Schema's name for the type of `value`."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | Decimal):
        return "integer" if isinstance(value, int) else "number"
    if isinstance(value, str):
        return "string"
    return "null" if value is None else "array" if isinstance(value, list) else "object"


class Typing:
    """Reads one place of a call. `as_text`: where text and another type are both declared, it stays text.

    `doubtful`: such a choice was made. `unclear`: where something can be read in two ways.
    """

    def __init__(self, *, as_text: bool) -> None:
        self.as_text = as_text
        self.doubtful = False
        self.unclear: list[Steps] = []

    def read(self, value: object, schemas: Sequence[Schema], steps: Steps = ()) -> Json:
        """What `value`, a place of a decoded form, is under `schemas`."""
        if isinstance(value, WireText):
            return self._text(value, schemas, steps)
        wanted = types(schemas)
        if isinstance(value, Either):
            if "array" in wanted and all(isinstance(each, WireText) for each in value.readings):
                return self._list(value.readings, schemas, steps)
            self.unclear.append(steps)
            return None
        if isinstance(value, File):
            return "" if any(_binary(schema) for schema in schemas) else {"file": str(value["filename"])}
        if isinstance(value, list):
            return self._list(value, schemas, steps)
        assert isinstance(value, dict), "a form holds texts, files, lists and objects"
        if isinstance(value, Indexed) and "array" in wanted and set(value) == {str(n) for n in range(len(value))}:
            return self._list([value[str(place)] for place in range(len(value))], schemas, steps)
        return {name: self.read(each, members(schemas, name), (*steps, name)) for name, each in value.items()}

    def _list(self, values: Sequence[object], schemas: Sequence[Schema], steps: Steps) -> Json:
        inside = elements(schemas)
        return [self.read(value, inside, (*steps, place)) for place, value in enumerate(values)]

    def _text(self, text: WireText, schemas: Sequence[Schema], steps: Steps) -> Json:
        for part in (part for schema in schemas for part in flat(schema)):
            if "split" in part:
                return self._list([WireText(piece) for piece in text.split(part["split"])], [part], steps)
        wanted = types(schemas)
        read = _read(text, wanted)
        if isinstance(read, str) and "array" in wanted and not wanted & _SINGLE:
            return self._list([text], schemas, steps)
        if not isinstance(read, str) and "string" in wanted:
            self.doubtful = True
            return str(text) if self.as_text else read
        return read


_SINGLE = frozenset({"string", "object"})


def _read(text: WireText, wanted: set[str]) -> Json:
    if "integer" in wanted and _WHOLE.fullmatch(text):
        return int(text)
    if "number" in wanted and TEXT_NUMBER.fullmatch(text):
        return exact(Decimal(text))
    if "boolean" in wanted and text in _BOOLEANS:
        return _BOOLEANS[text]
    return str(text)


def _binary(schema: Schema) -> bool:
    return any(part.get("format") == "binary" for part in flat(schema))
