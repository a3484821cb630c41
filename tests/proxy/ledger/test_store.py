"""The writer: what it says is recorded is on the disk, in order, and what it cannot record it refuses."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.confdir import Confdir
from proxy.ledger import store
from proxy.ledger.entries import CheckpointEntry, Entry, LedgerError, StoredAnswer
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from tests.proxy.ledger.samples import NOW_NS, answer, boot, decision, open_ledger, outcome, refusal

HOUSE = Path(__file__).parents[3]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = open_ledger(tmp_path)
    yield ledger
    if not ledger.failed:
        ledger.close()


def read_elsewhere(path: Path, sql: str) -> list[list[object]]:
    """What another process reads from the file."""
    code = "import json, sqlite3, sys; print(json.dumps(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()))"
    output = subprocess.check_output([sys.executable, "-c", code, str(path), sql], text=True)
    found: list[list[object]] = json.loads(output)
    return found


async def test_what_is_durable_can_be_read_by_another_process(ledger: Ledger) -> None:
    for n in range(3):
        seq = ledger.append(decision(f"c_{n}"))
        await ledger.durable(seq)
        assert read_elsewhere(ledger.path, "SELECT seq, id FROM entries ORDER BY seq DESC LIMIT 1") == [[seq, f"c_{n}"]]


async def test_seqs_are_given_at_once_and_in_order(ledger: Ledger) -> None:
    entries: list[Entry] = [boot(), decision("c_1"), refusal("c_2"), outcome("c_1")]
    assert [ledger.append(entry) for entry in entries] == [1, 2, 3, 4]
    await ledger.durable(4)
    assert list(ledger.history.entries()) == list(enumerate(entries, 1))


def test_what_nobody_waits_for_is_written_all_the_same(ledger: Ledger) -> None:
    ledger.append(refusal())
    tries = 0
    while not read_elsewhere(ledger.path, "SELECT seq FROM entries"):
        tries += 1
        assert tries < 1_000


async def test_ten_thousand_that_wait_at_once(ledger: Ledger) -> None:
    async def record(n: int) -> None:
        seq = ledger.append(decision(f"c_{n}"))
        await ledger.durable(seq)

    await asyncio.gather(*(record(n) for n in range(10_000)))
    history = list(ledger.history.entries())
    assert [seq for seq, _ in history] == [*range(1, len(history) + 1)]
    decided = [entry for _, entry in history if not isinstance(entry, CheckpointEntry)]
    assert decided == [decision(f"c_{n}") for n in range(10_000)]


async def test_many_that_wait_share_a_transaction(ledger: Ledger) -> None:
    """`data_version` changes once for every transaction of somebody else."""
    with closing(sqlite3.connect(ledger.path)) as connection:
        first = connection.execute("PRAGMA data_version").fetchone()[0]
        await asyncio.gather(*(ledger.durable(ledger.append(refusal(f"c_{n}"))) for n in range(1_000)))
        last = connection.execute("PRAGMA data_version").fetchone()[0]
    assert 1 <= last - first <= 10


async def test_one_that_no_longer_waits_does_not_disturb_the_others(ledger: Ledger) -> None:
    seqs = [ledger.append(decision(f"c_{n}")) for n in range(3)]
    waits = [asyncio.ensure_future(ledger.durable(seq)) for seq in seqs]
    await asyncio.sleep(0)
    waits[1].cancel()
    await asyncio.gather(waits[0], waits[2])
    with pytest.raises(asyncio.CancelledError):
        await waits[1]
    assert len(list(ledger.history.entries())) == 3


async def test_a_restart_goes_on_where_it_ended(tmp_path: Path) -> None:
    first = open_ledger(tmp_path)
    first.append(decision())
    first.close()
    second = open_ledger(tmp_path)
    seq = second.append(outcome())
    await second.durable(seq)
    assert list(second.history.entries()) == [(1, decision()), (2, outcome())]
    assert read_elsewhere(second.path, "SELECT seq, call_seq FROM entries") == [[1, 1], [2, 1]]
    second.close()


async def test_totals_agree_with_the_entries(tmp_path: Path) -> None:
    for start in (0, 10):
        ledger = open_ledger(tmp_path)
        for n in range(start, start + 10):
            await ledger.durable(ledger.append(decision(f"c_{n}") if n % 3 else refusal(f"c_{n}", count=n + 1)))
        ledger.close()
    counted = read_elsewhere(ledger.path, "SELECT decision, sum(calls) FROM entries GROUP BY 1 ORDER BY 1")
    assert counted == read_elsewhere(ledger.path, "SELECT decision, calls FROM totals ORDER BY 1")
    assert [key for key, _ in counted] == ["allow", "deny"]
    by_code = read_elsewhere(ledger.path, "SELECT code, calls FROM codes")
    assert by_code == [["policy-denied", counted[1][1]]]


async def test_what_is_queued_counts_as_that_though_its_seal_is_not(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_slow(*_: object) -> int:
        raise LedgerError("the disk is too slow")

    monkeypatch.setattr(Ledger, "checkpoint", too_slow)
    monkeypatch.setattr(store, "SEAL_ENTRIES", 1)
    seq = ledger.append(boot())
    await ledger.durable(seq)
    assert read_elsewhere(ledger.path, f"SELECT kind FROM entries WHERE seq = {seq}") == [["boot"]]


async def test_a_closed_ledger_takes_nothing(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append(refusal())
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.append(refusal())
    assert len(read_elsewhere(ledger.path, "SELECT seq FROM entries")) == 1


# Answers kept for replay


async def test_an_answer_is_there_before_and_after_it_is_written(ledger: Ledger) -> None:
    ledger.append(decision())
    seq = ledger.append(outcome(), answer())
    assert ledger.answer("c_1") == answer()
    await ledger.durable(seq)
    assert ledger.answer("c_1") == answer()
    assert ledger.answer("c_2") is None


async def test_answers_survive_a_restart(tmp_path: Path) -> None:
    first = open_ledger(tmp_path)
    first.append(outcome(), answer())
    first.close()
    second = open_ledger(tmp_path)
    assert second.answer("c_1") == answer()
    second.close()


@pytest.mark.parametrize(("now_ns", "kept"), [(NOW_NS + 999_999_999, True), (NOW_NS + 1_000_000_000, False)])
async def test_an_answer_is_gone_when_its_time_is_over(ledger: Ledger, now_ns: int, kept: bool) -> None:
    ledger.append(outcome(), answer(until_ns=NOW_NS + 1_000_000_000))
    await ledger.durable(ledger.append(refusal("c_2", at_ns=now_ns)))
    assert (ledger.answer("c_1") is not None) == kept


async def test_expired_answers_are_deleted_a_few_at_a_time(ledger: Ledger) -> None:
    for n in range(20):
        ledger.append(outcome(f"c_{n}"), answer(f"c_{n}", until_ns=NOW_NS + 1 + n))
    await ledger.durable(20)
    left = []
    for at_ns in (NOW_NS + 100, NOW_NS + 101, NOW_NS + 102):
        await ledger.durable(ledger.append(refusal(at_ns=at_ns)))
        left += read_elsewhere(ledger.path, "SELECT count(*) FROM answers")
    assert left == [[12], [4], [0]]


async def test_the_chain_knows_the_sealed_answer(ledger: Ledger) -> None:
    await ledger.durable(ledger.append(outcome(), answer()))
    with closing(sqlite3.connect(ledger.path)) as connection:
        stored, sealed = connection.execute(
            "SELECT e.rest ->> '$.stored', a.sealed FROM entries e, answers a"
        ).fetchone()
    assert stored == Vault(b"h" * 32, b"v" * 32).digest(sealed)


# Secrets


async def test_no_secret_reaches_the_disk(tmp_path: Path) -> None:
    """Every byte of every file, while it is written and after it was closed."""
    secret = "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc"
    password, body, cookie = "correct horse battery", b"the answer's body", "session=abcdef"
    ledger = open_ledger(tmp_path)
    ledger.append(boot(command=f"borderpost run -- agent --key {secret}"))
    ledger.append(
        decision(
            path=f"/v1/{secret}",
            detail=f"`body.password` is {password}",
            facts={"body.password": password, "header.cookie": cookie, "query.q": secret, "body": {"secret": password}},
        )
    )
    kept = StoredAnswer("c_1", NOW_NS * 2, 200, b"OK", "HTTP/1.1", ((b"Set-Cookie", cookie.encode()),), body)
    await ledger.durable(ledger.append(outcome(error=f"no route for {secret}"), kept))

    def leaks() -> list[tuple[str, bytes]]:
        needles = [secret.encode(), password.encode(), body, cookie.encode()]
        files = [file for file in tmp_path.iterdir() if file.is_file()]
        assert ledger.path in files
        return [(file.name, needle) for file in files for needle in needles if needle in file.read_bytes()]

    assert leaks() == []
    ledger.close()
    assert leaks() == []


# One owner


def test_a_second_owner_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first = open_ledger(tmp_path)
    with pytest.raises(LedgerError, match=f"is in use by process {os.getpid()} .`borderpost test`.: try again when"):
        open_ledger(tmp_path)
    first.close()
    open_ledger(tmp_path).close()


def test_a_lock_of_a_process_that_is_gone_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "ledger.db.lock").write_text("4711 borderpost serve\n")
    open_ledger(tmp_path).close()


def test_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    """What `run` starts must not hold the ledger when the proxy has gone."""
    ledger = open_ledger(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        ledger.close()
        open_ledger(tmp_path).close()
        child.communicate(b"\n")


# Crashes

WRITER = """
import asyncio, sys
from pathlib import Path
from tests.proxy.ledger.samples import decision, open_ledger, outcome

