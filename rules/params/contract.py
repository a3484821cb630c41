"""The contract of a tool: one closed schema each for the path, the query and the body of its calls."""

from __future__ import annotations

from typing import Any, Literal

import jsonschema_rs
import msgspec

from rules.checks import REGEX_SIZE
from rules.params.typed import REST, flat

BODY_KINDS = ("json", "form", "multipart")
type PlaceName = Literal["path", "query", "body", "args"]
"""`args`: the arguments of the operation that a message asks for."""


class Place(msgspec.Struct, frozen=True, eq=False):
    """What may stand in one place of a call.

    `schema` is closed; `literal`: names in it that hold brackets. `optional`: a body that may be left out as a whole.
    `empty`: whether nothing at all may stand there.
    """

    name: PlaceName
    schema: dict[str, Any]
    validator: jsonschema_rs.Draft202012Validator
    literal: frozenset[str]
    optional: bool
    empty: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Its parameters."""
        return tuple(dict.fromkeys(name for part in flat(self.schema) for name in part.get("properties", ())))

    @property
    def open(self) -> bool:
        """Whether parameters that are not named may stand here."""
        return not self.schema or any(part.get(word) for part in flat(self.schema) for word in REST)


def place(name: PlaceName, schema: dict[str, Any], optional: bool = False) -> Place:
    """The place with its schema compiled, once and for all calls."""
    validator = jsonschema_rs.Draft202012Validator(
        schema,
        validate_formats=True,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=REGEX_SIZE),
        offline=True,
    )
    literal = frozenset(each for each in schema.get("properties", ()) if "[" in each)
    return Place(name, schema, validator, literal, optional, empty=validator.is_valid({}))


class Contract(msgspec.Struct, frozen=True, eq=False):
    """What the calls of a tool may say.

    `home`: where its bare names stand, empty where it has none. `kinds`: how its bodies may read; empty: its body is
    not looked at. `args`: of a tool whose calls are messages of a protocol. `beside`: query parameters that are none of
    the operation: the caller's secret, and what a message is made of. `watched`: `params_mode: monitor`.
    """

    path: Place | None
    query: Place
    body: Place
    home: str
    kinds: tuple[str, ...]
    args: Place | None = None
    beside: frozenset[str] = frozenset()
    watched: bool = False

    @property
    def places(self) -> tuple[Place, ...]:
        """Where a parameter may be moved to that stands in the wrong one."""
        return (self.query, self.body) if self.args is None else (self.args, self.query)

    def refuses(self, place: PlaceName, name: str) -> bool:
        """Whether no call that keeps to it has the parameter `name` there."""
        if self.watched or (place == "body" and not self.kinds) or (place == "query" and name in self.beside):
            return False
        where = next((each for each in self.places if each.name == place), None)
        return where is not None and not where.open and name not in where.names
