"""Snapshots: with what came after, they are the fold over everything; and whatever does not fit is not used."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.clock import Clock
from proxy.gate import Gate
from proxy.ledger import snapshot
from proxy.ledger.entries import Entry, LedgerError
from proxy.ledger.memory import Memory
from proxy.ledger.snapshot import Snapshots, path_of
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from proxy.ledger.verify import Verdict, verify
from proxy.runs import Runs
from rules.load import load
from tests.proxy.ledger.samples import VAULT, boot, decision, outcome, refusal
from tests.rules.world import LOST, OK, WITHDRAWN, World, answered, call

RULES = """
rules:
  - {id: pay, match: 'https://**', allow: true, dedupe: {window: 10m, methods: [POST, PUT]}, throttle: 3/min}
  - {id: slow, match: 'https://**', throttle: {pace: 9/h, burst: 2, by: agent}, mode: monitor}
  - {id: many, match: 'https://**', throttle: 5000/h}
"""

steps = st.lists(
    st.tuples(
        st.sampled_from(("POST", "PUT", "GET")),
        st.sampled_from(("/a", "/b", "/c")),
        st.sampled_from((OK, LOST, WITHDRAWN, answered(422), answered(429), None)),
        st.integers(0, 400),
    ),
    max_size=25,
)


def told(made: list[tuple[str, str, Any, int]]) -> list[Entry]:
    """What a proxy records of these calls: method, path, answer (None: it never came), seconds since the one before."""
    world = World(RULES)
    entries: list[Entry] = [boot()]
    at_s = 0
    for number, (method, path, answer, later_s) in enumerate(made):
        at_s += later_s
        decided = world.ask(call(method, path), at=at_s)
        call_id = f"call-{world.calls}"
        allowed = decided.action == "allow"
        known: dict[str, Any] = {"at_ns": world.at_ns, "agent": f"agent-{number % 2}", "run": f"r_{number // 5}"}
        entries.append((decision if allowed else refusal)(call_id, changes=decided.changes, **known))
        if allowed and answer is not None:
            entries.append(outcome(call_id, at_ns=world.at_ns, changes=world.end(answer, call_id).changes))
    return entries


def fold(entries: list[Entry]) -> Memory:
    memory = Memory()
    for seq, entry in enumerate(entries, 1):
        memory.fold(seq, entry)
    return memory


@contextmanager
def opened(path: Path, vault: Vault = VAULT) -> Iterator[Ledger]:
    ledger = Ledger.open(path, vault, owner="borderpost test")
    try:
        yield ledger
    finally:
        ledger.close()


def record(path: Path, entries: list[Entry]) -> None:
    with opened(path) as ledger:
        for entry in entries:
            ledger.append(entry)


def take(path: Path) -> None:
    with opened(path) as ledger:
        Snapshots(ledger).take()


def recall(path: Path, vault: Vault = VAULT) -> Memory:
    with opened(path, vault) as ledger:
        return Snapshots(ledger).recall()


@given(steps, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=20)
def test_a_snapshot_and_what_came_after_are_the_fold_of_everything(
    made: list[tuple[str, str, Any, int]], first: float, second: float
) -> None:
    entries = told(made)
    cuts = sorted(int(part * len(entries)) for part in (first, second))
    with TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.db"
        for start, end in zip([0, *cuts], cuts, strict=False):
            record(path, entries[start:end])
            take(path)  # the second one is made from the first and what came after
        record(path, entries[cuts[-1] :])
        assert recall(path) == fold(entries)


def test_a_snapshot_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.db"
    entries = told([("POST", f"/{n}", OK, 1) for n in range(9)])
    record(path, entries)
    take(path)
    record(path, [refusal("c_new")])
    folded: list[int] = []
    original = Memory.fold

    def counted(memory: Memory, seq: int, entry: Entry) -> None:
        folded.append(seq)
        original(memory, seq, entry)

    monkeypatch.setattr(Memory, "fold", counted)
    assert recall(path).seq == len(entries) + 1
    assert folded == [len(entries) + 1]


def test_a_start_takes_up_what_the_snapshot_says(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    record(path, told([("POST", "/a", None, 1), ("POST", "/b", OK, 1)]))
    take(path)
    with opened(path) as ledger:
        clock, runs = Clock(lambda: 0), Runs("", lambda now_ns: "new")
        gate = Gate(load([], {}).ruleset, ledger, clock, runs)
        gate.remember()
        assert clock.now_ns() == ledger.last_ns > 0
        assert runs.run_of("agent-1", clock.now_ns()) == "r_0"
        ledger.checkpoint(clock.now_ns())
        assert recall_from(ledger).unsettled == {}, "what was on its way is recorded as unknown"


def recall_from(ledger: Ledger) -> Memory:
    ledger.close()
    return recall(ledger.path)


def test_a_snapshot_is_due_after_so_many_entries_and_written_at_a_start_that_read_as_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "EVERY", 5)
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        snapshots = Snapshots(ledger)
        for _ in range(4):
            ledger.append(refusal())
        ledger.checkpoint(0)
    with opened(path) as ledger:
        snapshots = Snapshots(ledger)
        snapshots.recall()
        assert not path_of(path).exists()
    record(path, [refusal()])
    with opened(path) as ledger:
        snapshots = Snapshots(ledger)
        assert snapshots.due
        snapshots.recall()
        assert path_of(path).exists()
        assert not snapshots.due
    assert path_of(path).stat().st_mode & 0o077 == 0
    assert [file.name for file in tmp_path.glob("*.new")] == []


# What does not fit


def spoil_mac(path: Path) -> None:
    content = path_of(path).read_bytes()
    path_of(path).write_bytes(content[:-2] + (b"0\n" if content[-2:] != b"0\n" else b"1\n"))


def free_quota(path: Path) -> None:
    content = path_of(path).read_bytes()
    assert b'"stamps"' in content
    path_of(path).write_bytes(b"".join(line for line in content.splitlines(keepends=True) if b'"stamps"' not in line))


def cut(path: Path) -> None:
    content = path_of(path).read_bytes()
    path_of(path).write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path_of(path).write_bytes(b"")


def another_ledger(path: Path) -> None:
    other = path.with_name("other.db")
    record(other, told([("POST", "/z", OK, 1)]))
    take(other)
    path_of(other).replace(path_of(path))


def an_older_ledger(path: Path) -> None:
    """Somebody has put an old copy of the ledger back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for trigger in ("entries_no_delete", "payloads_no_delete", "entry_rules_no_delete"):
            connection.execute(f"DROP TRIGGER {trigger}")
        for table in ("payloads", "entry_rules", "entries"):
            connection.execute(f"DELETE FROM {table} WHERE seq = (SELECT max(seq) FROM entries)")


