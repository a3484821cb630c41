"""The durable entries of a ledger, one after the other: for whoever folds them. Reads only, also while one writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine

from proxy.ledger import schema
from proxy.ledger.entries import Entry
from proxy.ledger.query import reading
from proxy.ledger.rows import entry_of

PAGE = 1_000

WHOLE = """
    SELECT e.*, p.content FROM entries e LEFT JOIN payloads p ON p.seq = e.seq WHERE e.seq > ? ORDER BY e.seq LIMIT ?
"""
BARE = "SELECT *, NULL FROM entries WHERE seq > ? ORDER BY seq LIMIT ?"
LAST = "SELECT max(seq) FROM entries"
HASH = "SELECT hash FROM entries WHERE seq = ?"


class History:
    """The ledger at `path`, which `engine` reads. Everything here raises `LedgerError` when it cannot be read."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._engine = engine

    def entries(self, after: int = 0, *, payloads: bool = True) -> Iterator[tuple[int, Entry]]:
        """Every entry after number `after`, with its own. Without `payloads`, the values that decisions were made of
        are left out: nothing is folded from them."""
        with reading(self._engine, self.path) as connection:
            while rows := connection.exec_driver_sql(WHOLE if payloads else BARE, (after, PAGE)).all():
                for row in rows:
                    yield row[0], entry_of(row[:-1], row[-1])
                after = rows[-1][0]

    def last(self) -> int:
        """The number of the last entry; 0 when there is none."""
        with reading(self._engine, self.path) as connection:
            return connection.exec_driver_sql(LAST).scalar() or 0

    def hash_of(self, seq: int) -> bytes:
        """The hash of entry `seq`; empty when there is none."""
        with reading(self._engine, self.path) as connection:
            return connection.exec_driver_sql(HASH, (seq,)).scalar() or b""

    def origin(self) -> str:
        """The ledger's name."""
        with reading(self._engine, self.path) as connection:
            return schema.origin_of(connection)
