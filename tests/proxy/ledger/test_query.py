"""Questions to the ledger: the answers, that every one goes through an index, and that any file can be asked."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger import query, selecting
from proxy.ledger.entries import DecisionEntry, Entry, LedgerError, OutcomeEntry
from proxy.ledger.query import LedgerReader
from proxy.ledger.rows import COLUMNS
from proxy.ledger.selecting import ALL, Filters
from proxy.ledger.told import CallRow
from rules.decision import Violation
from tests.proxy.ledger.samples import NOW_NS, boot, decision, open_ledger, outcome, refusal, ruleset

HOUSE = Path(__file__).parents[3]
MINUTE_NS = 60_000_000_000

WOULD = (Violation("big-refunds", "policy-denied", "too much"),)

HISTORY: list[Entry] = [
    boot(),
    ruleset("5d41402a"),
    decision("c_aa1", at_ns=NOW_NS + 1 * MINUTE_NS, would=WOULD),
    outcome("c_aa1", at_ns=NOW_NS + 1 * MINUTE_NS, duration_ns=10_000_000),
    refusal("c_aa2", at_ns=NOW_NS + 2 * MINUTE_NS, agent="janitor", run="r_2", tool="", host="api.github.com"),
    decision("c_ab1", at_ns=NOW_NS + 3 * MINUTE_NS),
    ruleset("", at_ns=NOW_NS + 3 * MINUTE_NS, problem="error[x]: bad"),
    decision("c_ab2", at_ns=NOW_NS + 4 * MINUTE_NS, action="replay", status=200, executed="yes", replay_of="c_aa1"),
    outcome("c_ab1", at_ns=NOW_NS + 5 * MINUTE_NS, outcome="unknown", status=500, duration_ns=90_000_000),
    decision("c_b", at_ns=NOW_NS + 6 * MINUTE_NS, run="r_3"),
    outcome("c_ab1", at_ns=NOW_NS + 7 * MINUTE_NS, outcome="done", status=200, duration_ns=91_000_000),
    refusal("c_c", at_ns=NOW_NS + 8 * MINUTE_NS, count=7, run="r_3"),
]  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ledger")
    ledger = open_ledger(directory)
    for entry in HISTORY:
        ledger.append(entry)
    ledger.close()
    return ledger.path


@pytest.fixture
def reader(path: Path) -> Iterator[LedgerReader]:
    with LedgerReader.open(path) as reader:
        yield reader


def ids(rows: tuple[CallRow, ...]) -> list[str]:
    return [row.id for row in rows]


FILTERS = [
    ("nothing", ALL, ["c_c", "c_b", "c_ab2", "c_ab1", "c_aa2", "c_aa1"]),
    ("an agent", Filters(agent="janitor"), ["c_aa2"]),
    ("a run", Filters(run="r_3"), ["c_c", "c_b"]),
    ("a tool", Filters(tool="stripe.refund"), ["c_c", "c_b", "c_ab2", "c_ab1", "c_aa1"]),
    ("a decision", Filters(decision="replay"), ["c_ab2"]),
    ("a host", Filters(host="api.github.com"), ["c_aa2"]),
    ("a rule that denied", Filters(rule="no-deletes"), ["c_c", "c_aa2"]),
    ("a rule that only would have", Filters(rule="big-refunds"), ["c_aa1"]),
    ("a status of ours", Filters(status=403), ["c_c", "c_aa2"]),
    ("a status of upstream's or of a replay", Filters(status=200), ["c_ab2", "c_ab1", "c_aa1"]),
    ("a status that was not the last word", Filters(status=500), []),
    ("since, inclusive", Filters(since_ns=NOW_NS + 6 * MINUTE_NS), ["c_c", "c_b"]),
    ("until, exclusive", Filters(until_ns=NOW_NS + 2 * MINUTE_NS), ["c_aa1"]),
    ("since after the end", Filters(since_ns=NOW_NS + 60 * MINUTE_NS), []),
    ("until before the beginning", Filters(until_ns=NOW_NS - 60 * MINUTE_NS), []),
    ("a rule and an agent", Filters(rule="no-deletes", agent="janitor"), ["c_aa2"]),
    ("a rule and a status", Filters(rule="small-refunds", status=200), ["c_ab2", "c_ab1", "c_aa1"]),
    ("a status and a time", Filters(status=200, since_ns=NOW_NS + 4 * MINUTE_NS), ["c_ab2"]),
    ("what nobody has", Filters(agent="nobody"), []),
]


@pytest.mark.parametrize(("filters", "expected"), [case[1:] for case in FILTERS], ids=[case[0] for case in FILTERS])
def test_list_gives_what_fits_newest_first(reader: LedgerReader, filters: Filters, expected: list[str]) -> None:
    assert ids(reader.list(filters)) == expected


@pytest.mark.parametrize("filters", [case[1] for case in FILTERS], ids=[case[0] for case in FILTERS])
def test_pages_join_without_gap_or_overlap(reader: LedgerReader, filters: Filters) -> None:
    pages: list[str] = []
    before = None
    while page := reader.list(filters, limit=2, before=before):
        pages += ids(page)
        before = page[-1].seq
    assert pages == ids(reader.list(filters))


def test_a_row_is_what_is_printed_as_json(reader: LedgerReader) -> None:
    assert msgspec.json.decode(msgspec.json.encode(reader.list(Filters(rule="big-refunds"))[0])) == {
        "id": "c_aa1",
        "seq": 3,
        "at": "2026-01-01T00:01:00.123Z",
        "run": "r_1",
        "agent": "support",
        "tool": "stripe.refund",
        "method": "POST",
        "scheme": "https",
        "host": "api.stripe.com",
        "port": 443,
        "path": "/v1/refunds",
        "decision": "allow",
        "code": "",
        "rules": ["small-refunds"],
        "would": ["big-refunds"],
        "executed": "yes",
        "outcome": "done",
        "status": 200,
        "duration_ms": 10.0,
        "ruleset": "5d41402a",
    }


STATES = [
    ("c_aa1", ("allow", "yes", "done", 200, 10.0)),
    ("c_aa2", ("deny", "no", None, 403, None)),
    ("c_ab1", ("allow", "yes", "done", 200, 91.0)),
    ("c_ab2", ("replay", "yes", None, 200, None)),
    ("c_b", ("allow", "unknown", None, None, None)),
]


@pytest.mark.parametrize(("call_id", "expected"), STATES)
def test_what_became_of_a_call(reader: LedgerReader, call_id: str, expected: tuple[Any, ...]) -> None:
    call = reader.show(call_id).call
    assert (call.decision, call.executed, call.outcome, call.status, call.duration_ms) == expected


def test_show_has_everything_on_record(reader: LedgerReader) -> None:
    shown = reader.show("c_ab1")
    entry = HISTORY[5]
    assert isinstance(entry, DecisionEntry)
    assert (shown.detail, shown.facts, shown.changes) == (entry.detail, entry.facts, entry.changes)
    assert [(row.outcome, row.status, row.at) for row in shown.outcomes] == [
        ("unknown", 500, "2026-01-01T00:05:00.123Z"),
        ("done", 200, "2026-01-01T00:07:00.123Z"),
    ]
    assert reader.show("c_ab2").replay_of == "c_aa1"
    assert reader.show("c_aa1").would == WOULD
    assert reader.show("c_c").calls == 7
    assert len(bytes.fromhex(shown.hash)) == 32


@pytest.mark.parametrize(("prefix", "found"), [("c_b", "c_b"), ("c_aa2", "c_aa2"), ("c_c", "c_c")])
def test_a_unique_beginning_will_do(reader: LedgerReader, prefix: str, found: str) -> None:
    assert reader.show(prefix).call.id == found


NOT_FOUND = [
    ("c_a", r"`c_a` is not unique \(`c_aa1`, `c_aa2`, `c_ab1`...\): give more of the id"),
    ("c_aa", r"`c_aa` is not unique \(`c_aa1`, `c_aa2`...\)"),
    ("c_x", "no call `c_x` is on record: `borderpost log` shows the calls and their numbers"),
    ("%", "no call `%` is on record"),
    ("b_1", "no call `b_1` is on record"),
]


@pytest.mark.parametrize(("prefix", "message"), NOT_FOUND)
def test_a_beginning_of_none_or_several_is_refused(reader: LedgerReader, prefix: str, message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        reader.show(prefix)


def test_tail_gives_calls_as_they_end(reader: LedgerReader) -> None:
    rows, last = reader.tail(0)
    assert (ids(rows), last) == (["c_aa1", "c_aa2", "c_ab2", "c_ab1", "c_ab1", "c_c"], 12)
    assert reader.tail(last) == ((), 12)
    assert ids(reader.tail(8)[0]) == ["c_ab1", "c_ab1", "c_c"]
    assert ids(reader.tail(0, Filters(rule="no-deletes"))[0]) == ["c_aa2", "c_c"]
    assert ids(reader.tail(0, Filters(status=403, agent="janitor"))[0]) == ["c_aa2"]
    assert reader.last_seq() == 12


def test_tail_goes_on_where_a_page_ended(reader: LedgerReader) -> None:
    seen, since = list[str](), 0
    while True:
        rows, since = reader.tail(since, limit=2)
        if not rows:
            break
        seen += ids(rows)
    assert seen == ids(reader.tail(0)[0])


def test_stats_count_by_group(reader: LedgerReader) -> None:
    by_decision = {row.key: row for row in reader.stats("decision")}
    assert {key: row.calls for key, row in by_decision.items()} == {"deny": 8, "allow": 3, "replay": 1}
    allowed = by_decision["allow"]
    assert (allowed.allowed, allowed.denied, allowed.unknown, allowed.answer_bytes) == (3, 0, 0, 1024)
    assert (allowed.p50_ms, allowed.p95_ms) == (10.0, 91.0)
    assert (by_decision["deny"].p50_ms, by_decision["deny"].p95_ms) == (None, None)


GROUPS: list[tuple[selecting.Grouping, list[str]]] = [
    ("agent", ["support", "janitor"]),
    ("tool", ["stripe.refund", ""]),
    ("code", ["policy-denied", ""]),
    ("rule", ["no-deletes", "small-refunds"]),
]


@pytest.mark.parametrize(("by", "keys"), GROUPS)
def test_stats_of_every_grouping_largest_first(reader: LedgerReader, by: selecting.Grouping, keys: list[str]) -> None:
    assert [row.key for row in reader.stats(by)] == keys
    filtered = reader.stats(by, Filters(agent="janitor", status=403, since_ns=NOW_NS))
    assert sum(row.calls for row in filtered) == 1


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30), st.booleans())
def test_percentiles_are_values_that_occurred(path: Path, durations: list[int], pending: bool) -> None:
    """Nearest rank: the smallest value that is not exceeded by half (95 %) of all."""
    with LedgerReader.open(path) as _, closing(sqlite3.connect(":memory:")) as connection:
        columns = ", ".join(f"{name} ANY" for name in COLUMNS)
        connection.execute(f"CREATE TABLE entries ({columns})")
        connection.execute("CREATE TABLE entry_rules (rule, seq)")
        rows: list[tuple[object, ...]] = [
            (2 * n, 2 * n, "allow", None, None, 1) for n in range(len(durations) + pending)
        ]
        rows += [(2 * n + 1, 2 * n, None, "done", duration, None) for n, duration in enumerate(durations)]
        connection.executemany(
            "INSERT INTO entries (seq, call_seq, decision, outcome, duration_ns, calls) VALUES (?, ?, ?, ?, ?, ?)", rows
        )
        sql, values = selecting.stats_query("decision", ALL, (0, query.MAX_SEQ))
        p50_ns, p95_ns = connection.execute(sql, values).fetchone()[-2:]
    ordered = sorted(durations)
    assert p50_ns == ordered[-(-len(ordered) // 2) - 1]
    assert p95_ns == ordered[-(-len(ordered) * 95 // 100) - 1]


def test_runs_that_were_active_last_come_first(reader: LedgerReader) -> None:
    rows = reader.runs()
    assert [(row.run, row.agent, row.calls, row.allowed, row.denied, row.replayed) for row in rows] == [
        ("r_3", "support", 8, 1, 7, 0),
        ("r_1", "support", 3, 2, 0, 1),
        ("r_2", "janitor", 1, 0, 1, 0),
    ]
    assert (rows[0].first_at, rows[0].last_at) == ("2026-01-01T00:06:00.123Z", "2026-01-01T00:08:00.123Z")
    assert reader.runs(limit=1) == rows[:1]


BEGINNINGS = [("r_", ("r_1", "r_2")), ("r_2", ("r_2",)), ("r_3", ("r_3",)), ("", ("r_1", "r_2")), ("x", ())]


@pytest.mark.parametrize(("beginning", "found"), BEGINNINGS)
def test_runs_by_the_beginning_of_their_ids(reader: LedgerReader, beginning: str, found: tuple[str, ...]) -> None:
    assert reader.run_ids(beginning) == found


def test_status_says_where_the_ledger_stands(reader: LedgerReader, path: Path) -> None:
    status = reader.status()
    assert status.path == str(path)
    assert (status.entries, status.last_at) == (12, "2026-01-01T00:08:00.123Z")
    assert status.size_bytes >= path.stat().st_size
    assert status.boot is not None
    assert (status.boot["command"], status.boot_at) == ("borderpost serve", "2026-01-01T00:00:00.123Z")
    assert status.ruleset == ruleset("5d41402a")
    assert (status.problem, status.problem_at) == ("error[x]: bad", "2026-01-01T00:03:00.123Z")
    assert status.totals == {"allow": 3, "deny": 8, "throttle": 0, "replay": 1, "hold": 0}


def test_status_of_a_ledger_without_a_word(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    with LedgerReader.open(tmp_path / "ledger.db") as reader:
        status = reader.status()
        assert (status.entries, status.last_at, status.boot, status.ruleset) == (0, "", None, None)
        assert (reader.list(), reader.tail(0), reader.stats(), reader.runs()) == ((), ((), 0), (), ())


# Query plans


DOCUMENTED: dict[str, selecting.Query] = {
    **{f"list {name}": selecting.calls_query(filters, (1, 9)) for name, filters, _ in FILTERS},
    **{f"tail {name}": selecting.tail_query(filters) for name, filters, _ in FILTERS},
    **{f"stats {name}": selecting.stats_query("decision", filters, (1, 9)) for name, filters, _ in FILTERS},
    **{f"stats by {by}": selecting.stats_query(by, ALL, (1, 9)) for by, _ in GROUPS},
    "show": (query.SHOW, {}),
    "outcomes": (query.OUTCOMES, {}),
    "last boot": (query.LAST_OF_KIND, {}),
    "rule sets": (query.ALL_OF_KIND, {}),
    "first run": (query.FIRST_RUN, {}),
    "next run": (query.NEXT_RUN, {}),
    "since": (query.FIRST_SINCE, {}),
    "until": (query.LAST_UNTIL, {}),
    "runs": (query.RUNS, {}),
}
NAMES = ("entries", "entry_rules", "answers", "o", "s", "w", "r", "x", "e")
"""The tables, and what queries call them. `d` also names what `stats` has selected already."""


def plan_of(path: Path, sql: str, values: dict[str, Any]) -> list[str]:
    """The steps of SQLite's plan. What a question is asked for (`:limit`) does not change it."""
    asked = {
        "limit": 5,
        "since": 1,
        "last": 9,
        "low": 1,
        "seq": 1,
        "kind": "boot",
        "at": 1,
        "decision": "deny",
        "high": 9,
    }
    with closing(sqlite3.connect(path)) as connection:
        return [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", {**asked, **values})]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_no_question_scans_a_table(path: Path, name: str) -> None:
    plan = plan_of(path, *DOCUMENTED[name])
    names = NAMES if name.startswith("stats") else (*NAMES, "d")
    assert [step for step in plan if step.startswith("SCAN") and step.split()[1] in names] == []
    assert any(step.startswith("SEARCH") for step in plan)
    if name.startswith("stats"):
        assert any(step.startswith("SEARCH d ") for step in plan)


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if name.startswith(("list", "tail"))])
def test_no_list_sorts_what_it_finds(path: Path, name: str) -> None:
    """The index has the order already, so that a page costs what is on it."""
    assert [step for step in plan_of(path, *DOCUMENTED[name]) if "TEMP B-TREE" in step] == []


