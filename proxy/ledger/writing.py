"""The file of a ledger as its owner writes it: over one connection, one transaction for each batch of entries.

Entries become rows that are chained by their hashes; what is derived from them or stands beside them is written in the
same transaction, and what is to be given up goes bit by bit. Only one thread writes at a time (`proxy.ledger.store`).
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from proxy.ledger import schema
from proxy.ledger.entries import (
    CheckpointEntry,
    CommandEntry,
    DecisionEntry,
    Entry,
    LedgerError,
    OutcomeEntry,
    PruneEntry,
    StoredAnswer,
)
from proxy.ledger.room import Room
from proxy.ledger.rows import COLUMNS, SALT_BYTES, Beside, Row, payload_digest, payload_of, row_of, rules_of
from proxy.ledger.vault import Vault
from rules.state import SetBack

BUSY_S = 10.0
"""How long the writer waits for somebody else who holds the file's lock, before the ledger has failed."""

EXPIRED_A_BATCH = 8
"""How many answers whose time is over a batch deletes, at least: bounded, for some have a mebibyte to overwrite."""

NEVER_NS = 1 << 63

PRUNED_AT_ONCE = 500
"""How many payloads one transaction gives up: calls wait for it."""

COMMANDS_KEPT = 1_000
"""Of so many commands the result can still be read."""

ROWS_A_STATEMENT = 200
INSERT_ENTRIES = f"INSERT INTO entries ({', '.join(COLUMNS)}) VALUES"
INSERT_RULES = "INSERT INTO entry_rules (rule, seq) VALUES"
INSERT_ANSWERS = "INSERT OR REPLACE INTO answers (id, until_ns, sealed) VALUES"
ADD_TO_TOTALS = "INSERT INTO totals (decision, calls) VALUES"
ADD_TO_CODES = "INSERT INTO codes (code, calls) VALUES"
SUMMED = "ON CONFLICT ({}) DO UPDATE SET calls = calls + excluded.calls"
DELETE_ANSWERS = (
    "DELETE FROM answers WHERE id IN (SELECT id FROM answers WHERE until_ns <= ? ORDER BY until_ns LIMIT ?)"
)
MOVE_ANSWERS = "UPDATE answers SET until_ns = max(min(until_ns, ?), until_ns - ?) WHERE until_ns > ?"
INSERT_PAYLOADS = "INSERT INTO payloads (seq, salt, content) VALUES"
DELETE_PAYLOADS = "DELETE FROM payloads WHERE seq IN (SELECT seq FROM payloads WHERE seq <= ? ORDER BY seq LIMIT ?)"
REPLY = "UPDATE commands SET done = ?, result = ? WHERE id = ?"
FORGET_COMMANDS = "DELETE FROM commands WHERE done IS NULL OR id <= (SELECT max(id) FROM commands) - ?"
LAST_CHECKPOINT = "SELECT max(seq) FROM entries WHERE kind = 'checkpoint' AND call_seq IS NULL"
LAST_PRUNED = "SELECT max(rest ->> '$.through') FROM entries WHERE kind = 'prune' AND call_seq IS NULL"
MADE = "SELECT at_ns FROM entries WHERE seq = ?"
FIND_CALL = "SELECT max(seq) FROM entries WHERE id = ? AND decision IS NOT NULL"
FIRST_EXPIRY = "SELECT min(until_ns) FROM answers"

type Item = tuple[int, Entry, StoredAnswer | None]
type Reply = tuple[bool, str, int]
"""What came of a command: whether it was carried out, the result as JSON, and the command's id."""

type SealedAnswer = tuple[str, int, bytes]
"""A kept answer as it is written: of which call, until when (ns), and encrypted."""


class End(msgspec.Struct, frozen=True):
    """Where a ledger ends: the number and the hash of its last entry, and the time of that.

    `sealed_seq`: the last checkpoint; `unsealed_ns`: the time of the first entry behind it, or 0. `pruned_seq`: up to
    this entry payloads are given up.
    """

    seq: int
    head: bytes
    last_ns: int
    sealed_seq: int
    unsealed_ns: int
    pruned_seq: int