async def main():
    ledger = open_ledger(Path(sys.argv[1]))
    async def record(worker):
        n = 0
        while True:
            n += 1
            seq = ledger.append(decision(f"c_{worker}_{n}"))
            await ledger.durable(seq)
            sys.stdout.write(f"{seq}\\n")
            sys.stdout.flush()
            ledger.append(outcome(f"c_{worker}_{n}"))
    await asyncio.gather(*(record(worker) for worker in range(8)))

asyncio.run(main())
"""


def test_after_kill_9_everything_that_was_durable_is_there(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=HOUSE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        told += [int(line) for line in child.stdout.read().splitlines() if line]
    ledger = open_ledger(tmp_path)
    recorded = [seq for seq, _ in ledger.history.entries()]
    assert recorded == list(range(1, len(recorded) + 1))
    assert set(told) <= set(recorded)
    assert ledger.append(boot()) == len(recorded) + 1
    ledger.close()


FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from proxy.ledger.entries import LedgerError
from tests.proxy.ledger.samples import decision, open_ledger

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

async def main():
    ledger = open_ledger(Path(sys.argv[1]))
    told, refused = [], []
    while not refused:
        seqs = [ledger.append(decision(f"c_{len(told)}_{n}", detail="x " * 200)) for n in range(50)]
        results = await asyncio.gather(*(ledger.durable(seq) for seq in seqs), return_exceptions=True)
        told += [seq for seq, result in zip(seqs, results) if result is None]
        refused += [result for result in results if result is not None]
    print(max(told), {type(result).__name__ for result in refused}, refused[0])
    for attempt in range(2):
        try:
            ledger.append(decision())
        except LedgerError as error:
            print(error)
    try:
        await ledger.durable(max(told) + 1)
    except LedgerError as error:
        print(error)
    await ledger.durable(max(told))
    try:
        ledger.close()
    except LedgerError as error:
        print(error)

asyncio.run(main())
"""


