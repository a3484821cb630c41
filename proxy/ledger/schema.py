"""The tables of the ledger, and what makes them append-only. `docs/ledger.md` says the same to those who read it.

Column types and names are the same for every database; triggers, views and pragmas are SQLite's. There are no CHECKs on
words such as outcomes: they cannot be widened without rebuilding a table that must never be rebuilt.
"""

from __future__ import annotations

import secrets
import sqlite3
from functools import cache
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    inspect,
    text,
)
from sqlalchemy.exc import DatabaseError

from proxy.ledger.entries import LedgerError

APPLICATION_ID = 0x426F7264
"""`Bord`: how `file` and we tell a ledger from other SQLite files."""

SCHEMA_VERSION = 3
"""2: payloads beside the entries, checkpoints, commands. 3: counts by code, and `expected` in the view `calls`.

A ledger of an older version is brought up to date when it is opened.
"""

INT64 = Integer().with_variant(BigInteger, "postgresql")

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_strict=True,
)
"""What the ledger was made with: its name (`origin`), the ids of its keys (`hash_key`, `vault_key`, `signing_key`)."""

entries = Table(
    "entries",
    metadata,
    Column("seq", INT64, primary_key=True, autoincrement=False),
    Column("at_ns", INT64, nullable=False),
    Column("kind", Text, nullable=False),
    # The decision that this entry is about: its own seq for a decision, the decision's for an outcome.
    Column("call_seq", INT64),
    Column("id", Text),
    Column("run", Text),
    Column("agent", Text),
    Column("tool", Text),
    Column("method", Text),
    Column("scheme", Text),
    Column("host", Text),
    Column("port", Integer),
    Column("path", Text),
    Column("decision", Text),
    Column("code", Text),
    Column("rules", Text),
    Column("executed", Text),
    Column("status", Integer),
    Column("ruleset", Text),
    Column("calls", Integer),
    Column("outcome", Text),
    Column("duration_ns", INT64),
    Column("answer_bytes", INT64),
    Column("rest", Text, nullable=False),
    Column("prev", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_strict=True,
)
"""One row an entry; a column that does not apply to its kind is NULL, what has no column is JSON in `rest`."""

entry_rules = Table(
    "entry_rules",
    metadata,
    Column("rule", Text, primary_key=True),
    Column("seq", INT64, ForeignKey("entries.seq"), primary_key=True),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""Which decisions speak of which rule: finds them by rule; derived from the entries."""

payloads = Table(
    "payloads",
    metadata,
    Column("seq", INT64, ForeignKey("entries.seq"), primary_key=True, autoincrement=False),
    Column("salt", LargeBinary, nullable=False),
    Column("content", Text, nullable=False),
    sqlite_strict=True,
)
"""The values that decisions were made of, as JSON. Their entries have the digest of salt and content."""

answers = Table(
    "answers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("until_ns", INT64, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    sqlite_strict=True,
)
"""Answers kept for replay, encrypted; deleted when their time is over."""

commands = Table(
    "commands",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("done", Integer),
    Column("result", Text),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
"""Where others leave commands for the process that owns the ledger, and find what came of them. No part of the record.

`done` is NULL until then, 1 when it was carried out, 0 when it was refused; `data` and `result` are JSON objects.
"""

totals = Table(
    "totals",
    metadata,
    Column("decision", Text, primary_key=True),
    Column("calls", INT64, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""How many calls were decided how, in all: derived from the entries, so that nobody has to count them."""

codes = Table(
    "codes",
    metadata,
    Column("code", Text, primary_key=True),
    Column("calls", INT64, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""How many calls were refused, or answered again, by code: derived from the entries as well."""

COUNT_CODES = """
    INSERT OR REPLACE INTO codes (code, calls)
    SELECT code, sum(calls) FROM entries WHERE code IS NOT NULL AND decision IS NOT NULL GROUP BY code
"""

e = entries.c
Index("answers_until", answers.c.until_ns)
Index("entries_at", e.at_ns)
Index("entries_id", e.id, sqlite_where=e.decision.is_not(None))
Index("entries_run", e.run, e.seq, e.decision, e.calls, sqlite_where=e.run.is_not(None))
Index("entries_agent", e.agent, e.seq, sqlite_where=e.agent.is_not(None))
Index("entries_tool", e.tool, e.seq, sqlite_where=e.tool.is_not(None))
Index("entries_host", e.host, e.seq, sqlite_where=e.host.is_not(None))
Index("entries_decision", e.decision, e.seq, e.calls, sqlite_where=e.decision.is_not(None))
Index("entries_status", e.status, e.call_seq, sqlite_where=e.status.is_not(None))
Index("entries_outcome", e.call_seq, e.seq, sqlite_where=e.outcome.is_not(None))
Index("entries_kind", e.kind, e.seq, sqlite_where=e.call_seq.is_(None))

TRIGGERS = (
    """
    CREATE TRIGGER entries_chain BEFORE INSERT ON entries
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM entries)
      OR NEW.prev IS NOT coalesce((SELECT hash FROM entries ORDER BY seq DESC LIMIT 1), zeroblob(32))
      OR length(NEW.hash) <> 32
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry must follow the last one'); END
    """,
    """
    CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry cannot be changed'); END
    """,
    """
    CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry cannot be deleted'); END
    """,
    """
    CREATE TRIGGER entry_rules_no_update BEFORE UPDATE ON entry_rules
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry cannot be changed'); END
    """,
    """
    CREATE TRIGGER entry_rules_no_delete BEFORE DELETE ON entry_rules
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry cannot be deleted'); END
    """,
    """
    CREATE TRIGGER payloads_insert BEFORE INSERT ON payloads
    WHEN EXISTS (SELECT 1 FROM payloads WHERE seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: a payload cannot be changed'); END
    """,
    """
    CREATE TRIGGER payloads_no_update BEFORE UPDATE ON payloads
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: a payload cannot be changed'); END
    """,
    """
    CREATE TRIGGER payloads_no_delete BEFORE DELETE ON payloads
    WHEN OLD.seq > coalesce(
        (SELECT max(rest ->> '$.through') FROM entries WHERE kind = 'prune' AND call_seq IS NULL), 0)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: only what a prune entry names can be deleted'); END
    """,
)


def iso_sql(column: str) -> str:
    """SQL for a column of nanoseconds as ISO 8601 in UTC, to the millisecond, cut and not rounded."""
    seconds = f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000000, 'unixepoch')"
    return f"{seconds} || printf('.%03dZ', {column} / 1000000 % 1000)"


LAST_OUTCOME = "(SELECT max(x.seq) FROM entries x WHERE x.call_seq = d.seq AND x.outcome IS NOT NULL)"
"""SQL for the entry that has the last word on the call that was decided in entry `d`."""

EXECUTED = """
    CASE o.outcome
    WHEN 'done' THEN 'yes' WHEN 'not_executed' THEN 'no' WHEN 'unknown' THEN 'unknown'
    ELSE CASE d.decision WHEN 'allow' THEN 'unknown' ELSE d.executed END END
"""
"""SQL for whether the side effect of call `d` with last outcome `o` has happened."""

DECISIONS = {"allow": "allowed", "deny": "denied", "throttle": "throttled", "replay": "replayed", "hold": "held"}
"""The decisions, and what calls that were decided so are called."""

COUNTS = ", ".join(f"sum(d.calls * (d.decision = '{decision}')) AS {name}" for decision, name in DECISIONS.items())
"""SQL for how many of the calls `d` were decided how."""

WOULD = """
    CASE WHEN d.rest ->> '$.payload' IS NULL
    THEN (SELECT json_group_array(value ->> '$.rule') FROM json_each(d.rest, '$.would'))
    ELSE coalesce(d.rest -> '$.would_by', '[]') END
"""
"""SQL for the rules that would have refused call `d`; entries of schema 1 say it in other words."""


def _told(name: str, arrow: str = "->") -> str:
    """SQL for what the payload `p` of decision `d` says of `name`, or the entry itself, if it is of schema 1."""
    return f"coalesce(p.content {arrow} '$.{name}', d.rest {arrow} '$.{name}')"


VIEWS = (
    f"""
    CREATE VIEW calls AS
    SELECT d.seq, d.id, {iso_sql("d.at_ns")} AS at, d.at_ns, d.run, d.agent, d.tool, d.method, d.scheme, d.host, d.port,
           d.path, d.decision, d.code, d.rules, {WOULD} AS would, {_told("detail", "->>")} AS detail,
           {EXECUTED} AS executed, o.outcome, coalesce(o.status, d.status) AS status,
           round(o.duration_ns / 1e6, 3) AS duration_ms, o.duration_ns, o.answer_bytes, o.rest ->> '$.error' AS error,
           o.rest ->> '$.expected' AS expected, d.calls, d.ruleset
    FROM entries d LEFT JOIN entries o ON o.seq = {LAST_OUTCOME} LEFT JOIN payloads p ON p.seq = d.seq
    WHERE d.decision IS NOT NULL
    """,
    f"""
    CREATE VIEW decisions AS
    SELECT d.seq, d.id, {iso_sql("d.at_ns")} AS at, d.at_ns, d.run, d.agent, d.tool, d.method, d.scheme, d.host, d.port,
           d.path, d.decision, d.code, d.rules, {_told("detail", "->>")} AS detail,
           {_told("violations")} AS violations, {_told("would")} AS would, {_told("facts")} AS facts,
           d.rest ->> '$.replay_of' AS replay_of, d.rest ->> '$.fingerprint' AS fingerprint,
           round(coalesce(d.rest ->> '$.waited_ns', 0) / 1e6, 3) AS waited_ms, d.calls, d.ruleset
    FROM entries d LEFT JOIN payloads p ON p.seq = d.seq
    WHERE d.decision IS NOT NULL
    """,
    f"""
    CREATE VIEW runs AS
    SELECT d.run, min(d.agent) AS agent, {iso_sql("min(d.at_ns)")} AS first_at, {iso_sql("max(d.at_ns)")} AS last_at,
           min(d.at_ns) AS first_ns, max(d.at_ns) AS last_ns, sum(d.calls) AS calls, {COUNTS}
    FROM entries d
    WHERE d.run IS NOT NULL
    GROUP BY d.run
    """,
)


USED = (
    "SELECT page_size * (page_count - freelist_count) FROM pragma_page_size, pragma_page_count, pragma_freelist_count"
)
"""SQL for how many bytes of the file are in use: what was deleted is free again, though the file stays as large."""


def prepare(connection: Connection, path: Path, key_ids: dict[str, str]) -> None:
    """Make the tables in a new file, or check that this is a ledger of ours and up to date. `connection` may write.

    Raises `LedgerError` when it is not, was made by a newer version, or was written with other keys.
    """
    check_file(connection, path, new_allowed=True)
    if connection.exec_driver_sql("PRAGMA user_version").scalar_one() < SCHEMA_VERSION:
        make(connection)
        connection.exec_driver_sql(COUNT_CODES)
    written_with = {row.name: row.value for row in connection.execute(meta.select())}
    if not written_with:
        written_with = dict(key_ids)
    # Neither a new ledger nor one of schema 1 has these yet.
    written_with.setdefault("origin", f"borderpost/{secrets.token_hex(8)}")
    if "signing_key" in key_ids:
        written_with.setdefault("signing_key", key_ids["signing_key"])
    for name, key_id in key_ids.items():
        if written_with.get(name) != key_id:
            file = name.replace("_", ".")
            raise LedgerError(
                f"the ledger `{path}` was written with another `{file}`: give the `--confdir` that it was made with, "
                "or begin a new ledger with `--ledger`"
            )
    named = [{"name": name, "value": value} for name, value in written_with.items()]
    connection.execute(meta.insert().prefix_with("OR IGNORE"), named)


def make(connection: Connection) -> None:
    """Make what is not there yet in a new file, or in one of an older version, whose entries stay as they are."""
    metadata.create_all(connection)
    present = {
        name for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").all()
    }
    for statement in TRIGGERS:
        if statement.split()[2] not in present:
            connection.exec_driver_sql(statement)
    for statement in VIEWS:
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {statement.split()[2]}")
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def check_file(connection: Connection, path: Path, *, new_allowed: bool = False) -> None:
    """Raise `LedgerError` unless `path` is a ledger that this version can read, or an empty file if `new_allowed`."""
    try:
        application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        is_new = version == 0 and application == 0 and not inspect(connection).get_table_names()
    except DatabaseError as error:
        if "not a database" not in str(error.orig):
            raise
        raise LedgerError(f"`{path}` is not a ledger (no SQLite file): give another one with `--ledger`") from None
    if is_new:
        if not new_allowed:
            raise LedgerError(f"the ledger `{path}` is empty: nothing was recorded yet")
        return
    if application != APPLICATION_ID:
        raise LedgerError(f"`{path}` is a database of another program: give another one with `--ledger`")
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"the ledger `{path}` was written by a newer version (schema {version}, this one knows {SCHEMA_VERSION}): "
            "upgrade borderpost"
        )


def last_entry(connection: Connection) -> tuple[int, bytes, int]:
    """Seq, hash and time (ns) of the last entry; (0, 32 zero bytes, 0) when there is none."""
    row = connection.execute(text("SELECT seq, hash, at_ns FROM entries ORDER BY seq DESC LIMIT 1")).one_or_none()
    return (0, bytes(32), 0) if row is None else (row.seq, row.hash, row.at_ns)


def origin_of(connection: Connection) -> str:
    """The ledger's name, which its checkpoints bear."""
    return str(connection.execute(text("SELECT value FROM meta WHERE name = 'origin'")).scalar_one())


type Form = dict[tuple[str, str], list[str]]
"""What a file consists of: (kind, name) -> the words of the statement that made it."""

FORM = "SELECT type, name, coalesce(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\'"


@cache
def form() -> Form:
    """The form of every ledger of this version."""
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            make(connection)
            return {(kind, name): sql.split() for kind, name, sql in connection.exec_driver_sql(FORM).all()}
    finally:
        engine.dispose()


def form_of(connection: sqlite3.Connection) -> Form:
    """The form of the file behind `connection`. The statistics that ANALYZE leaves do not count."""
    return {(kind, name): sql.split() for kind, name, sql in connection.execute(FORM)}
