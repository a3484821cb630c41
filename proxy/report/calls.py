"""The record of calls as people read it: `log list`, `log show`, `log stats`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from proxy.ledger.entries import LedgerError
from proxy.report.checked import counted
from proxy.report.moments import show_size, show_span
from proxy.report.terminal import (
    OF_DECISION,
    WIDE,
    Cell,
    Column,
    Style,
    clip,
    columns_of,
    hung,
    paint,
    table,
    visible,
    wrap,
)
from rules.guards.spending import Budgets
from rules.pattern import PORTS

if TYPE_CHECKING:
    from proxy.ledger.query import LedgerReader
from proxy.ledger.selecting import Filters
from proxy.ledger.told import CallDetail, CallRow, OutcomeRow, StatsRow

POLL_S = 0.3
"""How often `log tail` looks."""


def follow(reader: LedgerReader, filters: Filters, limit: int) -> Iterator[Sequence[CallRow]]:
    """The last `limit` calls, then all others as they come to their end, without an end."""
    filters = with_whole_run(reader, filters)
    since = reader.last_seq()
    if limit:
        yield reader.list(filters, limit=limit)[::-1]
    while True:
        rows, since = reader.tail(since, filters)
        if rows:
            yield rows
        else:
            time.sleep(POLL_S)


def unrecorded_beside(reader: LedgerReader, filters: Filters, page: Sequence[CallRow]) -> int:
    """How many calls that fit went out without a record; with a `page` that is full, since its first call."""
    if page:
        since_ns = int(_local(page[-1].at).timestamp()) * 1_000_000_000
        filters = msgspec.structs.replace(filters, since_ns=max(since_ns, filters.since_ns or 0))
    return reader.unrecorded(filters)


def find(reader: LedgerReader, text: str) -> CallDetail:
    """The call that `text` names: an id, the beginning of one, or the number in the list."""
    if text.isascii() and text.isdigit():
        rows = reader.list(before=int(text) + 1, limit=1)
        if rows and rows[0].seq == int(text):
            return reader.show(rows[0].id)
    return reader.show(text)


def with_whole_run(reader: LedgerReader, filters: Filters) -> Filters:
    """`filters` with the run's whole id where only its beginning was given."""
    if not filters.run:
        return filters
    found = reader.run_ids(filters.run)
    if filters.run in found or not found:
        return filters
    if len(found) > 1:
        raise LedgerError(f"`{filters.run}` is not unique (`{found[0]}`, `{found[1]}`...): give more of the run's id")
    return msgspec.structs.replace(filters, run=found[0])


def list_calls(rows: Sequence[CallRow], room: int, colour: bool) -> list[str]:
    """One line a call. The agent is shown where there is more than one."""
    with_agent = len({row.agent for row in rows}) > 1
    dated = len({_local(row.at).date() for row in rows} | {datetime.now().astimezone().date()}) > 1
    columns = [
        Column("SEQ", 3, right=True),
        Column("TIME", 14 if dated else 8),
        *([Column("AGENT", 6)] if with_agent else []),
        Column("DECISION", 8),
        Column("STATUS", 6, right=True),
        Column("CALL", 24, gives=True),
        Column("RULES", 8),
    ]
    cells = []
    for row in rows:
        time = _local(row.at).strftime("%m-%d %H:%M:%S" if dated else "%H:%M:%S")
        agent = [Cell(row.agent)] if with_agent else []
        decision = Cell(row.decision, OF_DECISION.get(row.decision, ""))
        cells.append(
            [Cell(str(row.seq), "dim"), Cell(time), *agent, decision, _status(row), Cell(_call(row)), _rules(row)]
        )
    return table(columns, cells, room, colour)


