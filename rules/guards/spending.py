"""What budgets remember: what calls hold while they are on their way, and what they have spent.

A call that is let out holds an estimate. In the end that becomes what was spent (`spend`), is free again because
nothing was executed (`release`), or stays held because nobody knows (`unknown`). An unknown amount counts as if it had
been spent when its call ended, and is forgotten when that would be; until then a person can say that it was not.

What was spent counts from the end of its call on, and was held before: so whenever within its call the effect took
place, no period holds more than the limit.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from decimal import Decimal
from operator import attrgetter
from typing import Any, ClassVar, cast

import msgspec

from rules.amounts import ZERO, add, subtract, total, written
from rules.decision import Change
from rules.state import Due, SetBack
from rules.units import SECOND_NS

EXACT = 1000
"""Up to this many amounts are kept one by one; of more, those of the same thousandth of the period become one."""

IN_DOUBT = 1000
"""So many calls of unknown outcome are kept one by one; of the oldest beyond, nobody can say any more."""


class Hold(msgspec.Struct, gc=False):
    """What one call holds. `calls`: it, and before it those of the same effect whose outcome was unknown.

    `at_ns`: when it was let out; with `unknown`, when it ended.
    """

    calls: list[str]
    amount: Decimal
    at_ns: int
    unknown: bool = False

    def counts(self, since_ns: int) -> bool:
        """Is its call on its way, or did it end from `since_ns` on?"""
        return not self.unknown or self.at_ns >= since_ns


class Spent(msgspec.Struct, order=True, gc=False):
    """An amount that was spent at a moment."""

    at_ns: int
    amount: Decimal


_when = attrgetter("at_ns")


class Told(msgspec.Struct, frozen=True):
    """What people are told of a counter: its rule as that was last used, and whose it is."""

    rule: str
    who: str
    limit: Decimal
    unit: str
    per: str


class Row(msgspec.Struct):
    """One counter. `holds` are found by the latest of their calls; `sum` is of all that is in `spent`, by time.

    `keep_ns`: an amount can count for so long. `until_ns`: then all that is spent or unknown counts no more.
    `ends_ns`: when the calendar's period ends, 0 where it rolls. `warned_ns`: until then nobody has to be told again
    that the budget runs low.
    """

    told: Told
    keep_ns: int
    ends_ns: int = 0
    until_ns: int = 0
    since_ns: int = 0
    warned_ns: int = 0
    spent: list[Spent] = []
    holds: dict[str, Hold] = {}
    sum: Decimal = ZERO

    def spent_since(self, since_ns: int) -> Decimal:
        """What was spent from `since_ns` on."""
        spent = self.sum
        for entry in self.spent:
            if entry.at_ns >= since_ns:
                break
            spent = subtract(spent, entry.amount)
        return spent

    def held_since(self, since_ns: int) -> Decimal:
        """What is held by calls on their way, and by those of unknown outcome that ended from `since_ns` on."""
        return total([hold.amount for hold in self.holds.values() if hold.counts(since_ns)])

    def holding(self, call_id: str, since_ns: int = 0) -> Hold | None:
        """What is held for the effect that `call_id` was to have, if it counts from `since_ns` on."""
        found = (hold for hold in self.holds.values() if call_id in hold.calls)
        return next((hold for hold in found if hold.counts(since_ns)), None)

    def freed_at_ns(self, since_ns: int, wanted: Decimal) -> int:
        """The moment of the entry with which at least `wanted` of what counts since `since_ns` will be free again.

        0 when that depends on calls that are on their way.
        """
        known = [(entry.at_ns, entry.amount) for entry in self.spent]
        known += [(hold.at_ns, hold.amount) for hold in self.holds.values() if hold.unknown]
        for at_ns, amount in sorted(each for each in known if each[0] >= since_ns):
            wanted = subtract(wanted, amount)
            if wanted <= 0:
                return at_ns
        return 0

    def book(self, at_ns: int, amount: Decimal) -> None:
        """`amount` was spent at `at_ns`."""
        if amount > 0:
            insort(self.spent, Spent(at_ns, amount))
            self.sum = add(self.sum, amount)
        if len(self.spent) > 2 * EXACT:
            self.spent = _in_slices(self.spent, max(self.keep_ns // EXACT, 1))

    def forget(self, since_ns: int) -> None:
        """Drop what counts no more."""
        self.since_ns = since_ns
        self.sum = self.spent_since(since_ns)
        del self.spent[: bisect_left(self.spent, since_ns, key=_when)]
        for call_id in [one for one, hold in self.holds.items() if hold.unknown and hold.at_ns < since_ns]:
            del self.holds[call_id]


class Fullness(msgspec.Struct, frozen=True):
    """How much of one budget is used: `spent`, and `held` by calls that are on their way or of unknown outcome.

    `who`: whose it is, empty for a budget of all. `resets_ns`: when the first of what is used is free again, or all of
    it where the period is one of the calendar; 0 when that depends on calls that are on their way.
    """

    rule: str
    who: str
    per: str
    unit: str
    limit: Decimal
    spent: Decimal
    held: Decimal
    resets_ns: int

    @property
    def used(self) -> Decimal:
        """What is spent and held."""
        return add(self.spent, self.held)


def _counts_until_ns(row: Row, now_ns: int) -> int:
    """Until when `row` counts at least: while a call that holds something is on its way, nobody knows yet."""
    if row.until_ns <= now_ns and any(not hold.unknown for hold in row.holds.values()):
        return now_ns + 60 * SECOND_NS
    return row.until_ns


def _fullness(row: Row, now_ns: int) -> Fullness:
    since_ns = now_ns - row.keep_ns + 1
    if row.ends_ns:
        since_ns = row.since_ns if now_ns < row.ends_ns else row.ends_ns
    spent, held = row.spent_since(since_ns), row.held_since(since_ns)
    first_ns = row.freed_at_ns(since_ns, ZERO)
    resets_ns = (row.ends_ns or first_ns + row.keep_ns) if first_ns else 0
    told = row.told
    return Fullness(told.rule, told.who, told.per, told.unit, told.limit, spent, held, max(resets_ns, 0))


def _in_slices(spent: list[Spent], width_ns: int) -> list[Spent]:
    """`spent` with the amounts of each slice of time put together at the latest of their moments: none counts less."""
    kept: list[Spent] = []
    for entry in spent:
        if kept and kept[-1].at_ns // width_ns == entry.at_ns // width_ns:
            entry = Spent(entry.at_ns, add(kept.pop().amount, entry.amount))
        kept.append(entry)
    return kept


class Budgets(msgspec.Struct):
    """All counters by key. One that counts nothing any more is forgotten."""

    verb: ClassVar[str] = "budget"

    rows: dict[str, Row] = {}
    due: Due = msgspec.field(default_factory=Due)

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        row = self.rows.get(change.key)
        if change.op == "hold":
            told = Told(change.rule, data["who"], Decimal(data["limit"]), data["unit"], data["per"])
            if row is None:
                row = self.rows[change.key] = Row(told, data["keep_ns"])
                self.due.add(data["at_ns"] + data["keep_ns"], change.key)
            row.told, row.keep_ns, row.ends_ns, row.warned_ns = (
                told,
                data["keep_ns"],
                data["ends_ns"],
                data["warned_ns"],
            )
            row.forget(data["since_ns"])
            earlier = row.holding(data["retry_of"]) if data["retry_of"] else None
            if earlier is not None:
                del row.holds[earlier.calls[-1]]
            calls = [*(earlier.calls if earlier is not None else ()), data["call"]]
            row.holds[data["call"]] = Hold(calls, Decimal(data["amount"]), data["at_ns"])
        elif row is not None and data["call"] in row.holds:
            row.until_ns = max(row.until_ns, data["at_ns"] + row.keep_ns)
            if change.op == "unknown":
                _doubt(row, row.holds[data["call"]], data["at_ns"])
            else:
                del row.holds[data["call"]]
                if change.op == "spend":
                    row.book(data["spent_ns"], Decimal(data["amount"]))
        self.due.forget(self.rows, data["at_ns"], lambda row: _counts_until_ns(row, data["at_ns"]))

    def set_back(self, clock: SetBack) -> None:
        for row in self.rows.values():
            row.until_ns, row.since_ns = clock.moved(row.until_ns), clock.moved(row.since_ns)
            row.ends_ns, row.warned_ns = clock.moved(row.ends_ns), clock.moved(row.warned_ns)
            row.spent = [Spent(clock.moved(entry.at_ns), entry.amount) for entry in row.spent]
            for hold in row.holds.values():
                hold.at_ns = clock.moved(hold.at_ns)
        self.due.set_back(clock)

    def fullest(self, now_ns: int, most: int) -> tuple[Fullness, ...]:
        """At most so many of the budgets of which anything is used, the fullest first."""
        found = [_fullness(row, now_ns) for row in self.rows.values()]
        used = [each for each in found if each.used > 0]
        return tuple(sorted(used, key=lambda each: (-each.used / each.limit, each.rule, each.who))[:most])

    def abandoned(self, now_ns: int) -> tuple[Change, ...]:
        """The calls that were on their way when their proxy ended: whether they have spent anything is unknown."""
        return tuple(
            Change(self.verb, row.told.rule, key, "unknown", {"at_ns": now_ns, "call": hold.calls[-1]})
            for key, row in self.rows.items()
            for hold in row.holds.values()
            if not hold.unknown
        )

    def resolved(self, call_id: str, executed: bool, now_ns: int) -> tuple[Change, ...]:
        """A person has found out whether `call_id` has spent what it holds since its outcome is unknown."""
        changes: list[Change] = []
        for key, row in self.rows.items():
            hold = row.holding(call_id)
            if hold is None or not hold.unknown or hold.at_ns + row.keep_ns <= now_ns:
                continue
            data: dict[str, Any] = {"at_ns": now_ns, "call": hold.calls[-1]}
            if executed:
                data |= {"amount": written(hold.amount), "spent_ns": hold.at_ns}
            changes.append(Change(self.verb, row.told.rule, key, "spend" if executed else "release", data))
        return tuple(changes)

    def told(self, change: Change) -> tuple[str, ...]:
        """What ends the doubt about an amount ends it for every attempt at the same effect."""
        row = self.rows.get(change.key)
        hold = row.holds.get(str(change.data["call"])) if row is not None else None
        if hold is None or change.op not in ("spend", "release"):
            return ()
        return tuple(hold.calls) if hold.unknown else tuple(hold.calls[:-1])


def _doubt(row: Row, hold: Hold, at_ns: int) -> None:
    """Nobody knows what `hold` has spent. Beyond `IN_DOUBT` the oldest is taken for spent: it counts all the same."""
    hold.unknown, hold.at_ns = True, at_ns
    doubtful = [one for one in row.holds.values() if one.unknown]
    if len(doubtful) > IN_DOUBT:
        oldest = min(doubtful, key=lambda one: one.at_ns)
        del row.holds[oldest.calls[-1]]
        row.book(oldest.at_ns, oldest.amount)
