"""Bounds of a ledger: payloads are given up, on record; entries never are; rather than that, calls are refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from proxy.ledger.entries import LedgerError, PruneEntry
from proxy.ledger.room import Room
from proxy.ledger.store import Ledger
from proxy.ledger.verify import verify
from rules.ruleset import Bounds
from tests.proxy.ledger.samples import NOW_NS, decision, open_ledger, outcome, refusal

MIB = 1 << 20
DAY_NS = 86_400_000_000_000
FACTS = {f"body.field{n}": "x" * 200 for n in range(10)}

ROOMS = [
    ("without a bound there is always room", 0, 10 * MIB, 5_000, 0, (False, False, 0)),
    ("below 85 % nothing is given up", 100, 84, 5_000, 0, (False, False, 0)),
    ("from 85 % on the oldest thousand is given up", 100, 85, 5_000, 0, (False, False, 1_000)),
    ("of many, a tenth", 100, 90, 50_000, 10_000, (False, False, 14_000)),
    ("of few, all", 100, 90, 5_000, 4_500, (False, False, 5_000)),
    ("what is not sealed can not be given up", 100, 94, 0, 0, (False, False, 0)),
    ("what was given up can not be again", 100, 95, 5_000, 5_000, (False, True, 0)),
    ("when it is full, all", 100, 100, 50_000, 4_000, (True, True, 50_000)),
]


@pytest.mark.parametrize(
    ("max_bytes", "used_bytes", "sealed", "pruned", "told"), [case[1:] for case in ROOMS], ids=[c[0] for c in ROOMS]
)
def test_what_is_given_up_for_room(
    max_bytes: int, used_bytes: int, sealed: int, pruned: int, told: tuple[bool, bool, int]
) -> None:
    room = Room(Bounds(max_bytes), used_bytes)
    assert (room.full, room.near, room.through(sealed, pruned)) == told


async def fill(ledger: Ledger) -> int:
    """Record calls until no more can be recorded, though all was given up that can be; how many that were."""
    refused = 0
    for number in range(100_000):
        while True:
            try:
                seq = ledger.append(decision(f"c_{number}", facts=FACTS, at_ns=NOW_NS + number))
                break
            except LedgerError as error:
                assert "has reached its `max_size`: raise that in the rules" in str(error)
                refused += 1
                if refused == 3:
                    return number
                await ledger.idle()
        refused = 0
        if number % 100 == 0:
            await ledger.durable(seq)
    raise AssertionError("there is no end to it")


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


async def test_a_bounded_ledger_gives_up_payloads_first_and_then_refuses_and_loses_no_entry(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.bound(Bounds(max_bytes=8 * MIB))
    count = await fill(ledger)
    await ledger.idle()
    assert ledger.path.stat().st_size < 9 * MIB
    assert [entry_id for (entry_id,) in ask(ledger.path, "SELECT id FROM entries WHERE kind = 'decision'")] == [
        f"c_{number}" for number in range(count)
    ]
    prunes = [entry for _, entry in ledger.history.entries() if isinstance(entry, PruneEntry)]
    assert {entry.by for entry in prunes} == {"rules (max_size)"}
    assert len(prunes) > 3
    ((first_kept,),) = ask(ledger.path, "SELECT min(seq) FROM payloads")
    between = ask(ledger.path, f"SELECT kind FROM entries WHERE seq > {prunes[-1].through} AND seq < {first_kept}")
    assert {kind for (kind,) in between} <= {"checkpoint", "prune"}
    ledger.append(outcome("c_1", changes=()))  # what became of the calls that were let out is recorded all the same
    with pytest.raises(LedgerError, match="has reached its `max_size`"):
        ledger.append(refusal("c_x"))
    ledger.bound(Bounds(max_bytes=9 * MIB))
    await ledger.durable(ledger.append(refusal("c_y")))
    ledger.close()
    assert verify(ledger.path, None, None, lambda *_: None).finding is None


async def test_without_payloads_to_give_up_nothing_is_deleted(tmp_path: Path) -> None:
    """The first thousand entries are not sealed yet."""
    ledger = open_ledger(tmp_path)
    ledger.bound(Bounds(max_bytes=MIB))
    count = await fill(ledger)
    await ledger.idle()
    assert count < 1_000
    assert ask(ledger.path, "SELECT count(*) FROM payloads") == [(count,)]
    ledger.close()


async def test_a_full_ledger_is_full_after_a_restart(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.bound(Bounds(max_bytes=MIB))
    await fill(ledger)
    ledger.close()
    again = open_ledger(tmp_path)
    again.bound(Bounds(max_bytes=MIB))
    with pytest.raises(LedgerError, match="has reached its `max_size`"):
        again.append(refusal())
    again.bound(Bounds())
    again.append(refusal())
    again.close()


async def test_what_is_older_than_keep_is_given_up_by_itself(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for number in range(6):
        ledger.append(decision(f"c_{number}", at_ns=NOW_NS + number * DAY_NS))
    await ledger.durable(ledger.checkpoint(NOW_NS + 5 * DAY_NS))
    ledger.bound(Bounds(keep_ns=2 * DAY_NS))
    left = "SELECT id FROM payloads JOIN entries USING (seq) ORDER BY seq"
    for minutes in (0, 1, 9):  # at first, and then every ten minutes
        ledger.keep_bounds(NOW_NS + 5 * DAY_NS + minutes * 60_000_000_000)
        await ledger.idle()
        assert ask(ledger.path, left) == [("c_3",), ("c_4",), ("c_5",)]
    ledger.keep_bounds(NOW_NS + 5 * DAY_NS + 11 * 60_000_000_000)
    await ledger.idle()
    assert ask(ledger.path, left) == [("c_4",), ("c_5",)]
    prunes = [entry for _, entry in ledger.history.entries() if isinstance(entry, PruneEntry)]
    assert [entry.by for entry in prunes] == ["rules (keep)"] * 2
    ledger.close()
    assert verify(ledger.path, None, None, lambda *_: None).pruned == prunes[-1].through
