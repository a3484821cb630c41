"""Tampering with a ledger in every way that its file permits: `verify` reports it, or says that it cannot know.

Set BORDERPOST_TAMPER=all (`make tamper`) to flip every byte of the file, and not only some of them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.confdir import Confdir
from proxy.ledger.entries import BootEntry, CommandEntry, LedgerError
from proxy.ledger.note import Note, Signer, parse_note
from proxy.ledger.rows import COLUMNS, chain
from proxy.ledger.schema import TRIGGERS
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from proxy.ledger.verify import Verdict, verify
from rules.decision import Violation
from tests.proxy.ledger.samples import NOW_NS, answer, boot, decision, open_ledger, outcome, refusal, ruleset

HERE = Path(__file__).parent
EVERY = os.environ.get("BORDERPOST_TAMPER") == "all"
YEAR_NS = 365 * 86_400_000_000_000
VIOLATION = Violation("no-deletes", "policy-denied", "Deleting is not permitted.")
WOULD = (Violation("trial", "policy-denied", "Not yet."),)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small ledger that has everything, closed; its last entry is a checkpoint."""
    directory = tmp_path_factory.mktemp("home")
    ledger = open_ledger(directory)
    ledger.append(boot(versions=Vault.of(Confdir.open(directory / "conf")).key_ids))
    ledger.append(ruleset())
    ledger.append(decision("c_1", would=WOULD))
    ledger.append(outcome("c_1"), answer("c_1", until_ns=NOW_NS + YEAR_NS))
    ledger.checkpoint(NOW_NS)
    ledger.append(refusal("c_2", violations=(VIOLATION,)))
    ledger.append(decision("c_3", detail="", facts={}))
    ledger.append(decision("c_4"))
    ledger.append(CommandEntry(NOW_NS, "shutdown", "ada", {}))
    ledger.checkpoint(NOW_NS)
    ledger.close()
    return directory


@pytest.fixture
def path(home: Path, tmp_path: Path) -> Path:
    """A copy of it, to tamper with."""
    return Path(shutil.copy(home / "ledger.db", tmp_path / "ledger.db"))


def anchor_of(home: Path) -> Note:
    """The last checkpoint, as it was exported."""
    with closing(sqlite3.connect(home / "ledger.db")) as connection:
        found = connection.execute("SELECT rest ->> '$.note' FROM entries WHERE kind = 'checkpoint' ORDER BY seq DESC")
        return parse_note(found.fetchone()[0])


def public_of(home: Path) -> bytes:
    return Signer((home / "conf" / "signing.key").read_bytes()).verifier("").public


def check(path: Path, home: Path, *, anchored: bool = True) -> Verdict:
    return verify(path, anchor_of(home) if anchored else None, public_of(home), lambda done, total: None)


def test_a_ledger_as_it_was_written_is_good(home: Path) -> None:
    verdict = check(home / "ledger.db", home)
    assert (verdict.result, verdict.finding) == ("good", None)
    assert (verdict.entries, verdict.checkpoints, verdict.sealed, verdict.anchored) == (10, 2, 9, 9)


def test_without_an_anchor_nobody_can_know(home: Path) -> None:
    verdict = check(home / "ledger.db", home, anchored=False)
    assert (verdict.result, verdict.finding, verdict.anchored) == ("inconclusive", None, 0)


def test_without_a_key_the_ledgers_own_is_taken_and_named_so(home: Path) -> None:
    verdict = verify(home / "ledger.db", None, None, lambda done, total: None)
    assert (verdict.result, verdict.own_key, verdict.sealed) == ("inconclusive", True, 9)


# Somebody who writes into the file with SQL, and takes the triggers away for it


