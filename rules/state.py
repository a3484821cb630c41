"""The state that decisions read: claims, windows, cool-downs. It is a fold over the changes, in the ledger's order.

The shell owns one `State`; `rules.decide.apply` folds every change into it once, in the order of the ledger. Nothing
else writes to it, so the same changes make the same state, now or after a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, ClassVar, Protocol, cast

import msgspec

from rules.decision import Change

CLOCK = "clock"
"""What stands as the guard in a change of the clock itself: it is about every table."""


class SetBack(msgspec.Struct, frozen=True):
    """The clock had run ahead to `from_ns`, and a person has accepted that it is only `to_ns`."""

    from_ns: int
    to_ns: int

    def moved(self, at_ns: int) -> int:
        """Where the moment `at_ns` stands now.

        What is past at `to_ns` stays. What lies between the two is past too, and nobody knows how long: it counts as
        just now. What is to come stays as far away as it was. So the order of moments stays, nothing becomes older than
        it was taken to be, and nothing lies farther ahead: no quota is freed, and none is blocked for longer.
        """
        return max(min(at_ns, self.to_ns), at_ns - (self.from_ns - self.to_ns))

    def change(self) -> Change:
        """As it is recorded."""
        return Change(CLOCK, "", "", "set-back", {"at_ns": self.to_ns, "from_ns": self.from_ns})

    @classmethod
    def told(cls, change: Change) -> SetBack:
        """What `change`, whose guard is `CLOCK`, says."""
        data = cast(dict[str, int], change.data)
        return cls(data["from_ns"], data["at_ns"])


class Table(Protocol):
    """What one guard remembers: a `msgspec.Struct` whose fields are plain data, equal when their contents are.

    They can be written as JSON and read back (`rules.kept`): structs of which a field takes several are tagged.
    """

    verb: ClassVar[str]

    def apply(self, change: Change) -> None:
        """Fold one change. Total over every change that any version of the guard has written."""

    def set_back(self, clock: SetBack) -> None:
        """Put every moment in the table where it stands now (`clock.moved`): when something was, and until when."""


class Holding(Table, Protocol):
    """A table of what calls hold while they are on their way, and go on holding while their outcome is unknown.

    The changes that it makes here say in `data["call"]` which call they are about.
    """

    def abandoned(self, now_ns: int) -> tuple[Change, ...]:
        """The proxy of all calls that are on their way has ended: their outcome is unknown."""

    def resolved(self, call_id: str, executed: bool, now_ns: int) -> tuple[Change, ...]:
        """A person has found out what became of `call_id`. Nothing when this call holds nothing in doubt (any more)."""

    def told(self, change: Change) -> tuple[str, ...]:
        """The calls whose outcome was unknown and is told by `change` of this table, which is not applied yet."""


class Asking(Table, Protocol):
    """A table of questions to people, each of which calls wait for."""

    def said(self, question: str, allowed: bool, reason: str, now_ns: int) -> tuple[Change, ...]:
        """A person's answer to the question of this id. Nothing when it is not open (any more)."""

    def deserted(self, key: str, now_ns: int) -> tuple[Change, ...]:
        """The last call that waited for the entry `key` has lost its client."""


class State:
    """One table for each guard verb, made on first use."""

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}

    def of[T: Table](self, kind: type[T]) -> T:
        """The table of class `kind`."""
        try:
            found: T = self.tables[kind.verb]
        except KeyError:
            found = self.tables[kind.verb] = kind()
        return found

    def set_back(self, clock: SetBack) -> None:
        """Put the moments of all tables where they stand now."""
        for table in self.tables.values():
            table.set_back(clock)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self._told() == other._told()

    def _told(self) -> dict[str, Table]:
        """The tables that hold anything: having looked into one makes no difference."""
        return {verb: table for verb, table in self.tables.items() if table != type(table)()}

    __hash__ = None  # type: ignore[assignment]  # mutable


class Due(msgspec.Struct):
    """When the entries of a table can be forgotten. Driven by the times that changes carry, never by a clock.

    `heap` holds (time, key) and may lag behind: what comes up is asked again. Each change forgets at most a few.
    """

    heap: list[tuple[int, str]] = []

    def add(self, due_ns: int, key: str) -> None:
        """Ask about `key` at `due_ns`."""
        heappush(self.heap, (due_ns, key))

    def pop(self, now_ns: int) -> str | None:
        """A key whose time has come, or None."""
        if self.heap and self.heap[0][0] <= now_ns:
            return heappop(self.heap)[1]
        return None

    def forget[Row](self, rows: dict[str, Row], now_ns: int, due_ns: Callable[[Row], int]) -> None:
        """Drop up to two of `rows` whose time has come: as many as one change can make, and one more.

        `due_ns`: until when a row counts; one that lives on is asked again then.
        """
        for _ in range(2):
            key = self.pop(now_ns)
            row = None if key is None else rows.get(key)
            if key is None or row is None:
                continue
            due = due_ns(row)
            if due > now_ns:
                self.add(due, key)
            else:
                del rows[key]

    def set_back(self, clock: SetBack) -> None:
        """Ask when the moved moments come."""
        self.rebuild([(clock.moved(due_ns), key) for due_ns, key in self.heap])

    def rebuild(self, entries: list[tuple[int, str]]) -> None:
        """Start again from `entries`: called when most of the heap speaks of entries that are gone."""
        heapify(entries)
        self.heap = entries
