"""Snapshots: what is remembered of a ledger, written down beside it, so that a start reads only what came after.

A snapshot is a cache and never the truth: the truth is the fold over the entries (`proxy.ledger.memory`). It is made
by folding durable entries, never from what a proxy happens to hold in its hands. It counts only if it is authentic
(HMAC-SHA256 under a key made from `vault.key`), was made by exactly this code, and the entry that it ends with is in
the ledger, with the same hash. Else everything is folded, and one line says so. It can be deleted at any time.

The file: a line that says what this is, a line of JSON with what is not in the state, the lines of the state
(`rules.kept`), and a line with the HMAC of all that. It is replaced whole. It is not synchronised: half a file is not
authentic.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import msgspec

import rules
from proxy.confdir import reason
from proxy.ledger.history import History
from proxy.ledger.memory import Memory
from proxy.ledger.query import open_reader
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from proxy.ledger.verify import Finding, Verdict
from proxy.runs import JoinedRun
from rules import kept
from rules.load import VERSION

FORMAT = b"borderpost snapshot 2"

EVERY = 20_000
"""A new snapshot is made when so many entries came after the last one, or more if that one is large."""

BYTES_AN_ENTRY = 400
"""A snapshot of so many bytes more waits for one entry more: making it never costs more than a part of the folding."""

AT_A_STRETCH = 50
"""So many entries are folded, and so many lines written, before others get to work: half a millisecond."""

log = logging.getLogger("borderpost")


class Unusable(Exception):
    """There is no snapshot that counts. `why`, as it follows `because`; empty when there simply is none."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Head(msgspec.Struct, frozen=True):
    """What a snapshot says of itself: of which ledger, by which code, up to which entry; and most of a `Memory`."""

    origin: str
    code: str
    seq: int
    hash: str
    last_ns: int
    unsettled: dict[str, int]
    runs: dict[str, tuple[str, int]]
    joined: dict[str, JoinedRun]
    left: dict[str, int]


class Snapshots:
    """Takes and finds the snapshots of one open ledger. Both may be called in any thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._path = path_of(ledger.path)
        self._seq = 0
        self._size_bytes = 0
        self._failures = 0
        self._told = ""
        self._busy = threading.Lock()

    def recall(self) -> Memory:
        """What is remembered of the durable entries: from the snapshot if one counts, else from all of them."""
        with self._busy:
            memory = self._usable()
            for seq, entry in self._ledger.history.entries(memory.seq, payloads=False):
                memory.fold(seq, entry)
            if memory.seq - self._seq >= EVERY:
                self._save(memory, lambda: None)
            return memory

    @property
    def due(self) -> bool:
        """Whether enough was recorded since the last snapshot."""
        wanted = max(EVERY, self._size_bytes // BYTES_AN_ENTRY) << self._failures
        return self._ledger.durable_seq - self._seq >= wanted

    def take(self, pause: Callable[[], None] = lambda: None) -> None:
        """Make a snapshot of what is durable now. `pause` is called again and again, for others to work.

        What goes wrong is a warning: nothing depends on it but how long a start takes.
        """
        with self._busy:
            through = self._ledger.durable_seq
            try:
                memory = self._usable()
                for seq, entry in self._ledger.history.entries(memory.seq, payloads=False):
                    if seq > through:
                        break
                    memory.fold(seq, entry)
                    if seq % AT_A_STRETCH == 0:
                        pause()
                self._save(memory, pause)
            except Exception as error:  # noqa: BLE001  whatever it is, calls need not suffer from it
                self._failed(through, str(error) or type(error).__name__)

    def _usable(self) -> Memory:
        """The memory in the snapshot; an empty one when none counts."""
        try:
            memory = read(self._path, self._ledger.vault, self._ledger.history)
        except Unusable as unusable:
            if unusable.why and unusable.why != self._told:
                self._told = unusable.why
                log.warning("the whole ledger is read again, because %s", unusable.why)
            memory = Memory()
        self._seq = memory.seq
        return memory

    def _save(self, memory: Memory, pause: Callable[[], None]) -> None:
        if memory.seq == self._seq:
            return
        history = self._ledger.history
        head = _Head(
            origin=history.origin(),
            code=_code(),
            seq=memory.seq,
            hash=history.hash_of(memory.seq).hex(),
            last_ns=memory.last_ns,
            unsettled=memory.unsettled,
            runs=memory.runs,
            joined=memory.joined,
            left=memory.left,
        )
        try:
            self._size_bytes = _write(self._path, _lines(head, memory), self._ledger.vault, pause)
        except OSError as error:
            self._failed(memory.seq, reason(error))
        else:
            self._seq, self._failures = memory.seq, 0

    def _failed(self, seq: int, why: str) -> None:
        """There is no snapshot up to `seq`; the next is tried when one is due again, each time later."""
        self._seq, self._failures = seq, self._failures + 1
        log.warning("no snapshot could be kept in `%s`, so the next start takes longer: %s", self._path, why)


def path_of(ledger: Path) -> Path:
    """Where the snapshot of the ledger at `ledger` is."""
    return ledger.with_name(ledger.name + ".snapshot")


def read(path: Path, vault: Vault, history: History) -> Memory:
    """The memory in the snapshot at `path` of the ledger with this `history`. Raises `Unusable` if it is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Unusable("") from None
    except OSError as error:
        raise Unusable(f"its snapshot `{path}` cannot be read: {reason(error)}") from None
    end = content.rfind(b"\n", 0, -1) + 1
    mac = vault.authenticator()
    mac.update(memoryview(content)[:end])
    if not hmac.compare_digest(content[end:], mac.hexdigest().encode() + b"\n"):
        raise Unusable(f"its snapshot `{path}` was changed, or is not whole")
    title, head_line, *lines = content[:end].splitlines()
    head = msgspec.json.decode(head_line, type=_Head) if title == FORMAT else None
    if head is None or head.code != _code():
        raise Unusable(f"its snapshot `{path}` was made by another version")
    if head.origin != history.origin() or head.hash != history.hash_of(head.seq).hex():
        raise Unusable(f"its snapshot `{path}` is of another ledger, or of what is no longer in this one")
    return Memory(head.seq, head.last_ns, kept.read(lines), head.unsettled, head.runs, head.joined, head.left)


