"""The ledger's writer: appends entries in order, many to one transaction, and says when they are on the disk.

One process owns a ledger (a locked file beside it says which); in it, one thread writes. `append` gives the sequence
number at once; what waits, waits in `durable`. Nobody is told that an entry is recorded before it is: when a batch
cannot be written, the ledger has failed, and so has everything appended since. It takes nothing then until it could be
written again (`mend`) and its owner has gone back to what is on the disk (`resume`). Outcomes alone are kept meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from proxy.confdir import reason
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
from proxy.ledger.history import History
from proxy.ledger.query import open_reader, reading
from proxy.ledger.redact import Redactor
from proxy.ledger.room import Room
from proxy.ledger.rows import COLUMNS, SALT_BYTES, Beside, Row, payload_digest, payload_of, row_of, rules_of
from proxy.ledger.vault import Vault
from proxy.owner import SERVE
from rules.ruleset import Bounds
from rules.state import SetBack

__all__ = ["Ledger", "LedgerError"]

COMPANY_S = 0.025
"""How long an entry that nobody waits for waits for others to share its transaction."""

MAX_PENDING = 50_000
"""More entries than this cannot wait for the disk: the next one is refused."""

BUSY_S = 10.0
"""How long the writer waits for somebody else who holds the file's lock, before the ledger has failed."""

MAX_BATCH = 2_000
EXPIRED_A_BATCH = 8
"""How many answers whose time is over a batch deletes, at least: bounded, for some have a mebibyte to overwrite."""

NEVER_NS = 1 << 63

SEAL_ENTRIES = 1_000
SEAL_NS = 600_000_000_000
"""After so many entries, or so long after the first that is not sealed, a checkpoint seals what there is."""

KEEP_NS = 600_000_000_000
"""How often payloads that are older than `keep` are given up."""

PRUNED_AT_ONCE = 500
"""How many payloads one transaction gives up: calls wait for it."""

BY_AGE, BY_SIZE = "rules (keep)", "rules (max_size)"
"""Who gives payloads up, when nobody has said `log prune`."""

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
USED = (
    "SELECT page_size * (page_count - freelist_count) FROM pragma_page_size, pragma_page_count, pragma_freelist_count"
)
LAST_CHECKPOINT = "SELECT max(seq) FROM entries WHERE kind = 'checkpoint' AND call_seq IS NULL"
LAST_PRUNED = "SELECT max(rest ->> '$.through') FROM entries WHERE kind = 'prune' AND call_seq IS NULL"
FIRST_SINCE = "SELECT seq FROM entries WHERE at_ns >= ? ORDER BY at_ns, seq LIMIT 1"
FIND_CALL = "SELECT max(seq) FROM entries WHERE id = ? AND decision IS NOT NULL"

type Item = tuple[int, Entry, StoredAnswer | None]
type Owed = tuple[OutcomeEntry, StoredAnswer | None]
type SealedAnswer = tuple[str, int, bytes]
"""A kept answer as it is written: of which call, until when (ns), and encrypted."""

type Reply = tuple[bool, str, int]
"""What came of a command: whether it was carried out, the result as JSON, and the command's id."""


