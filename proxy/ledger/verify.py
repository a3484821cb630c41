"""Checks a ledger: that it is as it was written, entry by entry, and that what stands beside the entries fits them.

Reads only, page by page, also while a proxy writes. What it cannot know it does not claim: a chain shows that nothing
in the middle was changed; that nothing was cut off its end, only a checkpoint shows that was kept elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from proxy.ledger import schema
from proxy.ledger.entries import CommandEntry, LedgerError
from proxy.ledger.note import Note, NoteError, Verifier, parse_note, parse_verifier
from proxy.ledger.query import SLACK_NS, check_file
from proxy.ledger.rows import Beside, Row, chain, entry_of, payload_digest, rules_named
from rules.state import SetBack

PAGE = 2_000
PLAIN = {int, str, type(None)}
KEYS = ("hash_key", "vault_key", "signing_key")

UNREADABLE = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM", "SQLITE_NOMEM"}
"""Errors of SQLite that say nothing of the file's content."""

ENTRIES = """
    SELECT e.*, p.salt, p.content FROM entries e LEFT JOIN payloads p ON p.seq = e.seq
    WHERE e.seq > ? ORDER BY e.seq LIMIT ?
"""
RULES = """
    SELECT r.rule, r.seq FROM json_each(?) j CROSS JOIN entry_rules r
    ON r.rule = j.value ->> 0 AND r.seq = j.value ->> 1
"""
STRAY_PAYLOAD = """
    SELECT min(p.seq) FROM payloads p LEFT JOIN entries e ON e.seq = p.seq
    WHERE e.seq IS NULL OR e.rest ->> '$.payload' IS NULL
"""
LAST = "SELECT seq, at_ns FROM entries ORDER BY seq DESC LIMIT 1"
PRUNED = "SELECT max(rest ->> '$.through') FROM entries WHERE kind = 'prune' AND call_seq IS NULL"

STORED = """
    SELECT o.rest ->> '$.stored' FROM entries d JOIN entries o ON o.call_seq = d.seq AND o.outcome IS NOT NULL
    WHERE d.id = ? AND d.decision IS NOT NULL
"""

type Tell = Callable[[int, int], None]
"""Is told now and then how many entries of how many are checked."""


class Finding(msgspec.Struct, frozen=True):
    """What is wrong first: at entry `seq` (None: with the file as a whole), and what that means."""

    seq: int | None
    what: str
    means: str


class Verdict(msgspec.Struct, frozen=True):
    """What was found. `broken` has a `finding`; `inconclusive`: nothing is wrong, and nothing anchors the end.

    Of the `entries` that were checked, those up to `anchored` are the ones that the anchor tells of, those up to
    `sealed` are signed. `own_key`: for want of another one, the key was taken from the ledger itself. `pruned`: the
    payloads up to this entry were given up. `snapshot`: a sentence about the snapshot beside it, where there is one.
    """

    result: Literal["good", "broken", "inconclusive"]
    path: str
    entries: int
    checkpoints: int
    sealed: int
    anchored: int
    pruned: int
    own_key: bool
    finding: Finding | None
    snapshot: str = ""


class Broken(Exception):
    """The ledger is not as it was written."""

    def __init__(self, seq: int | None, what: str, means: str) -> None:
        super().__init__(what)
        self.finding = Finding(seq, what, means)


def verify(path: Path, anchor: Note | None, public: bytes | Verifier | None, tell: Tell) -> Verdict:
    """Check the ledger at `path`, against the checkpoint `anchor` if there is one.

    `public` is the key that signs its checkpoints, if it is known. Raises `LedgerError` when nothing can be said:
    there is no such file, it cannot be read, is of another version, or the anchor is not signed by this key.
    """
    check_file(path)
    check = _Check(path, anchor, public, tell)
    finding: Finding | None = None
    try:
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=10)) as connection:
            connection.execute("PRAGMA query_only = ON")
            check.run(connection)
    except Broken as broken:
        finding = broken.finding
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2]) in UNREADABLE:
            raise LedgerError(f"cannot read the ledger `{path}`: {error}") from None
        after = f" after entry {check.entries}" if check.entries else ""
        finding = Finding(
            None,
            f"the file is damaged{after}: {error}",
            "a part of it was overwritten or lost, by a fault of the disk or on purpose",
        )
    anchored = anchor.size if anchor and finding is None else 0
    return Verdict(
        result="broken" if finding else "good" if anchored else "inconclusive",
        path=str(path),
        entries=check.entries,
        checkpoints=check.checkpoints,
        sealed=check.sealed,
        anchored=anchored,
        pruned=check.pruned,
        own_key=check.own_key,
        finding=finding,
    )