def unlocked(path: Path, *statements: str) -> None:
    """Run `statements` without triggers, then put the triggers back as they were."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in TRIGGERS:
            connection.execute(f"DROP TRIGGER {statement.split()[2]}")
        for statement in statements:
            connection.execute(statement)
        for statement in TRIGGERS:
            connection.execute(statement)


COPY = ", ".join(COLUMNS[1:])
TAMPERING: dict[str, tuple[list[str], int | None, str]] = {
    "change a column": (["UPDATE entries SET agent = 'x' WHERE seq = 6"], 6, "entry 6 is not what was written"),
    "change the rest": (["UPDATE entries SET rest = '{}' WHERE seq = 9"], 9, "entry 9 is not what was written"),
    "change a hash": (["UPDATE entries SET hash = zeroblob(32) WHERE seq = 2"], 2, "entry 2 is not what was written"),
    "change what it follows": (["UPDATE entries SET prev = zeroblob(32) WHERE seq = 4"], 4, "names another entry"),
    "text for a number": (["UPDATE entries SET status = '200' WHERE seq = 6"], 6, "entry 6 is not what was written"),
    "delete one": (["DELETE FROM entries WHERE seq = 6"], 6, "entry 6 is missing: entry 7 stands in its place"),
    "delete the first": (["DELETE FROM entries WHERE seq = 1"], 1, "entry 1 is missing"),
    "delete all": (["DELETE FROM entries"], 1, "entry 1 is missing: the anchor tells of 9"),
    "cut the end": (["DELETE FROM entries WHERE seq >= 8", "DELETE FROM payloads WHERE seq >= 8"], 8, "is missing"),
    "close the gap": (
        ["DELETE FROM entries WHERE seq = 6", "UPDATE entries SET seq = seq - 1 WHERE seq > 6"], 6, "does not follow",
    ),
    "swap two": (
        ["UPDATE entries SET seq = -1 WHERE seq = 6", "UPDATE entries SET seq = 6 WHERE seq = 7",
         "UPDATE entries SET seq = 7 WHERE seq = -1"], 6, "entry 6 does not follow entry 5",
    ),
    "put one in": (
        ["UPDATE entries SET seq = -seq - 1 WHERE seq > 5", "UPDATE entries SET seq = -seq WHERE seq < 0",
         f"INSERT INTO entries SELECT 6, {COPY} FROM entries WHERE seq = 3"], 6, "entry 6 does not follow entry 5",
    ),
    "replace one by another": (
        [f"REPLACE INTO entries SELECT 8, {COPY} FROM entries WHERE seq = 3"], 8, "entry 8 does not follow entry 7",
    ),
    "change what was read": (
        ["UPDATE payloads SET content = replace(content, '500', '5') WHERE seq = 3"], 3, "payload of entry 3 is not",
    ),
    "change a salt": (["UPDATE payloads SET salt = x'00' WHERE seq = 8"], 8, "the payload of entry 8 is not"),
    "take away what was read": (["DELETE FROM payloads WHERE seq = 6"], 6, "the payload of entry 6 is missing"),
    "put in what was never read": (["INSERT INTO payloads VALUES (2, x'00', '{}')"], 2, "a payload for entry 2"),
    "read for a call that read nothing": (["INSERT INTO payloads VALUES (7, x'00', '{}')"], 7, "payload of entry 7"),
    "hide from a rule": (["DELETE FROM entry_rules WHERE rule = 'no-deletes'"], 6, "found by the rule `no-deletes`"),
    "hide from a rule in monitor mode": (["DELETE FROM entry_rules WHERE rule = 'trial'"], 3, "by the rule `trial`"),
    "show under a rule": (["INSERT INTO entry_rules VALUES ('x', 3)"], 3, "entry 3 is found by the rule `x`"),
    "show what is not there": (["INSERT INTO entry_rules VALUES ('x', 99)"], 99, "is found by the rule `x`"),
    "change a total": (["UPDATE totals SET calls = 1 WHERE decision = 'allow'"], None, "table `totals` was changed"),
    "change a count": (["UPDATE codes SET calls = 9"], None, "table `codes` was changed"),
    "change an answer": (["UPDATE answers SET sealed = x'00'"], None, "answer kept for the call `c_1` is not the one"),
    "keep an answer longer": (["UPDATE answers SET until_ns = until_ns + 1"], None, "kept for the call `c_1` is not"),
    "give an answer to another call": (["UPDATE answers SET id = 'c_3'"], None, "kept for the call `c_3` is not"),
    "take an answer away": (["DELETE FROM answers"], None, "the answer kept for the call `c_1` is missing"),
    "another name": (["UPDATE meta SET value = 'x' WHERE name = 'origin'"], None, "this is the ledger `x`"),
    "another key": (["UPDATE meta SET value = 'x' WHERE name = 'vault_key'"], 1, "another `vault.key` than the file"),
    "a name more": (["INSERT INTO meta VALUES ('x', 'y')"], None, "the table `meta` was changed"),
    "another version": (["PRAGMA user_version = 0"], None, "does not say that it is a ledger"),
    "another program's": (["PRAGMA application_id = 1"], None, "does not say that it is a ledger"),
    "drop a trigger": (["DROP VIEW runs"], None, "the view `runs` is missing"),
    "another view": (["DROP VIEW runs", "CREATE VIEW runs AS SELECT 1"], None, "the view `runs` was changed"),
    "drop an index": (["DROP INDEX entries_at"], None, "the index `entries_at` is missing"),
    "a trigger more": (
        ["CREATE TRIGGER x AFTER INSERT ON entries BEGIN DELETE FROM answers; END"], None, "there is a trigger `x`",
    ),
    "a table more": (["CREATE TABLE x (y)"], None, "there is a table `x`"),
}  # fmt: skip


@pytest.mark.parametrize(("statements", "seq", "what"), TAMPERING.values(), ids=list(TAMPERING))
def test_every_tampering_is_reported_at_its_first_entry(
    path: Path, home: Path, statements: list[str], seq: int | None, what: str
) -> None:
    unlocked(path, *statements)
    verdict = check(path, home)
    assert verdict.result == "broken"
    assert verdict.finding is not None
    assert what in verdict.finding.what
    assert verdict.finding.seq == seq
    assert verdict.finding.means


@pytest.mark.parametrize("name", TAMPERING)
def test_each_of_them_is_seen_without_an_anchor_too(path: Path, home: Path, name: str) -> None:
    unlocked(path, *TAMPERING[name][0])
    # Also a cut end, by what still stands beside the entries. Somebody careful takes that away: see below.
    assert check(path, home, anchored=False).result == "broken"


def test_a_cut_end_is_inconclusive_without_an_anchor_and_broken_with_one(path: Path, home: Path) -> None:
    unlocked(
        path,
        "DELETE FROM payloads WHERE seq >= 8",
        "DELETE FROM entry_rules WHERE seq >= 8",
        "DELETE FROM entries WHERE seq >= 8",
        "UPDATE totals SET calls = 2 WHERE decision = 'allow'",
    )
    assert check(path, home, anchored=False).result == "inconclusive"
    verdict = check(path, home)
    assert verdict.result == "broken"
    assert verdict.finding is not None
    assert verdict.finding.what == "entry 8 is missing: the anchor tells of 9 entries"


@pytest.mark.parametrize("statement", TRIGGERS, ids=lambda statement: statement.split()[2])
def test_a_trigger_that_was_taken_away_is_missed(path: Path, home: Path, statement: str) -> None:
    name = statement.split()[2]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP TRIGGER {name}")
    verdict = check(path, home, anchored=False)
    assert verdict.finding is not None
    assert verdict.finding.what == f"the trigger `{name}` is missing"


# Somebody who knows how the chain is made


def written_anew(path: Path, first: int, **changed: object) -> None:
    """Change entry `first`, and make every hash from there on right."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in TRIGGERS:
            connection.execute(f"DROP TRIGGER {statement.split()[2]}")
        rows = connection.execute("SELECT * FROM entries ORDER BY seq").fetchall()
        prev = bytes(32)
        for row in rows:
            values = dict(zip(COLUMNS, row, strict=True))
            if values["seq"] == first:
                values |= changed
            seq, *columns = tuple(values.values())[:-2]
            digest = chain(prev, seq, columns)
            connection.execute(
                f"UPDATE entries SET {', '.join(f'{name} = ?' for name in COLUMNS[1:])} WHERE seq = ?",
                (*columns, prev, digest, seq),
            )
            prev = digest
        for statement in TRIGGERS:
            connection.execute(statement)