class Writing:
    """The file at `path`, open for writing. `end`: where it ended when it was opened.

    `attempted`: number and hash of the last entry of the last transaction that was tried. `prune_through`: payloads up
    to this entry are being given up; 0 for none.
    """

    def __init__(self, path: Path, vault: Vault, room: Room) -> None:
        """Open the file, which is made where there is none. Raises `LedgerError` or `SQLAlchemyError`."""
        self.path = path
        self._vault = vault
        self._room = room
        self._engine = _engine(path)
        try:
            self._connection = self._engine.connect()
            with self._connection.begin():
                schema.prepare(self._connection, path, vault.key_ids)
                self._take_up()
                self._origin = schema.origin_of(self._connection)
                self._connection.exec_driver_sql(FORGET_COMMANDS, (COMMANDS_KEPT,))
        except BaseException:
            self._engine.dispose()
            raise
        self._file = _file(path)
        self.attempted = (self.end.seq, self.head)

    @property
    def in_place(self) -> bool:
        """Whether the file is still where it was opened. SQLite would go on writing to one that was moved away."""
        return _file(self.path) == self._file

    def _take_up(self) -> None:
        """See where the file ends."""
        seq, self.head, last_ns = schema.last_entry(self._connection)
        sealed_seq, pruned_seq = self._number(LAST_CHECKPOINT), self._number(LAST_PRUNED)
        unsealed_ns = self._number(MADE, sealed_seq + 1)
        self.end = End(seq, self.head, last_ns, sealed_seq, unsealed_ns, pruned_seq)
        self.prune_through = pruned_seq  # goes on where an earlier owner was interrupted
        self._expiry_ns = self._next_expiry_ns()
        self._room.used_bytes = self._number(schema.USED)
        self._sent: dict[str, int] = {}

    def reopen(self, durable: tuple[int, bytes]) -> bool:
        """After a failure, open the file anew. `durable`: number and hash of the last entry that is known to be in it.

        False when something else is in it by now. Raises as opening does.
        """
        expected = durable, self.attempted
        self.close()
        self._engine = _engine(self.path)
        self._connection = self._engine.connect()
        with self._connection.begin():
            # A commit that failed may have reached the disk. What else is there, somebody else has written.
            if schema.last_entry(self._connection)[:2] not in expected:
                return False
            self._take_up()
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
        self._engine.dispose()

    def write(self, batch: Sequence[Item], replies: Sequence[Reply], now_ns: int) -> None:
        """One transaction: the entries, chained; what is derived from them or stands beside them; fewer old answers.

        `now_ns`: answers that expire until then may go. Raises whatever keeps it from being written.
        """
        rows: list[Row] = []
        payloads: list[tuple[int, bytes, str]] = []
        rules: list[tuple[str, int]] = []
        answers: list[SealedAnswer] = []
        totals: Counter[str] = Counter()
        codes: Counter[str] = Counter()
        ended: list[str] = []
        head, prune_through = self.head, self.prune_through
        if not self.in_place:
            raise LedgerError("it was moved or removed while in use")
        with self._connection.begin():
            for seq, entry, answer in batch:
                beside, call_seq = None, None
                if answer is not None:
                    sealed = self._vault.seal(answer)
                    answers.append((answer.id, answer.until_ns, sealed))
                    beside = Beside(self._vault.digest(sealed), answer.until_ns)
                if isinstance(entry, DecisionEntry):
                    call_seq = seq
                    if content := payload_of(entry):
                        salt = os.urandom(SALT_BYTES)
                        payloads.append((seq, salt, content))
                        beside = Beside(payload_digest(salt, content))
                    rules.extend((rule, seq) for rule in sorted(rules_of(entry)))
                    totals[entry.action] += entry.count
                    if entry.code:
                        codes[entry.code] += entry.count
                    if entry.action == "allow":
                        self._sent[entry.id] = seq
                elif isinstance(entry, OutcomeEntry):
                    call_seq = self._sent.get(entry.id) or self._find_call(entry.id)
                    ended.append(entry.id)
                elif isinstance(entry, CheckpointEntry):
                    entry = self._sealed(entry, seq - 1, head)
                elif isinstance(entry, PruneEntry):
                    prune_through = entry.through
                elif isinstance(entry, CommandEntry) and entry.set_back is not None:
                    answers = self._set_back(entry.set_back, answers)
                row = row_of(entry, seq, call_seq, head, beside)
                rows.append(row)
                head = row[-1]
            _insert(self._connection, INSERT_ENTRIES, rows)
            _insert(self._connection, INSERT_PAYLOADS, payloads)
            _insert(self._connection, INSERT_RULES, rules)
            _insert(self._connection, ADD_TO_TOTALS, list(totals.items()), SUMMED.format("decision"))
            _insert(self._connection, ADD_TO_CODES, list(codes.items()), SUMMED.format("code"))
            if now_ns >= self._expiry_ns:
                self._connection.exec_driver_sql(DELETE_ANSWERS, (now_ns, max(EXPIRED_A_BATCH, 2 * len(answers))))
                self._expiry_ns = self._next_expiry_ns()
            if answers:
                _insert(self._connection, INSERT_ANSWERS, answers)
                self._expiry_ns = min(self._expiry_ns, *(until_ns for _, until_ns, _ in answers))
            for reply in replies:
                self._connection.exec_driver_sql(REPLY, reply)
            self._measure()
            self.attempted = (batch[-1][0] if batch else self.attempted[0], head)
        self.head, self.prune_through = head, prune_through
        for call_id in ended:
            self._sent.pop(call_id, None)

    def prune_some(self, now_ns: int) -> None:
        """One transaction of giving up payloads up to `prune_through`, and answers that expire until `now_ns`."""
        with self._connection.begin():
            payloads = self._connection.exec_driver_sql(DELETE_PAYLOADS, (self.prune_through, PRUNED_AT_ONCE))
            answers = self._connection.exec_driver_sql(DELETE_ANSWERS, (now_ns, EXPIRED_A_BATCH))
            self._expiry_ns = self._next_expiry_ns()
            self._measure()
        if not payloads.rowcount and not answers.rowcount:
            self.prune_through = 0

    def _set_back(self, back: SetBack, answers: list[SealedAnswer]) -> list[SealedAnswer]:
        """The clock was set back: kept answers expire when their claims do. Returns those not written yet, too."""
        ahead_ns = back.from_ns - back.to_ns
        self._connection.exec_driver_sql(MOVE_ANSWERS, (back.to_ns, ahead_ns, back.to_ns))
        self._expiry_ns = self._next_expiry_ns()
        return [(call_id, back.moved(until_ns), sealed) for call_id, until_ns, sealed in answers]

    def _sealed(self, entry: CheckpointEntry, size: int, root: bytes) -> CheckpointEntry:
        """`entry` with the note that says: `size` entries, the last with hash `root`."""
        signer = self._vault.signer
        assert signer is not None, "only what can sign makes checkpoints"
        key = str(signer.verifier(self._origin))
        return msgspec.structs.replace(entry, note=signer.sign(self._origin, size, root), key=key)

    def _find_call(self, call_id: str) -> int | None:
        """The decision on a call that was let out by an earlier owner, or that has an outcome already."""
        return self._number(FIND_CALL, call_id) or None

    def _measure(self) -> None:
        """See how much the file holds, if that is bounded."""
        if self._room.bounds.max_bytes:
            self._room.used_bytes = self._number(schema.USED)

    def _next_expiry_ns(self) -> int:
        """When the first kept answer expires; never, if there is none."""
        first: int | None = self._connection.exec_driver_sql(FIRST_EXPIRY).scalar()
        return NEVER_NS if first is None else first

    def _number(self, sql: str, *values: object) -> int:
        """The one number that `sql` asks for; 0 for NULL or nothing."""
        found: int | None = self._connection.exec_driver_sql(sql, values).scalar()
        return found or 0