def check(verdict: Verdict, vault: Vault | None, tell: Callable[[int, int], None]) -> Verdict:
    """`verdict` on a ledger, with what there is to say of its snapshot: is it what the entries come to?

    Without the `vault` nobody can tell. A snapshot that no proxy would use is only mentioned.
    """
    path = Path(verdict.path)
    if verdict.finding is not None or not path_of(path).exists():
        return verdict
    if vault is None:
        return msgspec.structs.replace(verdict, snapshot="not checked: that takes the keys (`--confdir`)")
    engine = open_reader(path)
    try:
        history = History(path, engine)
        try:
            taken = read(path_of(path), vault, history)
        except Unusable as unusable:
            return msgspec.structs.replace(verdict, snapshot=f"is not used, because {unusable.why}")
        memory = Memory()
        for seq, entry in history.entries(payloads=False):
            if seq > taken.seq:
                break
            memory.fold(seq, entry)
            if seq % AT_A_STRETCH == 0:
                tell(seq, taken.seq)
    finally:
        engine.dispose()
    if memory == taken:
        said = f"what the entries 1 to {taken.seq:,} come to"
        return msgspec.structs.replace(verdict, snapshot=said)
    finding = Finding(
        None,
        f"the snapshot `{path_of(path)}` is not what the entries come to",
        "a proxy that starts from it remembers something else than happened: remove that file, and restart it",
    )
    return msgspec.structs.replace(verdict, result="broken", anchored=0, finding=finding)


def _lines(head: _Head, memory: Memory) -> Iterator[bytes]:
    yield FORMAT
    yield msgspec.json.encode(head)
    yield from kept.write(memory.state)


def _write(path: Path, lines: Iterator[bytes], vault: Vault, pause: Callable[[], None]) -> int:
    """Put the file in place, and return its size in bytes."""
    scratch = path.with_name(path.name + ".new")
    mac = vault.authenticator()
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            for number, line in enumerate(lines):
                mac.update(line + b"\n")
                file.write(line + b"\n")
                if number % AT_A_STRETCH == 0:
                    pause()
            file.write(mac.hexdigest().encode() + b"\n")
            size_bytes = file.tell()
        scratch.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
    return size_bytes


@cache
def _code() -> str:
    """The code that folds, by its digest: what another one made may be another state, though it can be read."""
    digest = hashlib.sha256(VERSION.encode())
    for path in sorted(Path(*rules.__path__).rglob("*.py")):
        digest.update(b"\n%s\n" % path.name.encode() + path.read_bytes())
    return digest.hexdigest()