def tail_calls(rows: Sequence[CallRow], room: int, colour: bool) -> list[str]:
    """One line a call in columns of fixed widths: the next calls are not known yet."""
    widths = (8, 8, 10)
    lines = []
    for row in rows:
        status = _status(row)
        rules = _rules(row)
        head = [
            _local(row.at).strftime("%H:%M:%S"),
            paint(f"{row.decision:<{widths[1]}}", OF_DECISION.get(row.decision, ""), colour),
            paint(f"{status.text:>{widths[2]}}", status.style, colour),
        ]
        rest = max(room - sum(widths) - 2 * 3, 30)
        why = clip(visible(rules.text), rest // 3)
        what = clip(visible(_call(row)), rest - columns_of(why) - 2)
        padding = " " * (rest - columns_of(what) - columns_of(why)) if room < WIDE else "  "
        lines.append("  ".join([*head, what + padding + paint(why, rules.style, colour)]).rstrip())
    return lines


def show_call(detail: CallDetail, room: int, colour: bool) -> list[str]:
    """Everything on record about one call."""
    call = detail.call
    lines = [paint(f"{call.method} {_url(call)}", "bold", colour)]
    facts: list[tuple[str, str, Style]] = [
        ("decision", call.decision + (f" ({call.code})" if call.code else ""), OF_DECISION.get(call.decision, "")),
        ("why", detail.detail, ""),
        ("rules", ", ".join(call.rules), ""),
        ("would refuse", _would(call), "yellow"),
        ("executed", call.executed, ""),
        ("tool", call.tool, ""),
        ("agent", call.agent, ""),
        ("run", call.run, ""),
        ("at", _local(call.at).isoformat(" ", "milliseconds"), ""),
        ("waited", _latency(detail.waited_ms) if detail.waited_ms >= 1 else "", ""),
        ("answered", _answered(call), ""),
        ("held", "it was held, and decided again later" if detail.calls == 0 else "", ""),
        ("stands for", f"{detail.calls} equal calls" if detail.calls > 1 else "", ""),
        ("repeats", detail.replay_of, ""),
        ("pruned", "what was read and said was given up, on record" if detail.pruned else "", ""),
        ("id", f"{call.id}, entry {call.seq}", ""),
        ("fingerprint", detail.fingerprint, "dim"),
        ("rule set", call.ruleset, "dim"),
        ("entry hash", detail.hash, "dim"),
    ]
    lines += _pairs(facts, room, colour)
    for title, violations in (("refused by", detail.violations), ("would be refused by", detail.would)):
        if violations is detail.would or any(one.rule or one.field for one in violations):
            lines += ["", paint(title, "bold", colour)] if violations else []
            for one in violations:
                lines += hung(f"  {one.rule or one.code}: ", one.detail, room)
                if one.field:
                    lines += hung("    ", f"{one.field} is {one.actual}; {one.limit}", room)
    if detail.facts:
        lines += ["", paint("what was read", "bold", colour)]
        lines += _pairs([(name, _plain(value), "") for name, value in sorted(detail.facts.items())], room, colour)
    spent = list(_spent(detail))
    if spent:
        lines += ["", paint("what it cost", "bold", colour)]
        lines += _pairs(spent, room, colour)
    if detail.outcomes:
        lines += ["", paint("what became of it", "bold", colour)]
        lines += [f"  {_outcome(outcome)}" for outcome in detail.outcomes]
    elif call.decision == "allow":
        lines += ["", "no outcome is recorded yet"]
    return lines


def _spent(detail: CallDetail) -> Iterator[tuple[str, str, Style]]:
    """What budgets held for the call, by rule, and what became of that."""
    ends = {change.key: change for one in detail.outcomes for change in one.changes if change.guard == Budgets.verb}
    for hold in detail.changes:
        if hold.guard != Budgets.verb:
            continue
        held = f"{hold.data['amount']} {hold.data['unit']}".rstrip()
        end = ends.get(hold.key)
        known = detail.outcomes[-1].outcome if detail.outcomes else "unknown"
        became = ""
        if end is not None and end.op == "spend":
            became = f", {end.data['amount']} spent"
        elif known != "unknown":
            became = ", all of it spent" if known == "done" else ", nothing spent"
        yield hold.rule, f"{held} held{became}", ""


def list_stats(by: str, rows: Sequence[StatsRow], room: int, colour: bool) -> list[str]:
    """The calls by group, with a column for each decision that there was."""
    words = {"allowed": "ALLOW", "denied": "DENY", "throttled": "THROTTLE", "replayed": "REPLAY", "held": "HOLD"}
    present = {} if by == "decision" else {word: title for word, title in words.items() if _any_of(rows, word)}
    if _any_of(rows, "unknown"):
        present["unknown"] = "UNKNOWN"
    if _any_of(rows, "failed"):
        present["failed"] = "FAILED"
    columns = [
        Column(by.upper(), 16, gives=True),
        Column("CALLS", 5, right=True),
        *(Column(title, len(title), right=True) for title in present.values()),
        Column("P50", 6, right=True),
        Column("P95", 6, right=True),
    ]
    cells = [
        [
            Cell(row.key or "(none)", OF_DECISION.get(row.key, "") if row.key else "dim"),
            Cell(f"{row.calls}"),
            *(Cell(f"{getattr(row, word)}", "" if getattr(row, word) else "dim") for word in present),
            Cell(_latency(row.p50_ms)),
            Cell(_latency(row.p95_ms)),
        ]
        for row in rows
    ]
    return table(columns, cells, room, colour)


def _any_of(rows: Sequence[StatsRow], word: str) -> bool:
    """Whether the column `word` would hold anything but zeros."""
    return any(getattr(row, word) for row in rows)


def _call(row: CallRow) -> str:
    port = "" if row.port == PORTS.get(row.scheme) else f":{row.port}"
    host = f"[{row.host}]" if ":" in row.host else row.host
    return f"{row.method} {host}{port}{row.path}"


def _url(row: CallRow) -> str:
    method, _, rest = _call(row).partition(" ")
    return visible(f"{row.scheme}://{rest}") if method else ""


def _status(row: CallRow) -> Cell:
    if row.expected == "failed":
        return Cell(f"{row.status} failed", "red")
    if row.outcome == "unknown":
        return Cell("unknown", "yellow")
    if row.status:
        return Cell(str(row.status), "red" if row.status >= 400 and row.decision == "allow" else "")
    if row.outcome == "done":  # a person, or a later call, has told
        return Cell("done")
    return Cell("failed", "red") if row.outcome else Cell("-", "dim")


def _rules(row: CallRow) -> Cell:
    if row.would and row.decision == "allow":
        return Cell(f"{_would(row)} (monitor)", "yellow")
    return Cell(", ".join(row.rules)) if row.rules else Cell(row.code, "dim")


def _would(row: CallRow) -> str:
    """The rules that would have refused it, had they not been in monitor mode; without one, why it was."""
    return ", ".join(rule or "no-allow" for rule in row.would)


def _outcome(outcome: OutcomeRow) -> str:
    parts = [outcome.outcome.replace("_", " ")]
    if outcome.status:
        parts.append(f"status {outcome.status}")
    if outcome.expected:
        parts.append(_EXPECTED[outcome.expected])
    if outcome.shown_as:
        parts.append(f"shown to the agent as {outcome.shown_as}")
    parts.append(f"after {_latency(outcome.duration_ms)}")
    if outcome.answer_bytes:
        parts.append(show_size(outcome.answer_bytes))
    if outcome.streamed_bytes:
        parts.append(f"{show_size(outcome.streamed_bytes)} streamed to it")
    if outcome.messages != (0, 0):
        parts.append(f"{counted(outcome.messages[0], 'message')} sent, {outcome.messages[1]} received")
    if outcome.client_left:
        parts.append("the client had left")
    if outcome.error:
        parts.append(visible(outcome.error))
    return " · ".join(parts)


_EXPECTED = {"met": "as expected", "failed": "failed", "unclear": "not clear whether as expected"}


def _latency(ms: float | None) -> str:
    return "-" if ms is None else show_span(int(ms * 1_000_000))


def _pairs(pairs: Sequence[tuple[str, str, Style]], room: int, colour: bool) -> Iterator[str]:
    """`name  value` lines, aligned, without those that have no value."""
    shown = [(visible(name), visible(value), style) for name, value, style in pairs if value]
    widest = max((columns_of(name) for name, _, _ in shown), default=0)
    for name, value, style in shown:
        head = f"  {name}{' ' * (widest - columns_of(name))}  "
        first, *more = wrap(value, room - columns_of(head))
        yield paint(head, "dim", colour) + paint(first, style, colour)
        yield from (" " * columns_of(head) + paint(line, style, colour) for line in more)


def _answered(call: CallRow) -> str:
    if not call.status:
        return ""
    return f"status {call.status}" + (f" after {_latency(call.duration_ms)}" if call.duration_ms is not None else "")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _local(at: str) -> datetime:
    """An ISO time in UTC as local time."""
    return datetime.fromisoformat(at).astimezone()
