"""Counts equal refusals, so that an agent in a loop cannot fill the disk: many become one entry that says how many.

Every agent has `LIMIT` refusals a minute recorded one by one. Beyond that, equal ones (all but time, id and facts) are
held back and come out as one entry when the minute is over. Pure: time comes in, entries come out, in order.
"""

from __future__ import annotations

import msgspec

from proxy.ledger.entries import DecisionEntry

LIMIT = 100
WINDOW_NS = 60_000_000_000
MAX_GROUPS = 1_000
"""Groups held back per agent and minute; a refusal that would begin another one is recorded by itself."""


class _Minute:
    """What one agent was refused since `start_ns`."""

    def __init__(self, start_ns: int) -> None:
        self.start_ns = start_ns
        self.recorded = 0
        self.held: dict[object, DecisionEntry] = {}


class Tally:
    """Holds back equal refusals of the last minute. `flush` gives them out; also call it before the end."""

    def __init__(self, limit: int = LIMIT, window_ns: int = WINDOW_NS) -> None:
        self._limit = limit
        self._window_ns = window_ns
        self._minutes: dict[str, _Minute] = {}

    def offer(self, entry: DecisionEntry) -> tuple[DecisionEntry, ...]:
        """The entries to append now that `entry` was decided: what is over a minute old, and `entry` unless it is held.

        Only what changes nothing is held back: a refusal without changes that speaks of no other call.
        """
        due = self.flush(entry.at_ns)
        if entry.action not in ("deny", "throttle", "hold") or entry.changes or entry.replay_of:
            return (*due, entry)
        minute = self._minutes.get(entry.agent)
        if minute is None:
            minute = self._minutes[entry.agent] = _Minute(entry.at_ns)
        if minute.recorded < self._limit:
            minute.recorded += 1
            return (*due, entry)
        key = _key(entry)
        held = minute.held.get(key)
        if held is None and len(minute.held) >= MAX_GROUPS:
            return (*due, entry)
        count = entry.count if held is None else held.count + entry.count
        minute.held[key] = msgspec.structs.replace(held or entry, count=count)
        return due

    def flush(self, now_ns: int, *, everything: bool = False) -> tuple[DecisionEntry, ...]:
        """The held entries of minutes that are over at `now_ns` (or of all), each dated `now_ns`."""
        over = [
            agent
            for agent, minute in self._minutes.items()
            if everything or now_ns - minute.start_ns >= self._window_ns
        ]
        return tuple(
            msgspec.structs.replace(entry, at_ns=now_ns)
            for agent in over
            for entry in self._minutes.pop(agent).held.values()
        )


def _key(entry: DecisionEntry) -> object:
    """What makes two refusals equal: all that they say but when, of which call, and with which values."""
    return (
        entry.run,
        entry.tool,
        entry.method,
        entry.scheme,
        entry.host,
        entry.port,
        entry.path,
        entry.action,
        entry.code,
        entry.rules,
        entry.executed,
        entry.status,
        entry.ruleset,
    )
