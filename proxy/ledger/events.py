"""Events: what is on record besides calls. Proxies began and stopped, rules came into force, people commanded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from proxy.ledger.entries import BootEntry, CommandEntry, PruneEntry, RulesetEntry
from proxy.ledger.rows import entry_of

WITHIN = "call_seq IS NULL AND seq >= :low AND seq <= :high AND at_ns >= :since_ns AND at_ns < :until_ns"
EVENTS = f"""
    SELECT * FROM entries WHERE kind IN ('boot', 'ruleset', 'command', 'prune') AND {WITHIN}
    ORDER BY seq DESC LIMIT :limit
"""
UNRECORDED = f"""
    SELECT coalesce(sum(rest ->> '$.data.calls'), 0) FROM entries
    WHERE kind = 'command' AND {WITHIN} AND rest ->> '$.name' = 'unrecorded'
"""


class Event(msgspec.Struct, frozen=True):
    """One event. `name`: `boot`, `ruleset`, `prune`, or which command it was. `by`: who did it, where that is known."""

    seq: int
    at_ns: int
    name: str
    by: str
    data: dict[str, Any]


class Span(msgspec.Struct, frozen=True):
    """Entries with a seq from `low` to `high`, from `since_ns` on and before `until_ns`."""

    low: int
    high: int
    since_ns: int
    until_ns: int


def events(connection: Connection, span: Span, limit: int) -> tuple[Event, ...]:
    """The newest `limit` events of `span`, newest first."""
    values = {**msgspec.structs.asdict(span), "limit": limit}
    return tuple(_event(tuple(row)) for row in connection.execute(text(EVENTS), values))


def unrecorded(connection: Connection, span: Span, wanted: Mapping[str, str]) -> int:
    """How many calls went out without a record, as was recorded in `span`. `wanted`: agent, run, tool or host of them.

    Of some it is not told what they were: they are counted where nothing is wanted.
    """
    terms = [f"rest ->> '$.data.{name}' = :{name}" for name in sorted(wanted)]
    found = connection.execute(text(" AND ".join([UNRECORDED, *terms])), {**msgspec.structs.asdict(span), **wanted})
    count: int = found.scalar_one()
    return count


def _event(row: Any) -> Event:
    entry = entry_of(row)
    if isinstance(entry, CommandEntry):
        return Event(row[0], entry.at_ns, entry.name, entry.by, entry.data)
    assert isinstance(entry, BootEntry | RulesetEntry | PruneEntry)
    data = msgspec.structs.asdict(entry)
    name = {BootEntry: "boot", RulesetEntry: "ruleset", PruneEntry: "prune"}[type(entry)]
    return Event(row[0], data.pop("at_ns"), name, data.pop("by", ""), data)
