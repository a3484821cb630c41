"""Reading a ledger, without ever writing to it: while a proxy writes, after one has died, or from a copy.

Every question here is answered through an index, newest first, a page at a time (`before` the last seq that was seen);
`tests/proxy/ledger/test_query.py` holds SQLite's query plans to that.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from sqlalchemy import Connection, Engine, QueuePool, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from proxy.ledger import schema
from proxy.ledger.asked import Question, questions
from proxy.ledger.entries import CheckpointEntry, CommandEntry, LedgerError, RulesetEntry
from proxy.ledger.events import Event, Span, events, unrecorded
from proxy.ledger.rows import entry_of
from proxy.ledger.selecting import ALL, UNANSWERED, Filters, Grouping, calls_query, selection, stats_query, tail_query
from proxy.ledger.told import CallDetail, CallRow, HaltRow, OutcomeRow, RunRow, StatsRow, Status, iso, ms
from rules.decide import apply
from rules.halts import Halt, Halts
from rules.state import CLOCK, State

SLACK_NS = 60_000_000_000
"""Entries stand in the order of their seq; their times follow it, but for less than this."""

MAX_SEQ = (1 << 63) - 1


def open_reader(path: Path) -> Engine:
    """An engine whose connections cannot write. Opening one raises `LedgerError` where there is no file."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro"

    def connect() -> sqlite3.Connection:
        check_file(path)
        connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA query_only = ON")
        return connection

    return create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=2)


def check_file(path: Path) -> None:
    """Raises `LedgerError` where no file is."""
    if path.is_dir():
        raise LedgerError(f"cannot read the ledger `{path}`: it is a directory; give a file with `--ledger`")
    if not path.exists():
        raise LedgerError(f"there is no ledger at `{path}`: nothing was recorded yet, or give `--ledger`")


@contextlib.contextmanager
def reading(engine: Engine, path: Path) -> Iterator[Connection]:
    """A connection of `engine`, which reads the ledger at `path`; what goes wrong with it is a `LedgerError`."""
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        original = error.orig if isinstance(error, DBAPIError) else error
        what = str(original).partition("\n")[0]
        if "not a database" in what:
            what = "this is no SQLite file; give another one with `--ledger`"
        raise LedgerError(f"cannot read the ledger `{path}`: {what}") from None