def a_directory(path: Path) -> None:
    path_of(path).unlink()
    path_of(path).mkdir()


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "its end was changed": (spoil_mac, "was changed, or is not whole"),
    "somebody takes his calls out of a window": (free_quota, "was changed, or is not whole"),
    "half of it was written": (cut, "was changed, or is not whole"),
    "nothing of it was written": (empty, "was changed, or is not whole"),
    "it is of another ledger": (another_ledger, "is of another ledger, or of what is no longer in this one"),
    "the ledger is shorter": (an_older_ledger, "is of another ledger, or of what is no longer in this one"),
    "it cannot be read": (a_directory, "cannot be read: is a directory"),
}


@pytest.mark.parametrize(("spoil", "why"), SPOILED.values(), ids=list(SPOILED))
def test_what_does_not_fit_is_not_used_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], why: str
) -> None:
    path = tmp_path / "ledger.db"
    record(path, told([("POST", "/a", OK, 1), ("POST", "/b", LOST, 1), ("GET", "/c", OK, 1)]))
    take(path)
    assert recall(path) == fold_of(path)
    assert not caplog.records
    spoil(path)
    assert recall(path) == fold_of(path)
    (said,) = {record.getMessage() for record in caplog.records}
    assert said == f"the whole ledger is read again, because its snapshot `{path_of(path)}` {why}"


def test_why_a_snapshot_is_not_used_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.db"
    record(path, [refusal()])
    take(path)
    cut(path)
    with opened(path) as ledger:
        snapshots = Snapshots(ledger)
        snapshots.recall()
        snapshots.take()
        assert snapshots.recall() == fold([refusal()])
    assert len(caplog.records) == 1


