"""What seals a ledger and what may be given up of it: checkpoints, pruning, and ledgers of the version before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger.entries import CheckpointEntry, LedgerError, PruneEntry
from proxy.ledger.note import Note, Signer, parse_note
from proxy.ledger.query import LedgerReader
from proxy.ledger.store import SEAL_ENTRIES, SEAL_NS, Ledger
from proxy.ledger.vault import Vault
from tests.proxy.ledger.samples import NOW_NS, answer, decision, open_ledger, outcome, refusal

HERE = Path(__file__).parent
MINUTE_NS = 60_000_000_000


def ask(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def notes(path: Path) -> dict[int, Note]:
    """The checkpoints by their seq."""
    found = ask(path, "SELECT seq, rest ->> '$.note' FROM entries WHERE kind = 'checkpoint' ORDER BY seq")
    return {seq: parse_note(note) for seq, note in found}


# Checkpoints


def test_a_checkpoint_names_the_entry_before_it(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append(decision())
    ledger.append(outcome())
    assert ledger.checkpoint(NOW_NS) == 3
    ledger.close()
    (note,) = notes(ledger.path).values()
    ((root,),) = ask(ledger.path, "SELECT hash FROM entries WHERE seq = 2")
    ((origin,),) = ask(ledger.path, "SELECT value FROM meta WHERE name = 'origin'")
    assert (note.origin, note.size, note.root) == (origin, 2, root)
    assert Signer((tmp_path / "conf" / "signing.key").read_bytes()).verifier(origin).check(note)


def test_a_thousand_entries_are_sealed_at_once(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for n in range(2 * SEAL_ENTRIES + 1):
        ledger.append(refusal(f"c_{n}"))
    ledger.close()
    assert [(seq, note.size) for seq, note in notes(ledger.path).items()] == [(1001, 1000), (2002, 2001)]


def test_ten_minutes_are_sealed_even_if_nothing_follows(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append(refusal("c_1"))
    ledger.checkpoint_if_due(NOW_NS + SEAL_NS - 1)
    ledger.append(refusal("c_2", at_ns=NOW_NS + SEAL_NS - 1))
    ledger.checkpoint_if_due(NOW_NS + SEAL_NS)
    ledger.checkpoint_if_due(NOW_NS + 9 * SEAL_NS)
    ledger.close()
    assert [(seq, note.size) for seq, note in notes(ledger.path).items()] == [(3, 2)]


def test_what_an_earlier_owner_left_unsealed_keeps_its_time(tmp_path: Path) -> None:
    first = open_ledger(tmp_path)
    first.append(refusal())
    first.close()
    second = open_ledger(tmp_path)
    second.append(refusal("c_2", at_ns=NOW_NS + SEAL_NS))
    second.close()
    assert [(seq, note.size) for seq, note in notes(second.path).items()] == [(3, 2)]


def test_nothing_is_sealed_twice(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append(refusal())
    assert [ledger.checkpoint(NOW_NS), ledger.checkpoint(NOW_NS)] == [2, 2]
    ledger.close()
    again = open_ledger(tmp_path)
    assert again.checkpoint(NOW_NS) == 2
    again.close()
    assert len(notes(ledger.path)) == 1


def test_the_key_is_made_on_first_use_and_belongs_to_the_ledger(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    key = tmp_path / "conf" / "signing.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    with pytest.raises(LedgerError, match=r"was written with another `signing\.key`: give the `--confdir`"):
        open_ledger(tmp_path)


# Pruning


async def pruned(directory: Path, before_ns: int, *, sealed: bool = True) -> tuple[Ledger, tuple[int, int]]:
    """A ledger with two decisions on each of three minutes, sealed after the fourth, and pruned."""
    ledger = open_ledger(directory)
    for n in range(6):
        if n == 4 and sealed:
            ledger.checkpoint(NOW_NS + 2 * MINUTE_NS)
        ledger.append(decision(f"c_{n}", at_ns=NOW_NS + n // 2 * MINUTE_NS, changes=()))
    seq = ledger.append(outcome("c_0", at_ns=NOW_NS + 2 * MINUTE_NS))
    await ledger.durable(seq)
    result = ledger.prune(NOW_NS + 3 * MINUTE_NS, before_ns, "ada")
    return ledger, result


async def finish(ledger: Ledger) -> None:
    """Wait until all that was to be given up is gone."""
    while ask(
        ledger.path, "SELECT count(*) FROM payloads WHERE seq <= (SELECT max(rest ->> '$.through') FROM entries)"
    )[0][0]:
        await ledger.durable(ledger.append(refusal("c_9", at_ns=NOW_NS + 4 * MINUTE_NS)))
    ledger.close()


PRUNED = [
    ("older than the second minute", NOW_NS + MINUTE_NS, True, (2, 2), [3, 4, 6, 7]),
    ("older than the third minute", NOW_NS + 2 * MINUTE_NS, True, (4, 4), [6, 7]),
    ("everything, but only what is sealed", NOW_NS + 9 * MINUTE_NS, True, (4, 4), [6, 7]),
    ("nothing is old enough", NOW_NS, True, (0, 0), [1, 2, 3, 4, 6, 7]),
    ("nothing is sealed", NOW_NS + 9 * MINUTE_NS, False, (0, 0), [1, 2, 3, 4, 5, 6]),
]


@pytest.mark.parametrize(
    ("before_ns", "sealed", "result", "left"), [case[1:] for case in PRUNED], ids=[case[0] for case in PRUNED]
)
async def test_prune_gives_up_what_is_sealed_and_old_enough(
    tmp_path: Path, before_ns: int, sealed: bool, result: tuple[int, int], left: list[int]
) -> None:
    ledger, got = await pruned(tmp_path, before_ns, sealed=sealed)
    assert got == result
    ledger.append(refusal("c_8", at_ns=NOW_NS + 4 * MINUTE_NS, detail="", facts={}, violations=()))
    if result[1]:
        await finish(ledger)
    else:
        ledger.close()
    assert [seq for (seq,) in ask(ledger.path, "SELECT seq FROM payloads WHERE seq <= 7")] == left


async def test_pruning_is_on_record_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    ledger, (through, _) = await pruned(tmp_path, NOW_NS + 2 * MINUTE_NS)
    ledger.close()  # at once: whatever is not done yet is done by the next owner
    again = open_ledger(tmp_path)
    assert again.prune(NOW_NS + 3 * MINUTE_NS, NOW_NS + 2 * MINUTE_NS, "ada") == (through, 0)
    entries = [entry for _, entry in again.history.entries() if isinstance(entry, PruneEntry)]
    assert entries == [PruneEntry(NOW_NS + 3 * MINUTE_NS, through, NOW_NS + 2 * MINUTE_NS, "ada")]
    await finish(again)
    with LedgerReader.open(again.path) as reader:
        gone, kept = reader.show("c_0"), reader.show("c_5")
    assert (gone.pruned, gone.detail, gone.facts, gone.call.decision, gone.call.rules) == (
        True,
        "",
        {},
        "allow",
        ("small-refunds",),
    )
    assert (kept.pruned, kept.facts) == (False, {"body.amount": 500, "body.charge": "ch_1"})


async def test_answers_that_can_still_be_replayed_are_never_pruned(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append(decision())
    ledger.append(outcome(), answer(until_ns=NOW_NS + 9 * MINUTE_NS))
    await ledger.durable(ledger.checkpoint(NOW_NS))
    assert ledger.prune(NOW_NS + 3 * MINUTE_NS, NOW_NS + 2 * MINUTE_NS, "ada") == (2, 2)
    await finish(ledger)
    assert ask(ledger.path, "SELECT id FROM answers") == [("c_1",)]


PROTECTED = {
    "delete what is not pruned": "DELETE FROM payloads WHERE seq = 6",
    "delete all": "DELETE FROM payloads",
    "change": "UPDATE payloads SET content = '{}'",
    "replace": "REPLACE INTO payloads VALUES (6, x'00', '{}')",
}


@pytest.mark.parametrize("statement", PROTECTED.values(), ids=list(PROTECTED))
async def test_payloads_are_protected_as_the_entries_are(tmp_path: Path, statement: str) -> None:
    ledger, _ = await pruned(tmp_path, NOW_NS + MINUTE_NS)
    ledger.close()
    with (
        closing(sqlite3.connect(ledger.path)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="the ledger is append-only"),
    ):
        connection.execute(statement)


# A ledger of the version before


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A ledger of schema 1."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((HERE / "schema-1.sql").read_text())
    return path


VAULT = Vault(b"h" * 32, b"v" * 32, b"s" * 32)
TOLD = """
    SELECT c.id, c.at, c.decision, c.would, c.detail, c.executed, c.outcome, d.violations, d.facts, d.fingerprint
    FROM calls c JOIN decisions d USING (seq) ORDER BY seq