class LedgerReader:
    """An open ledger, for reading. Made by `LedgerReader.open`; a context manager."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self._path = path
        self._engine = engine

    @classmethod
    def open(cls, path: Path) -> LedgerReader:
        """Raises `LedgerError` when `path` is no ledger that this version can read."""
        engine = open_reader(path)
        reader = cls(path, engine)
        try:
            with reader._connect() as connection:
                schema.check_file(connection, path)
        except BaseException:
            engine.dispose()
            raise
        return reader

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def list(self, filters: Filters = ALL, *, limit: int = 50, before: int | None = None) -> tuple[CallRow, ...]:
        """The newest `limit` calls that fit, newest first; `before` a seq: the page after it."""
        with self._connect() as connection:
            bounds = _bounds(connection, filters)
            high = bounds[1] if before is None else min(bounds[1], before - 1)
            sql, values = calls_query(filters, (bounds[0], high))
            rows = connection.execute(text(sql), {**values, "limit": limit}).all()
        return tuple(_call_row(row) for row in rows)

    def first_payload(self) -> int | None:
        """The first entry whose payload was not given up; None when there is no payload."""
        with self._connect() as connection:
            found: int | None = connection.execute(text("SELECT min(seq) FROM payloads")).scalar()
        return found

    def checkpoint(self, seq: int) -> CheckpointEntry:
        """The checkpoint in entry `seq`."""
        with self._connect() as connection:
            row = connection.execute(text("SELECT * FROM entries WHERE seq = :seq"), {"seq": seq}).one()
        entry = entry_of(tuple(row))
        assert isinstance(entry, CheckpointEntry)
        return entry

    def last_seq(self) -> int:
        """The seq of the last entry: where `tail` begins."""
        with self._connect() as connection:
            return schema.last_entry(connection)[0]

    def tail(self, since: int, filters: Filters = ALL, *, limit: int = 1000) -> tuple[tuple[CallRow, ...], int]:
        """The calls that came to their end after entry `since`, oldest first, and the seq to go on from.

        A call that is not sent ends with its decision, one that is with its outcome.
        """
        sql, values = tail_query(filters)
        with self._connect() as connection:
            last = schema.last_entry(connection)[0]
            rows = connection.execute(text(sql), {**values, "since": since, "last": last, "limit": limit}).all()
        reached = rows[-1].end if len(rows) == limit else max(since, last)
        return tuple(_call_row(row) for row in rows), reached

    def show(self, call_id: str) -> CallDetail:
        """The call whose id is or begins with `call_id`. Raises `LedgerError` when that is none, or several."""
        with self._connect() as connection:
            found = connection.execute(text(SHOW), {"low": call_id, "high": call_id + "\U0010ffff"}).all()
            exact = [row for row in found if row.id == call_id]
            if not found:
                raise LedgerError(
                    f"no call `{call_id}` is on record: `borderpost log` shows the calls and their numbers"
                )
            if len({row.id for row in found}) > 1 and not exact:
                some = ", ".join(f"`{row.id}`" for row in found[:3])
                raise LedgerError(f"`{call_id}` is not unique ({some}...): give more of the id")
            return _detail(connection, (exact or found)[-1].seq)

    def decided(self, seq: int) -> CallDetail:
        """The call that was decided in entry `seq`."""
        with self._connect() as connection:
            return _detail(connection, seq)

    def questions(self, now_ns: int) -> tuple[Question, ...]:
        """What people were asked lately, the newest last. `now_ns` is the wall clock."""
        with self._connect() as connection:
            return questions(connection, max(now_ns, schema.last_entry(connection)[2]))

    def stats(self, by: Grouping = "decision", filters: Filters = ALL) -> tuple[StatsRow, ...]:
        """The calls that fit, counted by group, largest first. Reads every call between `since` and `until`."""
        with self._connect() as connection:
            sql, values = stats_query(by, filters, _bounds(connection, filters))
            rows = connection.execute(text(sql), values).all()
        return tuple(
            StatsRow(
                key=row.key or "",
                calls=row.calls,
                allowed=row.allowed,
                denied=row.denied,
                throttled=row.throttled,
                replayed=row.replayed,
                held=row.held,
                unknown=row.unknown,
                failed=row.failed,
                answer_bytes=row.answer_bytes,
                p50_ms=ms(row.p50_ns),
                p95_ms=ms(row.p95_ns),
            )
            for row in rows
        )

    def unanswered(self, filters: Filters = ALL) -> int:
        """How many of the calls that fit were sent and got no answer. Reads every call between `since` and `until`."""
        with self._connect() as connection:
            source, where, _, values = selection(filters, _bounds(connection, filters), False)
            found = connection.execute(text(f"SELECT count(*) FROM {source} WHERE {where} AND {UNANSWERED}"), values)
            count: int = found.scalar_one()
        return count

    def events(self, filters: Filters = ALL, *, limit: int = 50) -> tuple[Event, ...]:
        """What is on record besides calls between `since` and `until`; no other filter counts. Newest first."""
        with self._connect() as connection:
            return events(connection, _span(connection, filters), limit)

    def unrecorded(self, filters: Filters = ALL) -> int:
        """How many calls that fit went out without a record, as was recorded between `since` and `until`."""
        if filters.decision not in (None, "allow") or filters.rule is not None or filters.status is not None:
            return 0
        wanted = {name: getattr(filters, name) for name in ("agent", "run", "tool", "host")}
        with self._connect() as connection:
            span = _span(connection, filters)
            return unrecorded(connection, span, {name: value for name, value in wanted.items() if value is not None})

    def runs(self, *, limit: int = 20) -> tuple[RunRow, ...]:
        """The `limit` runs that were active last, newest first. Reads the index only, for each of their calls."""
        with self._connect() as connection:
            rows = connection.execute(text(RUNS), {"limit": limit}).all()
        return tuple(RunRow(*row) for row in rows)

    def run_ids(self, beginning: str, *, limit: int = 2) -> tuple[str, ...]:
        """The first `limit` ids of runs that begin with `beginning`, in order: one look-up each."""
        high = beginning + "\U0010ffff"
        found: list[str] = []
        with self._connect() as connection:
            run = connection.execute(text(FIRST_RUN), {"low": beginning, "high": high}).scalar()
            while run is not None and len(found) < limit:
                found.append(run)
                run = connection.execute(text(NEXT_RUN), {"low": run, "high": high}).scalar()
        return tuple(found)

    def status(self) -> Status:
        """Where the ledger stands; `totals` counts all calls by decision, `codes` those that were refused by code."""
        with self._connect() as connection:
            seq, _, last_ns = schema.last_entry(connection)
            boot = connection.execute(text(LAST_OF_KIND), {"kind": "boot"}).first()
            ruleset, problem = _rulesets(connection)
            halts = _halts(connection)
            totals = {row.decision: row.calls for row in connection.execute(schema.totals.select())}
            codes = _codes(connection)
            used_bytes = connection.exec_driver_sql(schema.USED).scalar_one()
        return Status(
            path=str(self._path),
            entries=seq,
            size_bytes=sum(file.stat().st_size for file in _files(self._path)),
            used_bytes=used_bytes,
            last_ns=last_ns,
            last_at=iso(last_ns),
            boot=None if boot is None else msgspec.structs.asdict(entry_of(tuple(boot))),
            boot_at=iso(boot.at_ns) if boot is not None else "",
            ruleset=ruleset,
            ruleset_at=iso(ruleset.at_ns) if ruleset else "",
            problem=problem.problem if problem else "",
            problem_at=iso(problem.at_ns) if problem else "",
            totals={decision: totals.get(decision, 0) for decision in schema.DECISIONS},
            codes=codes,
            halts=tuple(
                HaltRow(halt.calls, halt.agent, halt.tool, halt.reason, halt.by, iso(halt.at_ns)) for halt in halts
            ),
        )

    def halts(self) -> tuple[Halt, ...]:
        """What people have stopped."""
        with self._connect() as connection:
            return _halts(connection)

    def _connect(self) -> contextlib.AbstractContextManager[Connection]:
        return reading(self._engine, self._path)


CODES = "SELECT code, calls FROM codes ORDER BY calls DESC, code"
SHOW = """
    SELECT id, seq FROM entries WHERE id >= :low AND id <= :high AND decision IS NOT NULL ORDER BY id, seq LIMIT 4