class Ledger:
    """An open ledger, owned. `append`, `durable`, `answer` belong to one event loop. Made by `Ledger.open`."""

    def __init__(self, path: Path, vault: Vault, lock_fd: int, engine: Engine) -> None:
        self.path = path
        self.vault = vault
        self.room = Room()
        self._kept_ns = 0
        self.redactor = Redactor(vault.hash_secret)
        self._lock_fd = lock_fd
        self._engine = engine
        self._connection = engine.connect()
        with self._connection.begin():
            schema.prepare(self._connection, path, vault.key_ids)
            self._take_up()
            self._origin = schema.origin_of(self._connection)
            self._connection.exec_driver_sql(FORGET_COMMANDS, (COMMANDS_KEPT,))
        self._file = _file(path)
        self._reader = open_reader(path)
        self.history = History(path, self._reader)
        self._attempted = (self._seq, self._head)
        self._owed: list[Owed] = []
        self._lost: set[str] = set()
        self._mending = threading.Lock()
        self._kept: dict[str, StoredAnswer] = {}
        self._pending: list[Item] = []
        self._replies: list[Reply] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._urgent = False
        self._hurrying = False
        self._closing = False
        self._failure = ""
        self._changed = threading.Condition(threading.Lock())
        self._start_writer()

    def _take_up(self) -> None:
        """Go on where the file ends."""
        self._seq, self._head, self._last_ns = schema.last_entry(self._connection)
        self._expiry_ns = _next_expiry_ns(self._connection)
        self._sealed_seq = self._number(LAST_CHECKPOINT)
        self._unsealed_ns = self._number(f"SELECT at_ns FROM entries WHERE seq = {self._sealed_seq + 1}")
        self._prune_through = self._number(LAST_PRUNED)  # goes on where an earlier owner was interrupted
        self._pruned_seq = self._prune_through
        self._prune_seq = 0
        self.room.used_bytes = self._number(schema.USED)
        self._durable_seq, self._durable_head = self._seq, self._head
        self._sent: dict[str, int] = {}

    def _start_writer(self) -> None:
        self._writer = threading.Thread(target=self._write_batches, name="ledger-writer", daemon=True)
        self._writer.start()

    @classmethod
    def open(cls, path: Path, vault: Vault, *, owner: str) -> Ledger:
        """Open or make the ledger at `path` and own it. `owner` is the command that others are told about.

        Raises `LedgerError` when another process owns it, when it is no ledger of ours, or cannot be written.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_fd = _own(path, owner)
            try:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                engine = _writer_engine(path)
                try:
                    return cls(path, vault, lock_fd, engine)
                except BaseException:
                    engine.dispose()
                    raise
            except BaseException:
                os.close(lock_fd)
                raise
        except OSError as error:
            raise LedgerError(
                f"cannot open the ledger `{path}`: {reason(error)}; give another one with `--ledger`"
            ) from None
        except SQLAlchemyError as error:
            raise LedgerError(f"cannot open the ledger `{path}`: {_cause(error)}") from None

    @property
    def last_ns(self) -> int:
        """The time of the last entry."""
        return self._last_ns

    @property
    def durable_seq(self) -> int:
        """The number of the last entry that is on the disk."""
        return self._durable_seq

    @property
    def failed(self) -> str:
        """Why nothing can be appended any more; empty while all is well."""
        return self._failure

    def append(self, entry: Entry, answer: StoredAnswer | None = None) -> int:
        """Queue `entry`, redacted, and return its sequence number. `answer` is kept for replay.

        Raises `LedgerError` when nothing can be recorded any more.
        """
        self._make_room(entry.at_ns)
        entry = self.redactor.entry(entry)
        seq = self._queue(entry, answer)
        self._unsealed_ns = self._unsealed_ns or entry.at_ns
        with contextlib.suppress(
            LedgerError
        ):  # `entry` is queued, whatever becomes of the seal: the next one has it, too
            if seq - self._sealed_seq >= SEAL_ENTRIES:
                self.checkpoint(entry.at_ns)
            else:
                self.checkpoint_if_due(entry.at_ns)
        return seq

    def checkpoint(self, at_ns: int) -> int:
        """Seal everything up to here, and return the checkpoint's sequence number: the last one's, if nothing is new.

        Nothing is sealed without a key to sign with, and 0 returned when it never was.
        """
        if self._seq > self._sealed_seq and self.vault.signer is not None:
            self._sealed_seq = self._queue(CheckpointEntry(at_ns), None)
            self._unsealed_ns = 0
        return self._sealed_seq

    def checkpoint_if_due(self, at_ns: int) -> None:
        """Seal everything up to here if the first entry that is not sealed has waited long enough."""
        if self._unsealed_ns and at_ns - self._unsealed_ns >= SEAL_NS:
            self.checkpoint(at_ns)

    def bound(self, bounds: Bounds) -> None:
        """From now on it may hold this much. Raises `LedgerError` when it cannot be read."""
        with reading(self._reader, self.path) as connection:
            self.room.used_bytes = connection.exec_driver_sql(schema.USED).scalar_one()
        self.room.bounds = bounds
        self._kept_ns = 0

    def keep_bounds(self, at_ns: int) -> None:
        """Give up what the bounds say, if it is time."""
        self._make_room(at_ns)
        keep_ns = self.room.bounds.keep_ns
        if keep_ns and not 0 <= at_ns - self._kept_ns < KEEP_NS:
            self._kept_ns = at_ns
            self.prune(at_ns, at_ns - keep_ns, BY_AGE)

    def _make_room(self, at_ns: int) -> None:
        """Give up the oldest payloads, if it is time: when what was given up last is gone, and that was not enough."""
        if self.room.bounds.max_bytes and not self._prune_through and self._prune_seq <= self._durable_seq:
            through = self.room.through(self._sealed_seq - 1, self._pruned_seq)
            if through:
                self._queue(PruneEntry(at_ns, through, 0, BY_SIZE), None)

    def prune(self, at_ns: int, before_ns: int, by: str) -> tuple[int, int]:
        """Give up the payloads of sealed entries older than `before_ns`; recorded, then done bit by bit.

        Returns up to which entry there are none from now on, and of how many entries they are given up now.
        """
        sealed, pruned = max(self._sealed_seq, 1) - 1, self._pruned_seq
        with reading(self._reader, self.path) as connection:
            young = connection.exec_driver_sql(FIRST_SINCE, (before_ns,)).scalar() or sealed + 1
        through = min(sealed, young - 1)
        if through <= pruned:
            return pruned, 0
        self.append(PruneEntry(at_ns, through, before_ns, by))
        return through, through - pruned

    def reply(self, command_id: int, done: bool, result: str) -> None:
        """Queue what came of a command; it can be read when everything appended before is durable."""
        with self._changed:
            if not self._failure and not self._closing:
                self._replies.append((done, result, command_id))
                self._urgent = True
                self._changed.notify()

    def _queue(self, entry: Entry, answer: StoredAnswer | None) -> int:
        with self._changed:
            if self._failure:
                if isinstance(entry, OutcomeEntry):
                    self._owed.append((entry, answer))
                raise LedgerError(self._failure)
            if self._closing:
                raise LedgerError(f"the ledger `{self.path}` is closed")
            if self.room.full and isinstance(entry, DecisionEntry):
                raise LedgerError(
                    f"the ledger `{self.path}` has reached its `max_size`: raise that in the rules, or begin a new "
                    "ledger with `--ledger`"
                )
            if len(self._pending) >= MAX_PENDING and not isinstance(entry, OutcomeEntry):
                raise LedgerError(
                    f"the disk of the ledger `{self.path}` is too slow: {MAX_PENDING} entries wait for it"
                )
            self._seq = seq = self._seq + 1
            self._pending.append((seq, entry, answer))
            if isinstance(entry, PruneEntry):
                self._pruned_seq, self._prune_seq = entry.through, seq
            if len(self._pending) == 1:
                self._changed.notify()
            if answer is not None:
                self._kept[answer.id] = answer
        if isinstance(entry, CommandEntry) and entry.set_back is not None:
            self._last_ns = entry.at_ns
        self._last_ns = max(self._last_ns, entry.at_ns)
        return seq

    async def durable(self, seq: int) -> None:
        """Return when entry `seq` is on the disk. Raises `LedgerError` when it will never be."""
        with self._changed:
            if seq <= self._durable_seq:
                return
            if self._failure:
                raise LedgerError(self._failure)
            self._loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append((seq, waiter))
        if not self._hurrying:
            # At the end of this turn of the event loop: whatever else is decided in it shares the transaction.
            self._hurrying = True
            self._loop.call_soon(self._hurry)
        await waiter

    def _hurry(self) -> None:
        """Have the writer write what is pending at once."""
        self._hurrying = False
        with self._changed:
            if not self._urgent:
                self._urgent = True
                self._changed.notify()

    async def idle(self) -> None:
        """Return when everything is on the disk, and everything given up that was to be. Raises `LedgerError`."""
        await self.durable(self._seq)
        while self._prune_through:
            if self._failure:
                raise LedgerError(self._failure)
            await asyncio.sleep(0.01)

    def answer(self, call_id: str) -> StoredAnswer | None:
        """The kept answer to call `call_id`, also if it is not written yet; None when there is none any more."""
        answer = self._kept.get(call_id)
        if answer is None:
            with reading(self._reader, self.path) as connection:
                sealed = connection.exec_driver_sql("SELECT sealed FROM answers WHERE id = ?", (call_id,)).scalar()
            if sealed is None:
                return None
            answer = self.vault.open(call_id, sealed)
        return answer if answer.until_ns > self._last_ns else None

    def close(self) -> None:
        """Write what is pending, and let go of the ledger. Raises `LedgerError` when that could not be written."""
        with self._mending:
            with self._changed:
                if self._closing:
                    return
                self._closing = True
                self._changed.notify()
            self._writer.join()
        self._reader.dispose()
        self._connection.close()
        self._engine.dispose()
        os.close(self._lock_fd)
        if self._failure:
            raise LedgerError(self._failure)

    def mend(self, entry: CommandEntry) -> bool:
        """After a failure, try to write again: `entry`, to the file opened anew. Blocks as long as that takes.

        True when it is on the disk. Nothing can be appended even then, before `resume`.
        """
        with self._mending:
            if self._closing or not self._failure or _file(self.path) != self._file:
                return False
            self._writer.join()
            expected = (self._durable_seq, self._durable_head), self._attempted
            try:
                self._connection.close()
                self._engine.dispose()
                self._engine = _writer_engine(self.path)
                self._connection = self._engine.connect()
                with self._connection.begin():
                    # A commit that failed may have reached the disk. What else is there, somebody else has written.
                    if schema.last_entry(self._connection)[:2] not in expected:
                        return False
                    self._take_up()
                self._write([(self._seq + 1, self.redactor.entry(entry), None)], [])
            except (SQLAlchemyError, LedgerError, OSError):
                return False
            self._seq, self._durable_head = self._attempted
            self._durable_seq = self._seq
            return True

    def resume(self) -> tuple[list[Owed], set[str]]:
        """After `mend`: take entries again. Returns the outcomes that could not be recorded, to be appended first, and
        the ids of the calls whose decision could not be."""
        self._release()
        with self._changed:
            owed, self._owed = self._owed, []
            lost, self._lost = self._lost, set()
            self._replies.clear()
            self._urgent = False
            self._failure = ""
        self._start_writer()
        return owed, lost

    def _write_batches(self) -> None:
        """The writer thread: as long as the ledger is open, or until a batch cannot be written."""
        batch: list[Item] = []
        try:
            while (work := self._next_batch()) is not None:
                batch, replies = work
                if batch or replies:
                    self._write(batch, replies)
                    self._settle(batch)
                    batch = []
                if self._prune_through:
                    self._prune_some()
        except BaseException as error:  # noqa: BLE001  whatever it is, nobody may think that this batch was recorded
            self._fail(f"the ledger `{self.path}` cannot be written: {_cause(error)}; it is tried again", batch)

    def _next_batch(self) -> tuple[list[Item], list[Reply]] | None:
        """What is to be written now; None when the ledger was closed and all is written. Empty: there is time."""
        with self._changed:
            while not (self._pending or self._replies or self._closing or self._prune_through):
                self._changed.wait()
            if self._pending and not self._urgent and not self._closing:
                self._changed.wait_for(lambda: self._urgent or self._closing, COMPANY_S)
            if self._closing and not self._pending and not self._replies:
                return None
            batch = self._pending[:MAX_BATCH]
            del self._pending[:MAX_BATCH]
            replies: list[Reply] = []
            if not self._pending:
                # Only now is everything written that was appended before them.
                replies, self._replies = self._replies, []
                self._urgent = False
            return batch, replies

    def _write(self, batch: list[Item], replies: list[Reply]) -> None:
        """One transaction: the entries, chained; what is derived from them or stands beside them; fewer old answers."""
        rows: list[Row] = []
        payloads: list[tuple[int, bytes, str]] = []
        rules: list[tuple[str, int]] = []
        answers: list[SealedAnswer] = []
        totals: Counter[str] = Counter()
        codes: Counter[str] = Counter()
        ended: list[str] = []
        head, prune_through = self._head, self._prune_through
        if _file(self.path) != self._file:
            raise LedgerError("it was moved or removed while in use")
        with self._connection.begin():
            for seq, entry, answer in batch:
                beside, call_seq = None, None
                if answer is not None:
                    sealed = self.vault.seal(answer)
                    answers.append((answer.id, answer.until_ns, sealed))
                    beside = Beside(self.vault.digest(sealed), answer.until_ns)
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
            if self._last_ns >= self._expiry_ns:
                self._connection.exec_driver_sql(
                    DELETE_ANSWERS, (self._last_ns, max(EXPIRED_A_BATCH, 2 * len(answers)))
                )
                self._expiry_ns = _next_expiry_ns(self._connection)
            if answers:
                _insert(self._connection, INSERT_ANSWERS, answers)
                self._expiry_ns = min(self._expiry_ns, *(until_ns for _, until_ns, _ in answers))
            for reply in replies:
                self._connection.exec_driver_sql(REPLY, reply)
            self._measure()
            self._attempted = (batch[-1][0] if batch else self._attempted[0], head)
        self._head, self._prune_through = head, prune_through
        for call_id in ended:
            self._sent.pop(call_id, None)

    def _set_back(self, back: SetBack, answers: list[SealedAnswer]) -> list[SealedAnswer]:
        """The clock was set back: kept answers expire when their claims do. Returns those not written yet, too."""
        ahead_ns = back.from_ns - back.to_ns
        self._connection.exec_driver_sql(MOVE_ANSWERS, (back.to_ns, ahead_ns, back.to_ns))
        self._expiry_ns = _next_expiry_ns(self._connection)
        return [(call_id, back.moved(until_ns), sealed) for call_id, until_ns, sealed in answers]

    def _sealed(self, entry: CheckpointEntry, size: int, root: bytes) -> CheckpointEntry:
        """`entry` with the note that says: `size` entries, the last with hash `root`."""
        signer = self.vault.signer
        assert signer is not None, "only what can sign makes checkpoints"
        key = str(signer.verifier(self._origin))
        return msgspec.structs.replace(entry, note=signer.sign(self._origin, size, root), key=key)

    def _prune_some(self) -> None:
        """One transaction of giving up what prune entries name, and answers whose time is over."""
        with self._connection.begin():
            payloads = self._connection.exec_driver_sql(DELETE_PAYLOADS, (self._prune_through, PRUNED_AT_ONCE))
            answers = self._connection.exec_driver_sql(DELETE_ANSWERS, (self._last_ns, EXPIRED_A_BATCH))
            self._expiry_ns = _next_expiry_ns(self._connection)
            self._measure()
        if not payloads.rowcount and not answers.rowcount:
            self._prune_through = 0

    def _measure(self) -> None:
        """See how much the file holds, if that is bounded."""
        if self.room.bounds.max_bytes:
            self.room.used_bytes = self._number(schema.USED)

    def _number(self, sql: str) -> int:
        """The one number that `sql` asks for; 0 for NULL or nothing."""
        found: int | None = self._connection.exec_driver_sql(sql).scalar()
        return found or 0

    def _find_call(self, call_id: str) -> int | None:
        """The decision on a call that was let out by an earlier owner, or that has an outcome already."""
        found: int | None = self._connection.exec_driver_sql(FIND_CALL, (call_id,)).scalar()
        return found

    def _settle(self, batch: list[Item]) -> None:
        """`batch` is on the disk: say so to those who wait for it."""
        with self._changed:
            self._durable_seq = batch[-1][0] if batch else self._durable_seq
            self._durable_head = self._head
            for _, _, answer in batch:
                if answer is not None and self._kept.get(answer.id) is answer:
                    del self._kept[answer.id]
            waits = bool(self._waiters)
        if waits:
            self._wake_loop()

    def _fail(self, reason: str, batch: list[Item]) -> None:
        """Nothing is recorded from `batch` on: say so to all who wait."""
        with self._changed:
            self._failure = reason
            for _, entry, answer in (*batch, *self._pending):
                if isinstance(entry, OutcomeEntry):
                    self._owed.append((entry, answer))
                elif isinstance(entry, DecisionEntry):
                    self._lost.add(entry.id)
            self._pending.clear()
            self._kept.clear()
        self._wake_loop()

    def _wake_loop(self) -> None:
        """Have the event loop run `_release`. A loop that is closed has nobody who waits."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        """On the event loop: answer every waiter whose entry is durable, or all of them when the ledger has failed."""
        with self._changed:
            durable_seq, failure = self._durable_seq, self._failure
            done = [(seq, waiter) for seq, waiter in self._waiters if failure or seq <= durable_seq]
            self._waiters = [] if failure else [(seq, waiter) for seq, waiter in self._waiters if seq > durable_seq]
        for seq, waiter in done:
            if waiter.done():
                continue
            if seq <= durable_seq:
                waiter.set_result(None)
            else:
                waiter.set_exception(LedgerError(failure))


def _own(path: Path, owner: str) -> int:
    """A descriptor that holds the lock on the ledger at `path`. The kernel lets go of it when this process ends."""
    lock_path = path.with_name(path.name + ".lock")
    lock_fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, _, command = os.pread(lock_fd, 1024, 0).decode("utf-8", "replace").strip().partition(" ")
        os.close(lock_fd)
        raise LedgerError(
            f"the ledger `{path}` is in use by process {pid or '?'} (`{command or '?'}`): {_way_on(command)}, or give "
            "another ledger with `--ledger`"
        ) from None
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{os.getpid()} {owner[:512]}\n".encode("utf-8", "replace"), 0)
    return lock_fd


def _way_on(command: str) -> str:
    """What to do when `command` owns the ledger that is wanted."""
    if command == "borderpost run":
        return "start `borderpost serve` once, in another terminal or as a service, and every `borderpost run` joins it"
    if command == SERVE:
        return "its agents are pointed at it by `borderpost env`, and every `borderpost run` joins it; stop it first"
    return "try again when that is done"


def _writer_engine(path: Path) -> Engine:
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


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is at `path` now; None when there is none. SQLite would go on writing to one that was moved away."""
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


def _next_expiry_ns(connection: Connection) -> int:
    """When the first kept answer expires; never, if there is none."""
    first: int | None = connection.exec_driver_sql("SELECT min(until_ns) FROM answers").scalar()
    return NEVER_NS if first is None else first


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock now: a transaction that upgrades later can fail half-way."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _cause(error: BaseException) -> str:
    """What went wrong, on one line: the driver's own words."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return str(original).partition("\n")[0] or type(error).__name__
