"""The file itself: append-only whoever writes to it, chained, and refused with one line when it is not ours."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from proxy.confdir import Confdir
from proxy.ledger.entries import LedgerError
from proxy.ledger.rows import COLUMNS, chain
from proxy.ledger.schema import APPLICATION_ID, SCHEMA_VERSION
from proxy.ledger.store import Ledger
from proxy.runs import JOIN, LEAVE
from tests.proxy.ledger.samples import VAULT, boot, decision, open_ledger, outcome, refusal, ruleset


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with a few entries, closed."""
    ledger = open_ledger(tmp_path)
    for entry in (boot(), ruleset(), decision(), outcome(), refusal("c_2")):
        ledger.append(entry)
    ledger.close()
    return ledger.path


def columns(row: sqlite3.Row | tuple[object, ...], **changed: object) -> tuple[object, ...]:
    return tuple({**dict(zip(COLUMNS, row, strict=True)), **changed}.values())


INSERT = f"INSERT INTO entries VALUES ({', '.join('?' * len(COLUMNS))})"

TAMPERING = {
    "update": "UPDATE entries SET status = 200 WHERE seq = 5",
    "update or replace": "UPDATE OR REPLACE entries SET seq = 4 WHERE seq = 5",
    "update or ignore": "UPDATE OR IGNORE entries SET status = 200 WHERE seq = 5",
    "delete one": "DELETE FROM entries WHERE seq = 5",
    "delete all": "DELETE FROM entries",
    "replace": "REPLACE INTO entries SELECT * FROM entries WHERE seq = 5",
    "insert or replace": "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE seq = 1",
    "insert or ignore": "INSERT OR IGNORE INTO entries SELECT 9, * FROM (SELECT at_ns, kind, call_seq, id, run, agent, "
    "tool, method, scheme, host, port, path, decision, code, rules, executed, status, ruleset, calls, outcome, "
    "duration_ns, answer_bytes, rest, prev, hash FROM entries WHERE seq = 5)",
    "upsert": "INSERT INTO entries SELECT * FROM entries WHERE seq = 5 ON CONFLICT (seq) DO UPDATE SET status = 200",
    "change by what rule it is found": "UPDATE entry_rules SET rule = 'x'",
    "hide from a rule": "DELETE FROM entry_rules",
}


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=list(TAMPERING))
def test_tampering_is_refused(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("SELECT * FROM entries, entry_rules").fetchall()
        with pytest.raises(sqlite3.IntegrityError, match="the ledger is append-only"):
            connection.execute(statement)
        assert connection.execute("SELECT * FROM entries, entry_rules").fetchall() == before


MISFITS = {
    "a gap": {"seq": 7},
    "a seq that is taken": {"seq": 5},
    "no seq": {"seq": None},
    "another previous hash": {"prev": b"x" * 32},
    "no previous hash of that length": {"prev": b""},
    "a hash that is none": {"hash": b"short"},
}


@pytest.mark.parametrize("changed", MISFITS.values(), ids=list(MISFITS))
def test_an_entry_that_does_not_follow_the_last_one_is_refused(path: Path, changed: dict[str, object]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        last = connection.execute("SELECT * FROM entries ORDER BY seq DESC").fetchone()
        fitting = columns(last, seq=6, prev=last[-1], hash=b"h" * 32)
        with pytest.raises(sqlite3.IntegrityError, match="an entry must follow the last one"):
            connection.execute(INSERT, columns(fitting, **changed))
        connection.execute(INSERT, fitting)


def test_types_are_strict(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        last = connection.execute("SELECT * FROM entries ORDER BY seq DESC").fetchone()
        with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT value in INTEGER column"):
            connection.execute(INSERT, columns(last, seq=6, prev=last[-1], status="ok"))


def test_every_entry_is_chained_to_the_one_before(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM entries ORDER BY seq").fetchall()
    prev = bytes(32)
    for row in rows:
        assert row[-2] == prev
        assert row[-1] == chain(prev, row[0], row[1:-2])
        prev = row[-1]
    assert len(rows) == 5


def test_the_chain_goes_on_over_a_restart(path: Path, tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    assert ledger.append(boot()) == 6
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        hashes = connection.execute("SELECT a.hash, b.prev FROM entries a JOIN entries b ON a.seq = 5 AND b.seq = 6")
        assert len({*hashes.fetchone()}) == 1


def test_the_file_says_what_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        strict = connection.execute(
            "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        )
        assert {name: flag for name, flag in strict if not name.startswith("sqlite_")} == {
            "meta": 1,
            "entries": 1,
            "entry_rules": 1,
            "payloads": 1,
            "answers": 1,
            "totals": 1,
            "codes": 1,
            "commands": 1,
        }
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir() if file.is_file()} == {0o600}


def test_outcomes_point_at_their_decision(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT seq, kind, call_seq FROM entries ORDER BY seq").fetchall()
    assert found == [(1, "boot", None), (2, "ruleset", None), (3, "decision", 3), (4, "outcome", 3), (5, "decision", 5)]


def no_database(path: Path) -> None:
    path.write_bytes(b"this is a text, and a long one at that: " * 40)


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")


def of_a_newer_version(path: Path) -> None:
    open_ledger(path.parent).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def of_other_keys(path: Path) -> None:
    open_ledger(path.parent).close()
    (path.parent / "conf" / "hash.key").unlink()


def a_directory(path: Path) -> None:
    path.mkdir()


UNUSABLE = {
    "no database": (no_database, "is not a ledger .*: give another one with `--ledger`"),
    "another program's": (of_another_program, "is a database of another program: give another one with `--ledger`"),
    "a newer version's": (of_a_newer_version, r"by a newer version \(schema 4, this one knows 3\): upgrade borderpost"),
    "a lost key": (of_other_keys, "was written with another `hash.key`: give the `--confdir` that it was made with"),
    "a directory": (a_directory, "is a directory; give another one with `--ledger`"),
}


@pytest.mark.parametrize(("make", "message"), UNUSABLE.values(), ids=list(UNUSABLE))
def test_a_file_that_cannot_be_used_is_one_line_with_the_fix(tmp_path: Path, make: object, message: str) -> None:
    assert callable(make)
    Confdir.open(tmp_path / "conf")
    make(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match=message) as caught:
        open_ledger(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(LedgerError):
        open_ledger(tmp_path)


def test_a_directory_that_cannot_be_made_is_one_line_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        LedgerError, match=r"cannot open the ledger .*: a file is where its directory should be; give another one"
    ):
        Ledger.open(tmp_path / "file" / "ledger.db", VAULT, owner="test")


def test_views_show_the_same_as_the_entries(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        sent, refused = [dict(row) for row in connection.execute("SELECT * FROM calls ORDER BY seq")]
        (run,) = [dict(row) for row in connection.execute("SELECT * FROM runs")]
        decided = dict(connection.execute("SELECT * FROM decisions ORDER BY seq").fetchone())
    assert sent["at"] == run["first_at"] == decided["at"] == "2026-01-01T00:00:00.123Z"
    assert (sent["decision"], sent["outcome"], sent["executed"], sent["status"], sent["duration_ms"]) == (
        "allow",
        "done",
        "yes",
        200,
        12.346,
    )
    assert (refused["decision"], refused["outcome"], refused["executed"], refused["status"]) == (
        "deny",
        None,
        "no",
        403,
    )
    assert (refused["code"], refused["rules"], refused["would"]) == ("policy-denied", '["no-deletes"]', "[]")
    assert decided["facts"] == '{"body.amount":500,"body.charge":"ch_1"}'
    assert (run["run"], run["agent"], run["calls"], run["allowed"], run["denied"]) == ("r_1", "support", 2, 1, 1)


def test_a_view_by_run_reads_that_run_only(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT * FROM runs WHERE run = 'r_1'").fetchall()
    assert [step[3] for step in plan if " d" in step[3]] == ["SEARCH d USING INDEX entries_run (run=?)"]


HOUSE = Path(__file__).parents[3]
PAGE = (HOUSE / "docs" / "ledger.md").read_text()


@pytest.mark.parametrize(
    ("title", "name"),
    [("### `calls`", "calls"), ("### `decisions`", "decisions"), ("### `runs`", "runs"), ("## Every entry", "entries")],
)
def test_every_column_is_documented(path: Path, title: str, name: str) -> None:
    section = re.split(r"^##", PAGE.partition(title)[2], flags=re.MULTILINE)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = [column for cell in cells for column in re.findall(r"`(\w+)`", cell)]
    with closing(sqlite3.connect(path)) as connection:
        columns = [column[1] for column in connection.execute(f"PRAGMA table_info({name})")]
    assert sorted(documented) == sorted(columns)


def test_every_command_on_record_is_documented() -> None:
    section = re.split(r"^##", PAGE.partition("### Commands on record")[2], flags=re.MULTILINE)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = [name for row in rows[1:] for name in re.findall(r"`(\w+)`", row)]
    sources = "".join(file.read_text() for file in (HOUSE / "proxy").rglob("*.py"))
    written = re.findall(r"\bCommandEntry\(\s*[\w.()]+,\s*([\w\"]+),", sources)
    constants = {"JOIN": JOIN, "LEAVE": LEAVE}
    assert sorted({constants.get(name, name.strip('"')) for name in written}) == sorted(documented)


def test_the_documented_check_of_the_chain_finds_a_change(path: Path, tmp_path: Path) -> None:
    """The lines in the docs, as they stand there: no complaint, and one when a single column was changed."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    def check() -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert check() == (0, "")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TRIGGER entries_no_update")
        connection.execute("UPDATE entries SET agent = 'somebody else' WHERE seq = 3")
    assert check() == (1, "entry 3 is not what was written\n")


def test_the_chain_covers_every_column(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT * FROM entries WHERE seq = 3").fetchone()
    for name in COLUMNS[1:-2]:
        assert chain(row[-2], 3, columns(row, **{name: "x"})[1:-2]) != row[-1]
    assert chain(row[-2], 4, row[1:-2]) != row[-1]