"""
LAST_OF_KIND = "SELECT * FROM entries WHERE kind = :kind AND call_seq IS NULL ORDER BY seq DESC LIMIT 1"
ALL_OF_KIND = "SELECT * FROM entries WHERE kind = :kind AND call_seq IS NULL ORDER BY seq DESC"
OUTCOMES = "SELECT * FROM entries WHERE call_seq = :seq AND outcome IS NOT NULL ORDER BY seq"
FIRST_SINCE = "SELECT seq FROM entries WHERE at_ns >= :at ORDER BY at_ns, seq LIMIT 1"
LAST_UNTIL = "SELECT seq FROM entries WHERE at_ns <= :at ORDER BY at_ns DESC, seq DESC LIMIT 1"

FIRST_RUN = "SELECT min(run) FROM entries WHERE run >= :low AND run <= :high"
NEXT_RUN = "SELECT min(run) FROM entries WHERE run > :low AND run <= :high"

RUNS = f"""
    WITH RECURSIVE each_run(run) AS (
        SELECT min(run) FROM entries WHERE run IS NOT NULL
        UNION ALL
        SELECT (SELECT min(run) FROM entries WHERE run > each_run.run) FROM each_run WHERE each_run.run IS NOT NULL
    ),
    latest(run, first, last) AS MATERIALIZED (
        SELECT run, (SELECT min(seq) FROM entries e WHERE e.run = each_run.run),
               (SELECT max(seq) FROM entries e WHERE e.run = each_run.run) AS last
        FROM each_run WHERE run IS NOT NULL ORDER BY last DESC LIMIT :limit
    ),
    counted AS (
        SELECT latest.first, latest.last, sum(d.calls) AS calls, {schema.COUNTS}
        FROM latest CROSS JOIN entries d ON d.run = latest.run
        GROUP BY latest.last
    )
    SELECT o.run, o.agent, {schema.iso_sql("o.at_ns")}, {schema.iso_sql("s.at_ns")},
           counted.calls, allowed, denied, throttled, replayed, held
    FROM counted CROSS JOIN entries o ON o.seq = counted.first CROSS JOIN entries s ON s.seq = counted.last
    ORDER BY counted.last DESC
