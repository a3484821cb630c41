"""Forms: what bracket names spell. `a[b][c]=1` is an object in an object, `a[]` and `a[0]` are lists.

Servers differ in how they read the odd ones, so nothing is guessed: a name that stands twice, `a` beside `a[b]`, `a[]`
beside `a[b]`, `a[][b]`, brackets that do not close, names nested too deep. Their place holds an `Either`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

DEPTH = 8
"""Names of form fields may nest this deep (`a[b][c]` is three); what deeper ones mean is left open."""


class Either(msgspec.Struct, frozen=True):
    """In a decoded form: readings of one place that exclude each other."""

    readings: tuple[object, ...]


class Indexed(dict[str, object]):
    """In a decoded form: `a[0]`, `a[1]`. A list for `[]`, an object for a field that names a member `0`."""


class _Slot(msgspec.Struct):
    """One place of a form while it is decoded. `odd`: values whose names go on in a way that can not be read."""

    values: list[object] = []
    members: dict[str, _Slot] = {}
    odd: list[object] = []


_BRACKETS = re.compile(r"(?:\[[^\[\]]*\])*")
_KEY = re.compile(r"\[([^\[\]]*)\]")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def tree(pairs: Iterable[tuple[str, object]], wanted: str | None) -> dict[str, object]:
    """The object that bracket names spell; with `wanted`, no other member of it than that."""
    root = _Slot()
    for name, value in pairs:
        head = name if name == wanted else name.split("[", 1)[0]
        if wanted not in (None, head):
            continue
        slot = root.members.setdefault(head, _Slot())
        if name != head:
            keys = _KEY.findall(name, len(head))
            if len(keys) >= DEPTH or not _BRACKETS.fullmatch(name, len(head)):
                slot.odd.append(value)
                continue
            for key in keys:
                slot = slot.members.setdefault(key, _Slot())
        slot.values.append(value)
    return {name: _decode(slot) for name, slot in root.members.items()}


def _decode(slot: _Slot) -> object:
    readings = [*slot.values, *slot.odd, *_members(slot.members)]
    return readings[0] if len(readings) == 1 and not slot.odd else Either(tuple(readings))


def _members(slots: dict[str, _Slot]) -> Iterator[object]:
    """The list or object that `slots` are; both where `a[]` stands beside `a[b]`."""
    pushed = slots.get("")
    if pushed:
        if pushed.values:
            yield list(pushed.values)
        if pushed.members:  # `a[][b]=1&a[][c]=2`: one element or two? Servers differ.
            yield Either(([_decode(_Slot(members=pushed.members))],))
    named = {key: _decode(slot) for key, slot in slots.items() if key}
    if named:
        yield Indexed(named) if all(map(_INDEX.fullmatch, named)) else named
