"""Which calls are asked for, in SQL: newest first, as they end, or counted by group.

Every query goes along an index; `tests/proxy/ledger/test_query.py` holds SQLite's query plans to that.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from proxy.ledger import schema
from proxy.ledger.entries import HELD_BACK

type Grouping = Literal["decision", "tool", "agent", "code", "rule"]


class Filters(msgspec.Struct, frozen=True):
    """Which calls: every filter that is set must fit. Times are ns since the epoch, `until_ns` is exclusive.

    `rule`: calls that this rule determined, or would have in monitor mode. `status`: what the client was answered.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    agent: str | None = None
    run: str | None = None
    tool: str | None = None
    decision: str | None = None
    rule: str | None = None
    host: str | None = None
    status: int | None = None


ALL = Filters()


COLUMNS = f"""
    d.seq, d.id, d.at_ns, d.run, d.agent, d.tool, d.method, d.scheme, d.host, d.port, d.path, d.decision, d.code,
    d.rules, d.rest, {schema.EXECUTED} AS executed, o.outcome, coalesce(o.status, d.status) AS status, o.duration_ns,
    d.ruleset, o.rest ->> '$.expected' AS expected
"""
WITH_OUTCOME = f"LEFT JOIN entries o ON o.seq = {schema.LAST_OUTCOME}"

UNANSWERED = f"""
    d.decision = 'allow' AND o.outcome IS NOT NULL AND o.status IS NULL
    AND coalesce(o.rest ->> '$.error', '') NOT LIKE '{HELD_BACK}%'
"""

type Query = tuple[str, dict[str, Any]]


def calls_query(filters: Filters, bounds: tuple[int, int], *, held: bool = False) -> Query:
    """SQL for the calls that fit with a seq within `bounds`, newest first, at most `:limit`.

    `held`: also the decisions that did not stand for good, because the call was held by them.
    """
    source, where, seq, values = selection(filters, bounds, held)
    return f"SELECT {COLUMNS} FROM {source} WHERE {where} ORDER BY {seq} DESC LIMIT :limit", values


def tail_query(filters: Filters) -> Query:
    """SQL for the calls that fit and ended after `:since`, in the order of their ends (`end`), at most `:limit`."""
    terms, values = _terms(filters)
    if filters.rule is not None:
        terms.append("EXISTS (SELECT 1 FROM entry_rules r WHERE r.rule = :rule AND r.seq = d.seq)")
        values["rule"] = filters.rule
    return (
        f'SELECT {COLUMNS}, w.seq AS "end" FROM entries w CROSS JOIN entries d ON d.seq = w.call_seq {WITH_OUTCOME} '
        f"WHERE {' AND '.join(['w.seq > :since', 'w.seq <= :last', ENDED, *terms])} ORDER BY w.seq LIMIT :limit",
        values,
    )


ENDED = "(w.outcome IS NOT NULL OR w.decision <> 'allow')"


def stats_query(by: Grouping, filters: Filters, bounds: tuple[int, int]) -> Query:
    """SQL for the calls that fit with a seq within `bounds`, counted by group; a rule counts where it determined."""
    source, where, _, values = selection(filters, bounds, False)
    key = f"d.{by}"
    if by == "rule":
        key = "g.value"
        source = f"{source}, json_each(d.rules) g"
    return (
        f"""
        WITH c AS (
            SELECT {key} AS "key", d.calls, d.decision, o.outcome, o.answer_bytes, o.duration_ns,
                   o.rest ->> '$.expected' AS expected,
                   row_number() OVER (PARTITION BY {key} ORDER BY o.duration_ns) AS place,
                   count(o.duration_ns) OVER (PARTITION BY {key}) AS answered,
                   count(*) OVER (PARTITION BY {key}) AS total
            FROM {source} WHERE {where}
        )
        SELECT d."key", sum(d.calls) AS calls, {schema.COUNTS},
               sum(CASE d.outcome WHEN 'unknown' THEN 1 ELSE 0 END) AS unknown,
               sum(CASE d.expected WHEN 'failed' THEN 1 ELSE 0 END) AS failed,
               coalesce(sum(d.answer_bytes), 0) AS answer_bytes,
               max(CASE WHEN place - (total - answered) = (answered + 1) / 2 THEN duration_ns END) AS p50_ns,
               max(CASE WHEN place - (total - answered) = (answered * 95 + 99) / 100 THEN duration_ns END) AS p95_ns
        FROM c AS d GROUP BY d."key" ORDER BY 2 DESC, 1
        """,
        values,
    )


def selection(filters: Filters, bounds: tuple[int, int], held: bool) -> tuple[str, str, str, dict[str, Any]]:
    """FROM, WHERE, what to order by, and values, for the calls `d` that fit, with their last outcome `o`."""
    terms, values = _terms(filters)
    values |= {"low": bounds[0], "high": bounds[1]}
    source, seq = "entries d", "d.seq"
    if filters.rule is not None:
        source, seq = "entry_rules r CROSS JOIN entries d ON d.seq = r.seq", "r.seq"
        terms.append("r.rule = :rule")
        values["rule"] = filters.rule
    elif filters.status is not None:
        source, seq = "entries s CROSS JOIN entries d ON d.seq = s.call_seq", "s.call_seq"
        terms.append("s.status = :status AND s.seq = coalesce(o.seq, d.seq)")
    where = " AND ".join([f"{seq} >= :low", f"{seq} <= :high", "d.decision IS NOT NULL", *terms])
    if not held:
        where += " AND d.calls > 0"
    return f"{source} {WITH_OUTCOME}", where, seq, values


def _terms(filters: Filters) -> tuple[list[str], dict[str, Any]]:
    """The conditions that stand in the columns of the call itself."""
    terms, values = [], {}
    for name in ("agent", "run", "tool", "decision", "host"):
        wanted = getattr(filters, name)
        if wanted is not None:
            terms.append(f"d.{name} = :{name}")
            values[name] = wanted
    if filters.status is not None:
        terms.append("coalesce(o.status, d.status) = :status")
        values["status"] = filters.status
    if filters.since_ns is not None:
        terms.append("d.at_ns >= :since_ns")
        values["since_ns"] = filters.since_ns
    if filters.until_ns is not None:
        terms.append("d.at_ns < :until_ns")
        values["until_ns"] = filters.until_ns
    return terms, values