@pytest.mark.parametrize("view", ["calls", "decisions"])
@pytest.mark.parametrize("name", ["id", "run", "agent", "tool", "host", "decision", "at_ns", "seq"])
def test_the_views_use_the_indexes(path: Path, view: str, name: str) -> None:
    plan = plan_of(path, f"SELECT * FROM {view} WHERE {name} > 1 ORDER BY {name} DESC LIMIT 5", {})
    own = "INTEGER PRIMARY KEY" if name == "seq" else f"INDEX entries_{name.removesuffix('_ns')} "
    assert f"SEARCH d USING {own}" in plan[0]
    assert [step for step in plan if "TEMP B-TREE" in step] == []


def test_runs_are_counted_in_the_index(path: Path) -> None:
    assert "SEARCH d USING COVERING INDEX entries_run (run=?)" in plan_of(path, *DOCUMENTED["runs"])


INDEXES = {
    "an agent": "entries_agent",
    "a run": "entries_run",
    "a tool": "entries_tool",
    "a decision": "entries_decision",
    "a host": "entries_host",
    "a status of ours": "entries_status",
}


@pytest.mark.parametrize("name", INDEXES)
def test_a_filter_has_its_index(path: Path, name: str) -> None:
    plan = plan_of(path, *DOCUMENTED[f"list {name}"])
    assert any(f"INDEX {INDEXES[name]} " in step for step in plan), plan