def fold_of(path: Path) -> Memory:
    with opened(path) as ledger:
        return fold([entry for _, entry in ledger.history.entries()])


def test_a_snapshot_of_other_code_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    record(path, told([("POST", "/a", OK, 1)]))
    take(path)
    snapshot._code.cache_clear()
    monkeypatch.setattr(snapshot, "VERSION", "0.0.9")
    assert recall(path) == fold_of(path)
    assert "was made by another version" in caplog.text
    snapshot._code.cache_clear()


async def test_a_snapshot_that_cannot_be_written_harms_nothing_and_is_tried_ever_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "EVERY", 2)
    path = tmp_path / "ledger.db"
    in_the_way = path_of(path).with_name(f"{path_of(path).name}.new")
    in_the_way.mkdir()
    with opened(path) as ledger:
        snapshots = Snapshots(ledger)
        due = []
        for n in range(20):
            await ledger.durable(ledger.append(refusal(f"c_{n}")))
            if snapshots.due:
                due.append(n)
                snapshots.take()
        assert due == [1, 5, 13]
        assert caplog.text.count(f"no snapshot could be kept in `{path_of(path)}`, so the next start takes") == 3
        in_the_way.rmdir()
        snapshots.take()
        await ledger.durable(ledger.append(refusal()))
        assert not snapshots.due
        await ledger.durable(ledger.append(refusal()))
        assert snapshots.due
        assert snapshots.recall() == fold([entry for _, entry in ledger.history.entries()])


def test_a_ledger_that_cannot_be_read_is_not_a_reason_to_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Iterator[Any]:
        raise LedgerError("cannot read the ledger")

    path = tmp_path / "ledger.db"
    record(path, [refusal()])
    with opened(path) as ledger:
        monkeypatch.setattr(ledger.history, "entries", broken)
        Snapshots(ledger).take()
    assert "so the next start takes longer: cannot read the ledger" in caplog.text
    assert not path_of(path).exists()


def test_a_ledger_of_an_older_version_gets_a_snapshot_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "schema-1.sql").read_text())
        connection.execute("DROP TRIGGER entries_no_update")
        connection.execute("UPDATE entries SET rest = json_remove(rest, '$.changes')")  # those were made up
        connection.commit()
    take(path)
    before = path_of(path).read_bytes()
    record(path, [*told([("POST", "/a", OK, 1), ("GET", "/a", OK, 1)])])
    assert recall(path) == fold_of(path)
    take(path)
    assert path_of(path).read_bytes() != before
    assert recall(path) == fold_of(path)


# log verify


def checked(path: Path, vault: Vault | None = VAULT) -> Verdict:
    return snapshot.check(verify(path, None, None, lambda *_: None), vault, lambda *_: None)


def test_verify_tells_whether_a_snapshot_is_what_the_entries_come_to(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    entries = told([("POST", "/a", OK, 1), ("PUT", "/b", LOST, 1)])
    record(path, entries)
    assert checked(path).snapshot == ""
    take(path)
    record(path, [refusal()])
    found = checked(path)
    assert (found.result, found.snapshot) == ("inconclusive", f"what the entries 1 to {len(entries)} come to")
    assert checked(path, None).snapshot == "not checked: that takes the keys (`--confdir`)"
    assert "is not used, because its snapshot" in checked(path, Vault(b"h" * 32, b"w" * 32)).snapshot


def test_verify_finds_a_snapshot_that_lies_though_it_is_authentic(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    record(path, told([("POST", "/a", OK, 1), ("PUT", "/b", LOST, 1)]))
    take(path)
    lines = path_of(path).read_bytes().splitlines(keepends=True)
    kept = [line for line in lines[:-1] if b'"stamps"' not in line]
    mac = VAULT.authenticator()
    mac.update(b"".join(kept))
    path_of(path).write_bytes(b"".join(kept) + mac.hexdigest().encode() + b"\n")
    assert recall(path) != fold_of(path)
    found = checked(path)
    assert found.result == "broken"
    assert found.finding is not None
    assert found.finding.what == f"the snapshot `{path_of(path)}` is not what the entries come to"


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "borderpost")
