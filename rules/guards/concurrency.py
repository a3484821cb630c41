"""concurrency: no more than so many calls on their way at the same time.

A call takes a lease when it is let out and gives it back when it ends, however it ends: answered, refused, broken off,
withdrawn before it was sent, or abandoned by a proxy that died. `wait: 5s` gives a call that finds no lease free the
next one, if it comes soon enough; leases go in the order of asking.

What is refused takes nothing. Each lease is one call's: giving it back twice frees one.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, cast

import msgspec

from rules.call import Call
from rules.canonical import frame
from rules.decision import Change
from rules.fields import Field
from rules.guard import Pass, Refuse, Settled, Verdict, View, Wait
from rules.guards.reading import DURATION_SCHEMA, FIELD_LIST_SCHEMA, read_duration, read_fields, read_map, shown
from rules.state import SetBack, State
from rules.units import SECOND_NS
from rules.yamltree import Node

WAITING = 50
"""So many calls may wait for a lease behind one counter."""

RETRY_NS = 2 * SECOND_NS
"""After what time a call that found no lease is told to come again: nobody knows when one will be free."""

MOST = 1_000_000


class Leases(msgspec.Struct):
    """Who is on its way, by counter: the calls that hold a lease, and since when (ns)."""

    verb: ClassVar[str] = "concurrency"

    rows: dict[str, dict[str, int]] = {}

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        row = self.rows.get(change.key, {})
        if change.op == "take":
            row[data["call"]] = data["at_ns"]
            self.rows[change.key] = row
        elif row.pop(data["call"], None) is not None and not row:
            del self.rows[change.key]

    def set_back(self, clock: SetBack) -> None:
        for row in self.rows.values():
            row.update({call: clock.moved(at_ns) for call, at_ns in row.items()})

    def abandoned(self, now_ns: int) -> tuple[Change, ...]:
        """Nothing of a dead proxy is on its way any more, whatever became of it."""
        return tuple(
            Change(self.verb, "", key, "release", {"at_ns": now_ns, "call": call})
            for key, row in self.rows.items()
            for call in row
        )

    def resolved(self, call_id: str, executed: bool, now_ns: int) -> tuple[Change, ...]:
        """A call whose outcome is unknown has given its lease back."""
        return ()

    def told(self, change: Change) -> tuple[str, ...]:
        """A lease that is given back tells nothing of what became of its call."""
        return ()


class Concurrency(msgspec.Struct, frozen=True, dict=True):
    """The guard: at most `most` calls per key made of the fields `by`; a call waits for a lease up to `wait_ns`."""

    verb: ClassVar[str] = "concurrency"
    stage: ClassVar[int] = 8
    SCHEMA: ClassVar[dict[str, Any]] = {
        "description": "At most so many calls on their way at the same time, such as 2. Short for {max: 2}.",
        "oneOf": [
            {"type": "integer", "minimum": 1, "maximum": MOST},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "max": {
                        "description": "Never more than so many at the same time.",
                        "type": "integer",
                        "minimum": 1,
                        "maximum": MOST,
                    },
                    "by": {
                        **FIELD_LIST_SCHEMA,
                        "description": "A counter for each value of these. Default: one for all.",
                    },
                    "wait": {
                        "description": "How long a call may wait for another to end before it is refused. Default: 0.",
                        "oneOf": [DURATION_SCHEMA, {"const": 0}],
                    },
                },
                "required": ["max"],
            },
        ],
    }

    rule: str
    most: int
    by: tuple[Field, ...] = ()
    wait_ns: int = 0

    @classmethod
    def parse(cls, node: Node, rule_id: str) -> Concurrency:
        """`2`, or the long form."""
        if node.kind != "map":
            return cls(rule_id, _read_most(node))
        entries = read_map(node, "concurrency", ("max", "by", "wait"))
        if "max" not in entries:
            node.fail("concurrency", "`concurrency` has no `max`", "write `max: 2`, or just `concurrency: 2`")
        wait_ns = 0
        if "wait" in entries and entries["wait"].scalar not in (0, "0s"):
            wait_ns = read_duration(entries["wait"], "wait")
        by = read_fields(entries["by"], "by") if "by" in entries else ()
        return cls(rule_id, _read_most(entries["max"]), by, wait_ns)

    def needs_body(self, call: Call, writes: bool) -> bool:
        return any(field.needs_body for field in self.by)

    def claims(self, method: str, writes: bool) -> bool:
        return False

    def needs_answer(self, messages: bool) -> bool:
        return False

    @cached_property
    def _space(self) -> bytes:
        return frame(b"concurrency", frame(self.rule.encode()))

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        key = view.counter(self._space, self.by)
        if len(state.of(Leases).rows.get(key, ())) >= self.most:
            return Wait(key, self.wait_ns, self._refuse(), WAITING) if self.wait_ns else self._refuse()
        data: dict[str, Any] = {"at_ns": now_ns, "call": view.call_id}
        return Pass((Change(self.verb, self.rule, key, "take", data),))

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        data: dict[str, Any] = {"at_ns": now_ns, "call": settled.call_id}
        return tuple(Change(self.verb, self.rule, taken.key, "release", data) for taken in settled.claimed)

    def _refuse(self) -> Refuse:
        calls = "1 call of this kind is" if self.most == 1 else f"{self.most} calls of this kind are"
        return Refuse(
            "concurrency",
            f"{calls} on the way already, and no more may be at the same time. Nothing was executed.",
            limit=f"{self.most} at the same time",
            retry_after_ns=RETRY_NS,
            next=("Wait until one of them has ended, then repeat the call.",),
        )


def _read_most(node: Node) -> int:
    if type(node.scalar) is not int or not 0 < node.scalar <= MOST:
        mend = "write how many calls may be on their way at once, such as `2`, without quotes"
        if node.scalar is False:
            mend = "remove it: nothing is on by default"
        node.fail("concurrency", f"{shown(node)} is no number of calls", mend)
    return node.scalar