def test_when_the_disk_is_full_all_who_wait_are_told_and_nothing_more_is_taken(tmp_path: Path) -> None:
    output = subprocess.check_output([sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=HOUSE, text=True)
    first, *later = output.splitlines()
    last_told, rest = first.split(" ", 1)
    assert rest.startswith("{'LedgerError'} the ledger ")
    assert "cannot be written: " in rest
    assert later == [rest.removeprefix("{'LedgerError'} ")] * 4
    ledger = open_ledger(tmp_path)
    assert [seq for seq, _ in ledger.history.entries()] == list(range(1, int(last_told) + 1))
    ledger.close()


async def test_when_somebody_else_wrote_the_ledger_has_failed(tmp_path: Path) -> None:
    """A writer that ignores the lock breaks our chain; we notice before we say that anything is recorded."""
    ledger = open_ledger(tmp_path)
    await ledger.durable(ledger.append(boot()))
    with closing(sqlite3.connect(ledger.path)) as connection, connection:
        columns = (
            "at_ns, kind, call_seq, id, run, agent, tool, method, scheme, host, port, path, decision, code, rules, "
        )
        columns += "executed, status, ruleset, calls, outcome, duration_ns, answer_bytes, rest"
        connection.execute(f"INSERT INTO entries SELECT 2, {columns}, hash, zeroblob(32) FROM entries")
    with pytest.raises(LedgerError, match="cannot be written: the ledger is append-only: an entry must follow"):
        await ledger.durable(ledger.append(decision()))
    assert ledger.failed
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.append(decision())
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.close()


def test_the_lock_is_let_go_when_opening_fails(tmp_path: Path) -> None:
    Confdir.open(tmp_path / "conf")
    (tmp_path / "ledger.db").write_bytes(b"no database at all, but a text" * 100)
    with pytest.raises(LedgerError):
        open_ledger(tmp_path)
    with (tmp_path / "ledger.db.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