"""


def _bounds(connection: Connection, filters: Filters) -> tuple[int, int]:
    """The first and the last seq that can lie between `since` and `until`: so that a walk along an index ends."""
    low, high = 0, MAX_SEQ
    if filters.since_ns is not None:
        first = connection.execute(text(FIRST_SINCE), {"at": filters.since_ns - SLACK_NS}).scalar()
        low = MAX_SEQ if first is None else first
    if filters.until_ns is not None:
        last = connection.execute(text(LAST_UNTIL), {"at": filters.until_ns + SLACK_NS}).scalar()
        high = 0 if last is None else last
    return low, high


def _span(connection: Connection, filters: Filters) -> Span:
    """The entries between `since` and `until`."""
    until_ns = MAX_SEQ if filters.until_ns is None else filters.until_ns
    return Span(*_bounds(connection, filters), filters.since_ns or 0, until_ns)


def _call_row(row: Any) -> CallRow:
    rest = msgspec.json.decode(row.rest)
    return CallRow(
        id=row.id,
        seq=row.seq,
        at=iso(row.at_ns),
        run=row.run,
        agent=row.agent,
        tool=row.tool or "",
        method=row.method,
        scheme=row.scheme,
        host=row.host,
        port=row.port,
        path=row.path,
        decision=row.decision,
        code=row.code or "",
        rules=tuple(msgspec.json.decode(row.rules)),
        would=_would_by(rest),
        executed=row.executed,
        outcome=row.outcome,
        status=row.status,
        duration_ms=ms(row.duration_ns),
        ruleset=row.ruleset,
        expected=row.expected or "",
    )


def _would_by(rest: dict[str, Any]) -> tuple[str, ...]:
    """The rules that would have refused the call, in the words of any schema."""
    if "payload" in rest:
        return tuple(rest.get("would_by", ()))
    return tuple(dict.fromkeys(violation["rule"] for violation in rest.get("would", ())))


def _detail(connection: Connection, seq: int) -> CallDetail:
    """Everything about the call that was decided in entry `seq`."""
    sql, values = calls_query(ALL, (seq, seq), held=True)
    call = _call_row(connection.execute(text(sql), {**values, "limit": 1}).one())
    row = connection.execute(text("SELECT * FROM entries WHERE seq = :seq"), {"seq": seq}).one()
    payload: str | None = None
    beside = "payload" in msgspec.json.decode(row.rest)
    if beside:  # a ledger of schema 1, which nobody has opened for writing yet, has no such table
        payload = connection.execute(text("SELECT content FROM payloads WHERE seq = :seq"), {"seq": seq}).scalar()
    entry: Any = entry_of(tuple(row), payload)
    outcomes = []
    for outcome_row in connection.execute(text(OUTCOMES), {"seq": seq}):
        outcome: Any = entry_of(tuple(outcome_row))
        outcomes.append(
            OutcomeRow(
                seq=outcome_row.seq,
                at=iso(outcome.at_ns),
                outcome=outcome.outcome,
                status=outcome.status or None,
                duration_ms=round(outcome.duration_ns / 1e6, 3),
                error=outcome.error,
                answer_bytes=outcome.answer_bytes,
                client_left=outcome.client_left,
                expected=outcome.expected,
                shown_as=outcome.shown_as,
                messages=outcome.messages,
                streamed_bytes=outcome.streamed_bytes,
                changes=outcome.changes,
            )
        )
    return CallDetail(
        call=call,
        detail=entry.detail,
        violations=entry.violations,
        would=entry.would,
        facts=entry.facts,
        changes=entry.changes,
        replay_of=entry.replay_of,
        fingerprint=entry.fingerprint,
        send_at_ns=entry.send_at_ns,
        waited_ms=round(entry.waited_ns / 1e6, 3),
        calls=entry.count,
        outcomes=tuple(outcomes),
        hash=row.hash.hex(),
        pruned=beside and payload is None,
    )


def _codes(connection: Connection) -> dict[str, int]:
    """The counts by code. A ledger of an older schema, which nobody has opened for writing yet, has none."""
    if connection.exec_driver_sql("PRAGMA user_version").scalar_one() < 3:
        return {}
    return {row.code: row.calls for row in connection.execute(text(CODES))}


def _rulesets(connection: Connection) -> tuple[RulesetEntry | None, RulesetEntry | None]:
    """The entry of the rule set in force, and of the last reload that failed since."""
    problem: RulesetEntry | None = None
    for row in connection.execute(text(ALL_OF_KIND), {"kind": "ruleset"}):
        entry = entry_of(tuple(row))
        assert isinstance(entry, RulesetEntry)
        if not entry.problem:
            return entry, problem
        problem = problem or entry
    return None, problem


def _halts(connection: Connection) -> tuple[Halt, ...]:
    """The halts in force: what the commands come to, of which there are few."""
    state = State()
    for row in reversed(connection.execute(text(ALL_OF_KIND), {"kind": "command"}).all()):
        entry = entry_of(tuple(row))
        assert isinstance(entry, CommandEntry)
        apply(state, [change for change in entry.changes if change.guard in (Halts.verb, CLOCK)])
    return state.of(Halts).in_force()


def _files(path: Path) -> Iterator[Path]:
    """The ledger's file and those that SQLite keeps beside it."""
    for name in (path.name, f"{path.name}-wal"):
        file = path.with_name(name)
        if file.exists():
            yield file
