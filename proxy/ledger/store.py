"""The ledger, owned: takes entries in order, has many of them written at a time, and says when they are on the disk.

One process owns a ledger (a locked file beside it says which); in it, one thread writes (`proxy.ledger.writing`).
`append` gives the sequence number at once; what waits, waits in `durable`. Nobody is told that an entry is recorded
before it is: when a batch cannot be written, the ledger has failed, and so has everything appended since. It takes
nothing then until it could be written again (`mend`) and its owner has gone back to what is on the disk (`resume`).
Outcomes alone are kept meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

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
from proxy.ledger.vault import Vault
from proxy.ledger.writing import Item, Reply, Writing, cause
from proxy.owner import SERVE
from rules.ruleset import Bounds

__all__ = ["Ledger", "LedgerError"]

COMPANY_S = 0.025
"""How long an entry that nobody waits for waits for others to share its transaction."""

MAX_PENDING = 50_000
"""More entries than this cannot wait for the disk: the next one is refused."""

MAX_BATCH = 2_000

SEAL_ENTRIES = 1_000
SEAL_NS = 600_000_000_000
"""After so many entries, or so long after the first that is not sealed, a checkpoint seals what there is."""

KEEP_NS = 600_000_000_000
"""How often payloads that are older than `keep` are given up."""

BY_AGE, BY_SIZE = "rules (keep)", "rules (max_size)"
"""Who gives payloads up, when nobody has said `log prune`."""

FIRST_SINCE = "SELECT seq FROM entries WHERE at_ns >= ? ORDER BY at_ns, seq LIMIT 1"

type Owed = tuple[OutcomeEntry, StoredAnswer | None]


class Ledger:
    """An open ledger, owned. `append`, `durable`, `answer` belong to one event loop. Made by `Ledger.open`."""

    def __init__(self, path: Path, vault: Vault, lock_fd: int) -> None:
        self.path = path
        self.vault = vault
        self.room = Room()
        self._kept_ns = 0
        self.redactor = Redactor(vault.hash_secret)
        self._lock_fd = lock_fd
        self._writing = Writing(path, vault, self.room)
        self._take_up()
        self._reader = open_reader(path)
        self.history = History(path, self._reader)
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
        end = self._writing.end
        self._seq, self._last_ns = end.seq, end.last_ns
        self._sealed_seq, self._unsealed_ns, self._pruned_seq = end.sealed_seq, end.unsealed_ns, end.pruned_seq
        self._prune_seq = 0
        self._durable_seq, self._durable_head = end.seq, end.head

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
                return cls(path, vault, lock_fd)
            except BaseException:
                os.close(lock_fd)
                raise
        except OSError as error:
            raise LedgerError(
                f"cannot open the ledger `{path}`: {reason(error)}; give another one with `--ledger`"
            ) from None
        except SQLAlchemyError as error:
            raise LedgerError(f"cannot open the ledger `{path}`: {cause(error)}") from None

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
        if self.room.bounds.max_bytes and not self._writing.prune_through and self._prune_seq <= self._durable_seq:
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
        while self._writing.prune_through:
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
        self._writing.close()
        os.close(self._lock_fd)
        if self._failure:
            raise LedgerError(self._failure)

    def mend(self, entry: CommandEntry) -> bool:
        """After a failure, try to write again: `entry`, to the file opened anew. Blocks as long as that takes.

        True when it is on the disk. Nothing can be appended even then, before `resume`.
        """
        with self._mending:
            if self._closing or not self._failure or not self._writing.in_place:
                return False
            self._writer.join()
            try:
                if not self._writing.reopen((self._durable_seq, self._durable_head)):
                    return False
                self._take_up()
                self._writing.write([(self._seq + 1, self.redactor.entry(entry), None)], [], self._last_ns)
            except (SQLAlchemyError, LedgerError, OSError):
                return False
            self._seq, self._durable_head = self._writing.attempted
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
                    self._writing.write(batch, replies, self._last_ns)
                    self._settle(batch)
                    batch = []
                if self._writing.prune_through:
                    self._writing.prune_some(self._last_ns)
        except BaseException as error:  # noqa: BLE001  whatever it is, nobody may think that this batch was recorded
            self._fail(f"the ledger `{self.path}` cannot be written: {cause(error)}; it is tried again", batch)

    def _next_batch(self) -> tuple[list[Item], list[Reply]] | None:
        """What is to be written now; None when the ledger was closed and all is written. Empty: there is time."""
        with self._changed:
            while not (self._pending or self._replies or self._closing or self._writing.prune_through):
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

    def _settle(self, batch: list[Item]) -> None:
        """`batch` is on the disk: say so to those who wait for it."""
        with self._changed:
            self._durable_seq = batch[-1][0] if batch else self._durable_seq
            self._durable_head = self._writing.head
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
