"""A call as one guard of one rule sees it: the `View` of `rules.guard`."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from rules.applies import Bindings, Naming, Reading
from rules.canonical import frame
from rules.fields import Field, Value
from rules.fingerprint import fingerprint
from rules.upstream_key import SentKey

_IN_FORCE, _MONITORED = frame(b"enforce"), frame(b"monitor")


class CallView:
    """A call as one guard of one rule sees it (`rules.guard.View`)."""

    __slots__ = (
        "_bindings", "_monitored", "_reading", "call", "call_id", "not_before_ns", "own", "polling", "retried",
        "retry_of", "tool", "upstream_key", "writes",
    )  # fmt: skip

    def __init__(
        self, reading: Reading, naming: Naming, call_id: str, bindings: Bindings, monitored: bool, own: list[str]
    ) -> None:
        self._reading = reading
        self._bindings = bindings
        self._monitored = monitored
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
        made = fingerprint(self.call, who, key, ignore)
        if key is None and not any(field.place == "path" for field in by):  # that differs from rule to rule
            self._reading.fingerprints[by, ignore] = made
        return made

    def note(self, name: str, value: str) -> None:
        self._reading.facts[name] = value

    def key(self, space: bytes, *parts: bytes) -> str:
        return sha256((_MONITORED if self._monitored else _IN_FORCE) + space + frame(*parts)).hexdigest()[:32]