"""


def test_a_ledger_of_schema_1_is_brought_up_to_date_and_keeps_its_data(old: Path) -> None:
    before = ask(old, "SELECT * FROM entries ORDER BY seq")
    told = ask(old, TOLD)
    ledger = Ledger.open(old, VAULT, owner="borderpost test")
    assert ledger.append(decision("c_4")) == len(before) + 1
    ledger.checkpoint(NOW_NS)
    assert ledger.answer("c_1") is not None
    ledger.close()
    assert ask(old, "PRAGMA user_version") == [(3,)]
    assert ask(old, "SELECT * FROM entries ORDER BY seq")[: len(before)] == before
    assert ask(old, TOLD)[: len(told)] == told
    assert ask(old, "SELECT seq FROM payloads") == [(8,)]
    counted = "SELECT code, sum(calls) FROM entries WHERE decision IS NOT NULL AND code IS NOT NULL GROUP BY code"
    assert ask(old, "SELECT code, calls FROM codes ORDER BY code") == ask(old, f"{counted} ORDER BY code") != []
    with LedgerReader.open(old) as reader:
        assert [row.seq for row in reader.list()] == [8, 6, 5, 3]
    assert len(notes(old)) == 1


def test_what_is_new_has_the_same_form_in_a_migrated_ledger(old: Path, tmp_path: Path) -> None:
    Ledger.open(old, VAULT, owner="borderpost test").close()
    new = open_ledger(tmp_path / "new")
    new.close()
    sql = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"

    def form(path: Path) -> list[tuple[str, str, list[str]]]:
        return [(kind, name, (made or "").split()) for kind, name, made in ask(path, sql)]

    assert form(old) == form(new.path)


def test_a_ledger_of_schema_1_can_be_read_as_it_is(old: Path) -> None:
    with LedgerReader.open(old) as reader:
        shown = reader.show("c_1")
        assert [row.id for row in reader.list()] == ["c_3", "c_2", "c_1"]
    assert (shown.call.would, shown.detail, shown.pruned) == (("big-refunds",), "allowed by small-refunds", False)
    assert shown.facts == {"body.amount": 500, "body.charge": "ch_1"}
    assert ask(old, "PRAGMA user_version") == [(1,)]


def test_a_checkpoint_without_a_key_to_sign_with_is_none(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db", Vault(b"h" * 32, b"v" * 32), owner="borderpost test")
    ledger.append(refusal())
    assert ledger.checkpoint(NOW_NS) == 0
    assert not any(isinstance(entry, CheckpointEntry) for _, entry in ledger.history.entries())
    ledger.close()