class _Check:
    """One pass over one ledger."""

    def __init__(self, path: Path, anchor: Note | None, public: bytes | Verifier | None, tell: Tell) -> None:
        self.path = path
        self.anchor = anchor
        self.public = public
        self.tell = tell
        self.entries = self.checkpoints = self.sealed = self.pruned = 0
        self.own_key = public is None
        self.head = bytes(32)
        self.last_ns = 0
        self.live_ns = 0
        self.meta: dict[str, str] = {}
        self.verifier: Verifier | None = None
        self.rules = self.payloads = 0
        self.totals: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.stored: dict[str, Beside] = {}

    def run(self, connection: sqlite3.Connection) -> None:
        """Everything, in an order that names the first bad entry where there is one."""
        self._identity(connection)
        self._form(connection)
        self._names(connection)
        total, self.live_ns = connection.execute(LAST).fetchone() or (0, 0)
        while self.entries < total and self._page(connection):
            self.tell(self.entries, max(total, self.entries))
        # What is counted has to be counted at one moment. Little is left to read now, so the moment is short.
        connection.execute("BEGIN")
        while self._page(connection):
            pass
        self._anchored()
        self._derived(connection)
        self._answers(connection)
        connection.execute("COMMIT")
        self._structure(connection)

    def _identity(self, connection: sqlite3.Connection) -> None:
        """The file says that it is a ledger, of this version."""
        ((application,),) = connection.execute("PRAGMA application_id")
        ((version,),) = connection.execute("PRAGMA user_version")
        if application != schema.APPLICATION_ID or version < 1:
            raise Broken(
                None,
                f"the file does not say that it is a ledger (application {application:#x}, version {version})",
                "its beginning was changed, or it is a database of another program",
            )
        if version != schema.SCHEMA_VERSION:
            known = f"schema {version}, this one knows {schema.SCHEMA_VERSION}"
            raise LedgerError(
                f"the ledger `{self.path}` was written by a newer version ({known}): upgrade borderpost"
                if version > schema.SCHEMA_VERSION
                else f"the ledger `{self.path}` was written by an older version ({known}): "
                "`borderpost log checkpoint` brings it up to date"
            )

    def _form(self, connection: sqlite3.Connection) -> None:
        """Tables, indexes, triggers and views are those that we make, and no others."""
        found, made = schema.form_of(connection), schema.form()
        for (kind, name), sql in made.items():
            if (kind, name) not in found:
                raise Broken(
                    None,
                    f"the {kind} `{name}` is missing",
                    f"somebody took away {_use(kind)}: do not trust what follows",
                )
            if found[kind, name] != sql:
                raise Broken(
                    None,
                    f"the {kind} `{name}` was changed",
                    f"somebody changed {_use(kind)}: do not trust what follows",
                )
        for kind, name in found.keys() - made.keys():
            raise Broken(
                None,
                f"there is a {kind} `{name}`, which no version of borderpost makes",
                "somebody put it into the file; it could change what is written or shown",
            )

    def _names(self, connection: sqlite3.Connection) -> None:
        """The ledger's own name and keys, and whether the anchor is about it."""
        self.meta = dict(connection.execute("SELECT name, value FROM meta"))
        origin = self.meta.get("origin", "")
        if not origin or set(self.meta) - {"origin", *KEYS}:
            raise Broken(None, "the table `meta` was changed", "it names the ledger and its keys, and nothing else")
        if isinstance(self.public, Verifier):
            if self.public.name != origin:
                raise Broken(
                    None,
                    f"this is the ledger `{origin}`, and the key is of `{self.public.name}`",
                    "the whole file was replaced by another ledger, or the key is another one's",
                )
            self.verifier = self.public
        elif self.public is not None:
            self.verifier = Verifier(origin, self.public)
        if self.anchor is None:
            return
        if self.anchor.origin != origin:
            raise Broken(
                None,
                f"this is the ledger `{origin}`, and the anchor is of `{self.anchor.origin}`",
                "the whole file was replaced by another ledger, or the anchor is another one's",
            )
        if self.verifier is not None and not self.verifier.check(self.anchor):
            raise LedgerError(
                "the anchor is not signed by this ledger's key, so it shows nothing: it was changed, "
                "or the key is another one (`--confdir` and `--key` say which)"
            )

    def _page(self, connection: sqlite3.Connection) -> bool:
        """Check the next entries, if there are any."""
        rows = connection.execute(ENTRIES, (self.entries, PAGE)).fetchall()
        named: list[tuple[str, int]] = []
        for row in rows:
            self._entry(connection, row[:-2], row[-2], row[-1], named)
        self.rules += len(named)
        found = set(connection.execute(RULES, (json.dumps(named),)))
        for rule, seq in named:
            if (rule, seq) not in found:
                raise Broken(
                    seq,
                    f"entry {seq} cannot be found by the rule `{rule}`",
                    "somebody hid it from `log --rule`, by taking a row out of `entry_rules`; the entry itself stands",
                )
        return bool(rows)

    def _entry(
        self, connection: sqlite3.Connection, row: Row, salt: Any, payload: Any, named: list[tuple[str, int]]
    ) -> None:
        """One entry: its place, its hash, and what it says of others."""
        seq, *columns, prev, digest = row
        expected = self.entries + 1
        if seq != expected:
            raise Broken(
                expected,
                f"entry {expected} is missing: entry {seq} stands in its place",
                "entries were taken out, or given other numbers",
            )
        if not {*map(type, columns)} <= PLAIN or digest != chain(self.head, seq, columns):
            raise Broken(
                seq,
                f"entry {seq} is not what was written"
                if prev == self.head
                else f"entry {seq} does not follow entry {seq - 1}",
                "its content or its hash was changed; what stands before it is as it was written"
                if prev == self.head
                else "entries were put in, replaced, or changed in their order; what stands before it is as it was",
            )
        if prev != self.head:
            raise Broken(seq, f"entry {seq} names another entry before it", "its `prev` was changed, and nothing else")
        try:
            self._meaning(connection, row, salt, payload, named)
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError, AttributeError):
            raise Broken(
                seq, f"entry {seq} makes no sense", "it was not written by us, though its hash is right"
            ) from None
        self.entries, self.head, self.last_ns = seq, digest, max(self.last_ns, row[1])
        if self.anchor is not None and self.anchor.size == seq and self.anchor.root != digest:
            raise Broken(
                seq,
                f"entry {seq} is not the one that the anchor tells of",
                "it, or entries before it, were written anew after the anchor was made",
            )

    def _meaning(
        self, connection: sqlite3.Connection, row: Row, salt: Any, payload: Any, named: list[tuple[str, int]]
    ) -> None:
        """What an entry says of others, and what stands beside it."""
        seq, kind, rest = row[0], row[2], msgspec.json.decode(row[23])
        if kind == "decision":
            self.totals[row[13]] += row[19]
            if row[14] is not None:
                self.codes[row[14]] += row[19]
            named += ((rule, seq) for rule in sorted(rules_named(row)))
            self._payload(connection, seq, rest.get("payload"), salt, payload)
        elif kind == "outcome":
            if rest.get("stored_until_ns", 0) > self.live_ns:
                self.stored[row[4]] = Beside(rest["stored"], rest["stored_until_ns"])
        elif kind == "boot":
            self._boot(seq, rest["versions"])
        elif kind == "checkpoint":
            self._checkpoint(seq, rest)
        elif kind == "prune":
            self._prune(seq, rest["through"])
        elif kind == "command":
            entry = entry_of(row)
            if isinstance(entry, CommandEntry) and entry.set_back is not None:
                self._set_back(entry.set_back)

    def _set_back(self, back: SetBack) -> None:
        """The clock was set back, and with it the time of kept answers."""
        self.last_ns = back.to_ns
        self.stored = {
            call_id: msgspec.structs.replace(kept, until_ns=back.moved(kept.until_ns))
            for call_id, kept in self.stored.items()
        }

    def _payload(self, connection: sqlite3.Connection, seq: int, said: str | None, salt: Any, payload: Any) -> None:
        """What stands beside decision `seq` is what it says, or was given up on record."""
        if payload is None and salt is None:
            if said and seq > (connection.execute(PRUNED).fetchone()[0] or 0):
                raise Broken(
                    seq,
                    f"the payload of entry {seq} is missing",
                    "what was read of the call was taken away, and no prune entry says so; the decision itself stands",
                )
            return
        self.payloads += 1
        if type(salt) is not bytes or type(payload) is not str or payload_digest(salt, payload) != said:
            raise Broken(
                seq,
                f"the payload of entry {seq} is not what was written",
                "what was read of the call, or why it was refused, was changed; the decision itself stands",
            )

    def _boot(self, seq: int, versions: dict[str, str]) -> None:
        for name in KEYS:
            if name in versions and versions[name] != self.meta.get(name):
                raise Broken(
                    seq,
                    f"entry {seq} was written with another `{name.replace('_', '.')}` than the file names",
                    "the table `meta` was changed: a proxy would take this ledger for another one's",
                )

    def _checkpoint(self, seq: int, rest: dict[str, Any]) -> None:
        """The checkpoint is signed, and speaks of exactly what stands before it."""
        try:
            note, key = parse_note(rest["note"]), parse_verifier(rest["key"])
        except (NoteError, KeyError):
            raise Broken(seq, f"the checkpoint in entry {seq} cannot be read", "it was not written by us") from None
        if self.verifier is None:
            self.verifier = key
        if not self.verifier.check(note) or key != self.verifier:
            raise Broken(
                seq,
                f"the checkpoint in entry {seq} is not signed by this ledger's key",
                "entries were written by somebody who does not have the key; "
                "or `--confdir` is another one's, then give `--key`",
            )
        if (note.origin, note.size, note.root) != (self.meta["origin"], seq - 1, self.head):
            raise Broken(
                seq,
                f"the checkpoint in entry {seq} was signed over other entries",
                f"entries before it were written anew, after entry {self.sealed}",
            )
        self.checkpoints, self.sealed = self.checkpoints + 1, seq - 1

    def _prune(self, seq: int, through: int) -> None:
        if through > self.sealed:
            raise Broken(seq, f"entry {seq} gives up what was not sealed", "no version of borderpost writes this")
        self.pruned = max(self.pruned, through)

    def _anchored(self) -> None:
        """The anchor is about entries that are there."""
        if self.anchor is None:
            return
        if self.anchor.size > self.entries:
            raise Broken(
                self.entries + 1,
                f"entry {self.entries + 1} is missing: the anchor tells of {self.anchor.size} entries",
                "the end of the ledger was cut off, or an old copy put in its place",
            )
        if self.verifier is not None and not self.verifier.check(self.anchor):
            raise LedgerError("the anchor is not signed by the key that this ledger names, so it shows nothing")

    def _derived(self, connection: sqlite3.Connection) -> None:
        """There is nothing beside the entries that does not belong to one, and the counts are right."""
        if connection.execute("SELECT count(*) FROM entry_rules").fetchone()[0] != self.rules:
            for rule, seq in connection.execute("SELECT rule, seq FROM entry_rules ORDER BY seq").fetchall():
                row = connection.execute("SELECT * FROM entries WHERE seq = ?", (seq,)).fetchone()
                if row is None or row[2] != "decision" or rule not in rules_named(row):
                    raise Broken(
                        seq,
                        f"entry {seq} is found by the rule `{rule}`, of which it does not speak",
                        "somebody put a row into `entry_rules`; the entry itself stands",
                    )
        if connection.execute("SELECT count(*) FROM payloads").fetchone()[0] != self.payloads:
            stray = connection.execute(STRAY_PAYLOAD).fetchone()[0]
            if stray is not None:
                raise Broken(stray, f"there is a payload for entry {stray}, which has none", "somebody put it in")
        for table, column, counted in (("totals", "decision", self.totals), ("codes", "code", self.codes)):
            if dict(connection.execute(f"SELECT {column}, calls FROM {table}")) != dict(counted):
                raise Broken(
                    None, f"the table `{table}` was changed", "`status` counts wrongly; the entries themselves stand"
                )

    def _answers(self, connection: sqlite3.Connection) -> None:
        """Every answer kept for replay is the one that came, and none is missing that could still be replayed."""
        for call_id, until_ns, digest in _sealed_answers(connection):
            kept = self.stored.pop(call_id, None)
            if kept is not None:
                came = kept == Beside(digest, until_ns)
            else:  # its time is over, or it is of schema 1
                came = (digest,) in connection.execute(STORED, (call_id,)).fetchall()
            if not came:
                raise Broken(
                    None,
                    f"the answer kept for the call `{call_id}` is not the one that came",
                    "a repetition of that call could be answered with something else; the entries themselves stand",
                )
        for call_id, kept in self.stored.items():
            if kept.until_ns > self.last_ns + SLACK_NS:
                raise Broken(
                    None,
                    f"the answer kept for the call `{call_id}` is missing",
                    "a repetition of that call would be refused and not replayed; the entries themselves stand",
                )

    def _structure(self, connection: sqlite3.Connection) -> None:
        """SQLite's own check: indexes, free pages, types. Without it a call could be hidden from a query."""
        self.tell(self.entries, self.entries)
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise Broken(
                None,
                f"the file is damaged: {found.partition(chr(10))[0]}",
                "the entries are as they were written, but an index or a free part of the file is not: "
                "questions to it may be answered wrongly",
            )


def _sealed_answers(connection: sqlite3.Connection) -> Iterator[tuple[str, int, str]]:
    """Each kept answer: the call, until when, and the digest of what is kept."""
    for call_id, until_ns, sealed in connection.execute("SELECT id, until_ns, sealed FROM answers"):
        yield call_id, until_ns, hashlib.sha256(sealed).hexdigest() if type(sealed) is bytes else ""


def _use(kind: str) -> str:
    """What a thing of this kind is good for."""
    return {
        "trigger": "what keeps the ledger append-only",
        "view": "what shows its entries",
        "index": "what finds its entries",
    }.get(kind, "a part of it")
