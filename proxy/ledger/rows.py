"""Entries as rows and back, and the hash chain over them. Pure: no database here.

The hash of an entry is SHA-256 over: the hash before it, its seq (8 bytes, big-endian), and the JSON array (UTF-8, no
white space) of its columns from `at_ns` to `rest` as they stand in the table. Anybody can compute it from the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from proxy.ledger.entries import BootEntry, CommandEntry, DecisionEntry, Entry, OutcomeEntry, RulesetEntry
from rules.decision import Change, Violation

type Row = tuple[Any, ...]
"""The columns of table `entries`, in order."""

COLUMNS = (
    "seq", "at_ns", "kind", "call_seq", "id", "run", "agent", "tool", "method", "scheme", "host", "port", "path",
    "decision", "code", "rules", "executed", "status", "ruleset", "calls", "outcome", "duration_ns", "answer_bytes",
    "rest", "prev", "hash",
)  # fmt: skip

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.decode


class _DecisionRest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of a decision that have no column."""

    detail: str = ""
    violations: tuple[Violation, ...] = ()
    would: tuple[Violation, ...] = ()
    replay_of: str = ""
    fingerprint: str = ""
    send_at_ns: int = 0
    waited_ns: int = 0
    facts: dict[str, Any] = {}
    changes: tuple[Change, ...] = ()


class _OutcomeRest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of an outcome that have no column. `stored`: SHA-256 of the sealed answer, whose nonce is its salt."""

    error: str = ""
    answer_sha256: str = ""
    client_left: bool = False
    changes: tuple[Change, ...] = ()
    stored: str = ""


def row_of(entry: Entry, seq: int, call_seq: int | None, prev: bytes, stored: str = "") -> Row:
    """The row of `entry`, chained to `prev`. `call_seq` is the decision it is about; `stored` digests a kept answer."""
    if isinstance(entry, DecisionEntry):
        row = _decision_row(entry, call_seq)
    elif isinstance(entry, OutcomeEntry):
        row = _outcome_row(entry, call_seq, stored)
    elif isinstance(entry, BootEntry):
        row = _plain_row(entry, "boot")
    elif isinstance(entry, RulesetEntry):
        row = _plain_row(entry, "ruleset")
    else:
        row = _plain_row(entry, "command")
    return (seq, *row, prev, chain(prev, seq, row))


def chain(prev: bytes, seq: int, columns: Sequence[Any]) -> bytes:
    """The hash of the entry `seq` whose columns from `at_ns` to `rest` are `columns`, after the hash `prev`."""
    return hashlib.sha256(prev + seq.to_bytes(8) + _encode(columns)).digest()


def rules_of(entry: DecisionEntry) -> set[str]:
    """Every rule that the decision speaks of: those that determined it, and those that only would have."""
    found = set(entry.rules)
    for violation in entry.violations + entry.would:
        found.add(violation.rule)
    found.discard("")
    return found


def _decision_row(entry: DecisionEntry, call_seq: int | None) -> Row:
    rest = _DecisionRest(
        entry.detail,
        entry.violations,
        entry.would,
        entry.replay_of,
        entry.fingerprint,
        entry.send_at_ns,
        entry.waited_ns,
        entry.facts,
        entry.changes,
    )
    return (
        entry.at_ns,
        "decision",
        call_seq,
        entry.id,
        entry.run,
        entry.agent,
        entry.tool or None,
        entry.method,
        entry.scheme,
        entry.host,
        entry.port,
        entry.path,
        entry.action,
        entry.code or None,
        _text(entry.rules),
        entry.executed,
        entry.status or None,
        entry.ruleset,
        entry.count,
        None,
        None,
        None,
        _text(rest),
    )


def _outcome_row(entry: OutcomeEntry, call_seq: int | None, stored: str) -> Row:
    rest = _OutcomeRest(entry.error, entry.answer_sha256, entry.client_left, entry.changes, stored)
    nothing = (None,) * 12
    return (
        entry.at_ns,
        "outcome",
        call_seq,
        entry.id,
        *nothing,
        entry.status or None,
        None,
        None,
        entry.outcome,
        entry.duration_ns,
        entry.answer_bytes,
        _text(rest),
    )


def _plain_row(entry: BootEntry | RulesetEntry | CommandEntry, kind: str) -> Row:
    rest = msgspec.structs.asdict(entry)
    at_ns = rest.pop("at_ns")
    return (at_ns, kind, *(None,) * 20, _text(rest))


def _text(value: object) -> str:
    return _encode(value).decode()


def entry_of(row: Row) -> Entry:
    """The entry that `row` holds. What `row_of` made comes back equal."""
    kind, rest = row[2], _decode(row[23])
    if "changes" in rest:
        rest["changes"] = tuple(Change(**change) for change in rest["changes"])
    if kind == "decision":
        for name in ("violations", "would"):
            if name in rest:
                rest[name] = tuple(Violation(**violation) for violation in rest[name])
        return DecisionEntry(
            at_ns=row[1],
            id=row[4],
            run=row[5],
            agent=row[6],
            tool=row[7] or "",
            method=row[8],
            scheme=row[9],
            host=row[10],
            port=row[11],
            path=row[12],
            action=row[13],
            code=row[14] or "",
            rules=tuple(_decode(row[15])),
            executed=row[16],
            status=row[17] or 0,
            ruleset=row[18],
            count=row[19],
            **{"detail": "", **rest},
        )
    if kind == "outcome":
        rest.pop("stored", None)
        return OutcomeEntry(
            at_ns=row[1],
            id=row[4],
            outcome=row[20],
            status=row[17] or 0,
            duration_ns=row[21],
            answer_bytes=row[22],
            **rest,
        )
    if kind == "boot":
        return BootEntry(at_ns=row[1], **rest)
    if kind == "ruleset":
        return RulesetEntry(at_ns=row[1], **{**rest, "files": tuple(rest["files"])})
    return CommandEntry(at_ns=row[1], **rest)