@pytest.mark.parametrize(("first", "found"), [(2, 5), (4, 5), (6, 9), (9, 9)])
def test_a_chain_that_was_written_anew_does_not_match_what_was_signed(
    path: Path, home: Path, first: int, found: int
) -> None:
    written_anew(path, first, at_ns=NOW_NS + 1)
    verdict = check(path, home)
    assert verdict.finding is not None
    assert verdict.finding.seq == found
    assert (
        "was signed over other entries" in verdict.finding.what or "not the one that the anchor" in verdict.finding.what
    )
    unsigned = check(path, home, anchored=False)
    assert (unsigned.result, unsigned.finding and unsigned.finding.seq) == ("broken", 5 if found == 5 else 10)


def test_what_stands_after_the_anchor_is_not_claimed_to_be_anchored(path: Path, home: Path) -> None:
    """The last entry was written anew. The anchor tells of the nine before it, and so does the verdict."""
    written_anew(path, 10, at_ns=NOW_NS + 1)
    verdict = check(path, home)
    assert (verdict.result, verdict.anchored, verdict.entries) == ("good", 9, 10)


def test_who_has_no_key_cannot_sign_anew(path: Path, home: Path, tmp_path: Path) -> None:
    """A whole new ledger under the old name, signed with another key."""
    with closing(sqlite3.connect(path)) as connection:
        origin = connection.execute("SELECT value FROM meta WHERE name = 'origin'").fetchone()[0]
    forged = tmp_path / "forged.db"
    confdir = Confdir.open(home / "conf")
    vault = Vault(confdir.hash_key, confdir.vault_key, b"f" * 32)
    Ledger.open(forged, vault, owner="x").close()
    unlocked(forged, f"UPDATE meta SET value = '{origin}' WHERE name = 'origin'")
    ledger = Ledger.open(forged, vault, owner="x")
    for n in range(20):
        ledger.append(refusal(f"c_{n}"))
    ledger.checkpoint(NOW_NS)
    ledger.close()
    for anchored, what in (
        (True, "entry 9 is not the one that the anchor"),
        (False, "not signed by this ledger's key"),
    ):
        verdict = check(forged, home, anchored=anchored)
        assert verdict.finding is not None
        assert what in verdict.finding.what


