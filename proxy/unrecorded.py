"""Counts the calls that were let out without a record, because a rule says so, until they can be put on record.

One entry of kind `command` for each kind of call: how many there were, from when to when, and what follows from them.
What an entry tells is remembered until that is on the disk: a ledger that has failed once may fail again.
"""

from __future__ import annotations

import msgspec

from proxy.ledger.entries import CommandEntry
from rules.call import Call
from rules.decision import Change, Decision, Plain

MAX_GROUPS = 1_000
"""Of so many kinds of calls it is told apart what they were; the others are counted together."""

type Group = tuple[str, str, str, str, str, str, tuple[str, ...]]
"""Agent, run, tool, method, scheme, host and rules; all empty for the others."""

OTHERS: Group = ("", "", "", "", "", "", ())


class _Seen(msgspec.Struct):
    calls: int
    first_ns: int
    last_ns: int
    changes: list[Change] = []


class Unrecorded:
    """`total` counts all of them, `owed` those that are not on record yet."""

    def __init__(self) -> None:
        self.total = 0
        self.owed = 0
        self._groups: dict[Group, _Seen] = {}
        self._told: list[tuple[int, Group, _Seen]] = []

    def add(self, call: Call, decision: Decision, at_ns: int) -> None:
        """`call` is let out at `at_ns` without a record."""
        group: Group = (call.agent, call.run, decision.tool, call.method, call.scheme, call.host, decision.rules)
        if group not in self._groups and len(self._groups) >= MAX_GROUPS:
            group = OTHERS
        seen = self._groups.setdefault(group, _Seen(0, at_ns, at_ns))
        seen.calls += 1
        seen.last_ns = at_ns
        seen.changes += decision.changes
        self.total += 1
        self.owed += 1

    def told(self, seq: int) -> None:
        """What `next` gave last was appended as entry `seq`."""
        group = next(iter(self._groups))
        seen = self._groups.pop(group)
        self.owed -= seen.calls
        self._told.append((seq, group, seen))

    def durable(self, seq: int) -> None:
        """Everything up to entry `seq` is on the disk."""
        self._told = [each for each in self._told if each[0] > seq]

    def lost(self) -> None:
        """Nothing else has reached the disk, nor will it: it has to be told again."""
        for _, group, seen in self._told:
            self.owed += seen.calls
            later = self._groups.get(group)
            if later is not None:
                seen = _Seen(seen.calls + later.calls, seen.first_ns, later.last_ns, [*seen.changes, *later.changes])
            self._groups[group] = seen
        self._told.clear()

    def next(self, at_ns: int, by: str) -> CommandEntry | None:
        """An entry for one kind of calls that are not on record yet; None when there are none."""
        if not self._groups:
            return None
        group, seen = next(iter(self._groups.items()))
        agent, run, tool, method, scheme, host, rules = group
        data: dict[str, Plain] = {
            "calls": seen.calls,
            "first_ns": seen.first_ns,
            "last_ns": seen.last_ns,
            "agent": agent,
            "run": run,
            "tool": tool,
            "method": method,
            "scheme": scheme,
            "host": host,
            "rules": list(rules),
        }
        return CommandEntry(at_ns, "unrecorded", by, data, tuple(seen.changes))