def cause(error: BaseException) -> str:
    """What went wrong, on one line: the driver's own words."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return str(original).partition("\n")[0] or type(error).__name__


def _engine(path: Path) -> Engine:
    """An engine with one connection, whose transactions take the write lock at their beginning."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        try:
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "fullfsync = ON",
                "checkpoint_fullfsync = ON",
                "foreign_keys = ON",
                "recursive_triggers = ON",
                "secure_delete = ON",
                "journal_size_limit = 67108864",
                "cache_size = -16384",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.DatabaseError as error:
            connection.close()
            if "not a database" in str(error):
                raise LedgerError(
                    f"`{path}` is not a ledger (no SQLite file): give another one with `--ledger`"
                ) from None
            raise LedgerError(f"cannot open the ledger `{path}`: {error}; is its directory writable?") from None
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock now: a transaction that upgrades later can fail half-way."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is at `path` now; None when there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _insert(connection: Connection, statement: str, rows: Sequence[Sequence[object]], then: str = "") -> None:
    """Insert `rows` with few statements: after each, and after each row of `executemany`, the thread gives way to
    all others, and gets its turn back only when they let it. In the transaction of `connection`, but by its driver:
    what SQLAlchemy does around a statement costs more than the statement."""
    driver = connection.connection.dbapi_connection
    assert driver is not None
    for first in range(0, len(rows), ROWS_A_STATEMENT):
        some = rows[first : first + ROWS_A_STATEMENT]
        places = f"({', '.join('?' * len(some[0]))})"
        driver.execute(f"{statement} {', '.join([places] * len(some))} {then}", tuple(chain.from_iterable(some)))