def test_an_entry_that_makes_no_sense_is_broken_and_no_fault_of_ours(path: Path, home: Path) -> None:
    for rest in ("", "[]", "nonsense", '{"payload": 5}'):
        copy = Path(shutil.copy(path, path.with_name("copy.db")))
        written_anew(copy, 3, rest=rest)
        verdict = verify(copy, None, public_of(home), lambda done, total: None)
        assert verdict.finding is not None
        assert verdict.finding.seq == 3


# The anchor


def test_an_anchor_of_another_ledger_is_broken(home: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir(mode=0o700)
    for key in (home / "conf").glob("*.key"):
        shutil.copy(key, tmp_path / "conf")
    other = open_ledger(tmp_path)
    other.append(refusal())
    other.checkpoint(NOW_NS)
    other.close()
    verdict = check(other.path, home)
    assert verdict.finding is not None
    assert "and the anchor is of `borderpost/" in verdict.finding.what


def test_an_anchor_that_was_not_signed_by_the_key_shows_nothing(home: Path) -> None:
    forged = Signer(b"f" * 32).sign(anchor_of(home).origin, 9, anchor_of(home).root)
    for public in (public_of(home), None):
        with pytest.raises(LedgerError, match="the anchor is not signed by"):
            verify(home / "ledger.db", parse_note(forged), public, lambda done, total: None)


# Somebody with an editor for bytes, and faults of the disk


def content(path: Path) -> list[Any]:
    """All that anybody can read from a ledger, but for the commands, which are no part of the record."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        names = ("meta", "entries", "entry_rules", "payloads", "answers", "totals", "calls", "decisions", "runs")
        statements = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name")
        form = [(kind, name, (sql or "").split()) for kind, name, sql in statements]
        return [form, *(sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names)]


def smaller(path: Path) -> None:
    """Write the file anew with small pages, so that little of it is not in use."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in ("journal_mode = DELETE", "page_size = 512", "journal_mode = WAL"):
            connection.execute(f"PRAGMA {statement}")
            connection.execute("VACUUM")


@pytest.mark.parametrize("mask", [0xFF, 0x01])
def test_no_changed_byte_makes_a_good_ledger_of_another_content(path: Path, home: Path, mask: int) -> None:
    smaller(path)
    whole, before = path.read_bytes(), content(path)
    anchor, public = anchor_of(home), public_of(home)
    seen: Counter[str] = Counter()
    for index in range(len(whole)) if EVERY else [*range(mask % 3, 100, 3), *range(mask % 7, len(whole), 397)]:
        changed = bytearray(whole)
        changed[index] ^= mask
        path.write_bytes(changed)
        try:
            result = verify(path, anchor, public, lambda done, total: None).result
        except LedgerError:
            result = "inconclusive"
        finally:
            for name in ("ledger.db-wal", "ledger.db-shm"):
                path.with_name(name).unlink(missing_ok=True)
        seen[result] += 1
        if result == "good":  # the byte is one that says nothing, such as one that is not in use
            assert content(path) == before, f"byte {index} ^ {mask:#x}"
    assert seen["broken"] and seen["good"]
    print(f"of {sum(seen.values())} bytes of {len(whole)}: {dict(seen)}")  # noqa: T201  seen with `make tamper`


@pytest.mark.parametrize("kept", [0, 1, 99, 4096, 8192, 40_000])
def test_a_file_that_was_cut_is_never_good(path: Path, home: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    assert check(path, home).result == "broken"


# Where a ledger is


def test_a_ledger_is_checked_while_a_proxy_writes(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append(boot())
    for n in range(5_000):
        ledger.append(decision(f"c_{n}"))
        if n % 500 == 0:
            verdict = verify(ledger.path, None, public_of(tmp_path), lambda done, total: None)
            assert (verdict.result, verdict.finding) == ("inconclusive", None)
    ledger.close()
    verdict = verify(ledger.path, None, public_of(tmp_path), lambda done, total: None)
    assert (verdict.result, verdict.entries) == ("inconclusive", 5_001 + verdict.checkpoints)


def test_the_ledger_of_a_dead_proxy_is_checked_with_its_write_ahead_log(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for n in range(50):
        ledger.append(decision(f"c_{n}"))
    ledger.checkpoint(NOW_NS)
    while (
        not ledger.path.with_name("ledger.db-wal").exists()
        or verify(ledger.path, None, None, lambda done, total: None).entries < 51
    ):
        pass
    dead = tmp_path / "dead"
    dead.mkdir()
    for file in tmp_path.glob("ledger.db*"):
        shutil.copy(file, dead)
    ledger.close()
    assert check(dead / "ledger.db", tmp_path, anchored=False).entries == 51


def test_pruning_breaks_nothing(home: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(home / "ledger.db", tmp_path / "ledger.db"))
    ledger = Ledger.open(path, Vault.of(Confdir.open(home / "conf")), owner="x")
    assert ledger.prune(NOW_NS + YEAR_NS, NOW_NS + 1, "ada")[0] == 9
    ledger.close()
    again = Ledger.open(path, Vault.of(Confdir.open(home / "conf")), owner="x")
    while again._writing.prune_through:
        pass
    again.close()
    verdict = check(path, home)
    assert (verdict.result, verdict.pruned, verdict.finding) == ("good", 9, None)
    unlocked(path, "DELETE FROM entry_rules WHERE rule = 'trial'")
    assert check(path, home).result == "broken", "also what was given up is found by its rules"


def test_a_ledger_of_schema_1_verifies_when_it_was_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((HERE / "schema-1.sql").read_text())
    with pytest.raises(LedgerError, match="`borderpost log checkpoint` brings it up to date"):
        verify(path, None, None, lambda done, total: None)
    ledger = Ledger.open(path, Vault(b"h" * 32, b"v" * 32, b"s" * 32), owner="x")
    ledger.append(BootEntry(NOW_NS, "b_2", "serve", 1, "", {}))
    ledger.checkpoint(NOW_NS)
    ledger.close()
    verdict = verify(path, None, None, lambda done, total: None)
    assert (verdict.result, verdict.finding, verdict.entries) == ("inconclusive", None, 9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no ledger at"),
        (lambda path: path.mkdir(), "cannot read the ledger .*: it is a directory; give a file"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match=message):
        verify(tmp_path / "ledger.db", None, None, lambda done, total: None)
