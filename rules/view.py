"""A call as one guard of one rule sees it: the `View` of `rules.guard`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from rules.applies import Bindings, Naming, Reading
from rules.canonical import frame
from rules.fields import Field, Value
from rules.fingerprint import OPERATIONS, WHO, fingerprint, named_values
from rules.upstream_key import SentKey

_IN_FORCE, _MONITORED = frame(b"enforce"), frame(b"monitor")

REMEMBERED = 1_000
SHORT_BYTES = 200
"""Many calls have an entry in common, such as the one of a counter for all: the keys of so many with parts no longer
than that together are remembered."""


def _key(start: bytes, space: bytes, parts: tuple[bytes, ...]) -> str:
    return sha256(start + space + frame(*parts)).hexdigest()[:32]


_remembered = lru_cache(REMEMBERED)(_key)


class CallView:
    """A call as one guard of one rule sees it (`rules.guard.View`)."""

    __slots__ = (
        "_bindings", "_monitored", "_naming", "_reading", "call", "call_id", "not_before_ns", "own", "polling",
        "retried", "retry_of", "tool", "upstream_key", "writes",
    )  # fmt: skip

    def __init__(
        self, reading: Reading, naming: Naming, call_id: str, bindings: Bindings, monitored: bool, own: list[str]
    ) -> None:
        self._reading = reading
        self._bindings = bindings
        self._monitored = monitored
        self._naming = naming
        self.call = reading.call
        self.call_id = call_id
        self.tool = naming.name
        self.writes = naming.writes
        self.upstream_key = naming.tool.upstream_key if naming.tool is not None else None
        self.polling = naming.tool is not None and naming.tool.polling
        self.not_before_ns = 0
        self.retried: SentKey | None = None
        self.retry_of = ""
        self.own = own

    @property
    def credential(self) -> str:
        return self._naming.tool.credential if self._naming.tool is not None else ""

    @property
    def telling(self) -> tuple[str, ...]:
        return (*OPERATIONS, *self._reading.telling())

    def read(self, field: Field) -> Value:
        return self._reading.read(field, self._bindings)

    def fingerprint(
        self, by: tuple[Field, ...], key: Sequence[tuple[str, Value]] | None = None, ignore: tuple[Field, ...] = ()
    ) -> str:
        where = self.upstream_key
        if where is not None and where.place != "header":
            ignore += (where.field,)  # a client draws a new one for each try
        known = self._reading.fingerprints.get((by, ignore)) if key is None else None
        if known is not None:
            return known
        who = [(field.text, self.read(field)) for field in by]
        made = fingerprint(self.call, who, key, ignore, self._reading.telling())
        if key is None and (by is WHO or not any(field.place == "path" for field in by)):  # differs from rule to rule
            self._reading.fingerprints[by, ignore] = made
        return made

    def note(self, name: str, value: str) -> None:
        self._reading.facts[name] = value

    def key(self, space: bytes, *parts: bytes) -> str:
        made = _remembered if sum(map(len, parts)) <= SHORT_BYTES else _key
        return made(_MONITORED if self._monitored else _IN_FORCE, space, parts)

    def counter(self, space: bytes, by: tuple[Field, ...]) -> str:
        return self.key(space, named_values([(field.text, self.read(field)) for field in by]) if by else b"")