# Any file can be asked


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.proxy.ledger.samples import decision, open_ledger

async def main():
    ledger = open_ledger(Path(sys.argv[1]))
    await ledger.durable(ledger.append(decision()))
    print("durable", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


def test_a_ledger_can_be_read_while_a_proxy_writes_and_after_it_died(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        cwd=HOUSE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "durable\n"
        with LedgerReader.open(path) as reader:
            assert ids(reader.list()) == ["c_1"]
        child.send_signal(signal.SIGKILL)
    assert path.with_name("ledger.db-wal").stat().st_size > 0
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("ledger.db", "ledger.db-wal"):
        shutil.copy(tmp_path / name, copy / name)
    for file in (path, copy / "ledger.db"):
        with LedgerReader.open(file) as reader:
            assert ids(reader.list()) == ["c_1"]


def test_reading_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    with LedgerReader.open(path) as reader, pytest.raises(LedgerError, match=r"attempt to write a readonly database"):
        reader.list()
        with reader._connect() as connection:
            connection.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
    assert path.read_bytes() == before


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"there is no ledger at .*: nothing was recorded yet, or give `--ledger`"):
        LedgerReader.open(tmp_path / "ledger.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty: nothing was recorded yet"), (b"text" * 500, "is not a ledger")]
)
def test_what_is_no_ledger_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.db").write_bytes(content)
    with pytest.raises(LedgerError, match=message) as caught:
        LedgerReader.open(tmp_path / "x.db")
    assert "\n" not in str(caught.value)


def test_a_path_with_special_characters(tmp_path: Path) -> None:
    odd = tmp_path / "a?b#c%20 d"
    odd.mkdir()
    open_ledger(odd).close()
    with LedgerReader.open(odd / "ledger.db") as reader:
        assert reader.list() == ()


def test_list_agrees_with_a_slow_reading_of_the_history(reader: LedgerReader) -> None:
    decisions = [entry for entry in HISTORY if isinstance(entry, DecisionEntry)]
    outcomes = {entry.id: entry for entry in HISTORY if isinstance(entry, OutcomeEntry)}
    for row, entry in zip(reversed(reader.list()), decisions, strict=True):
        last = outcomes.get(entry.id)
        assert row.status == ((last.status if last else entry.status) or None)
        assert row.outcome == (last.outcome if last else None)
