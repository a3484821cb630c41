"""A state as lines of text and back: so that a start need not fold everything that ever changed.

Generic over the tables of all guards: their fields are plain data (`rules.state.Table`). A line is JSON, and holds a
bounded number of rows: whoever writes or reads a large state can let others work between two lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import batched
from typing import Any, cast

import msgspec

from rules.guards import TABLES
from rules.state import Due, State

ROWS = 200
"""So many rows of a table stand in one line."""

_Line = tuple[str, tuple[str, ...], msgspec.Raw]
"""The verb of a table, the way to a field of it, and what is there: some rows of it, if it holds rows."""


def write(state: State) -> Iterator[bytes]:
    """The lines that `read` makes an equal state of. Nothing may change `state` meanwhile."""
    for verb, table in state.tables.items():
        for way, value in _fields((), cast(msgspec.Struct, table)):
            yield msgspec.json.encode((verb, way, value))


def read(lines: Iterable[bytes]) -> State:
    """The state that was written as `lines`. Raises `msgspec.MsgspecError` or `LookupError` for any others."""
    state = State()
    for line in lines:
        verb, way, raw = msgspec.json.decode(line, type=_Line)
        place: Any = state.of(TABLES[verb])
        for name in way[:-1]:
            place = getattr(place, name)
        kind: type[msgspec.Struct] = type(place)
        value = _decoders(kind)[way[-1]].decode(raw)
        if isinstance(value, dict):
            getattr(place, way[-1]).update(value)
        elif isinstance(value, list):
            getattr(place, way[-1]).extend(value)
        else:
            setattr(place, way[-1], value)
    return state


def _fields(way: tuple[str, ...], struct: msgspec.Struct) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every field of `struct` that stands at `way`, large ones bit by bit."""
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        here = (*way, name)
        if isinstance(value, Due):
            yield from _fields(here, value)
        elif isinstance(value, dict):
            yield from ((here, dict(some)) for some in batched(value.items(), ROWS))
        elif isinstance(value, list):
            yield from ((here, some) for some in batched(value, ROWS))
        else:
            yield here, value


@cache
def _decoders(struct: type[msgspec.Struct]) -> dict[str, msgspec.json.Decoder[Any]]:
    return {field.name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(struct)}
