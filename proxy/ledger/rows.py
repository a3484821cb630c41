"""Entries as rows and back, and the hash chain over them. Pure: no database here.

The hash of an entry is SHA-256 over: the hash before it, its seq (8 bytes, big-endian), and the JSON array (UTF-8, no
white space) of its columns from `at_ns` to `rest` as they stand in the table. Anybody can compute it from the file.

The values that a decision was made of (its payload: sentence, violations, facts) stand beside it. The entry has their
salted digest, so that they can be given up one day, and the chain still holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from proxy.ledger.entries import (
    BootEntry,
    CheckpointEntry,
    CommandEntry,
    DecisionEntry,
    Entry,
    OutcomeEntry,
    PruneEntry,
    RulesetEntry,
)
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


SALT_BYTES = 16


class Beside(msgspec.Struct, frozen=True):
    """What stands beside an entry, as the entry tells of it: `digest` (hex); of an answer, `until_ns` it is kept."""

    digest: str
    until_ns: int = 0


class _Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """The values that a decision was made of."""

    detail: str = ""
    violations: tuple[Violation, ...] = ()
    would: tuple[Violation, ...] = ()
    facts: dict[str, Any] = {}


class _DecisionRest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of a decision that have no column. `would_by`: the rules of `would`; `other_rules`: any not named.

    `payload`: SHA-256 over the salt and the payload beside it. Entries of schema 1 have no payload: what would be in
    it stands here.
    """

    detail: str = ""
    violations: tuple[Violation, ...] = ()
    would: tuple[Violation, ...] = ()
    payload: str = ""
    would_by: tuple[str, ...] = ()
    other_rules: tuple[str, ...] = ()
    replay_of: str = ""
    fingerprint: str = ""
    send_at_ns: int = 0
    waited_ns: int = 0
    facts: dict[str, Any] = {}
    changes: tuple[Change, ...] = ()


class _OutcomeRest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of an outcome that have no column.

    `stored`: SHA-256 of the sealed answer, whose nonce is its salt; it is kept until `stored_until_ns`.
    """

    error: str = ""
    answer_sha256: str = ""
    client_left: bool = False
    expected: str = ""
    shown_as: int = 0
    messages: tuple[int, int] = (0, 0)
    streamed_bytes: int = 0
    streamed_sha256: str = ""
    changes: tuple[Change, ...] = ()
    stored: str = ""
    stored_until_ns: int = 0


def row_of(entry: Entry, seq: int, call_seq: int | None, prev: bytes, beside: Beside | None = None) -> Row:
    """The row of `entry`, chained to `prev`. `call_seq` is the decision it is about.

    `beside`: the payload of a decision (without one it stands in the row itself), the kept answer of an outcome.
    """
    if isinstance(entry, DecisionEntry):
        row = _decision_row(entry, call_seq, beside)
    elif isinstance(entry, OutcomeEntry):
        row = _outcome_row(entry, call_seq, beside)
    elif isinstance(entry, BootEntry):
        row = _plain_row(entry, "boot")
    elif isinstance(entry, RulesetEntry):
        row = _plain_row(entry, "ruleset")
    elif isinstance(entry, CheckpointEntry):
        row = _plain_row(entry, "checkpoint")
    elif isinstance(entry, PruneEntry):
        row = _plain_row(entry, "prune")
    else:
        row = _plain_row(entry, "command")
    return (seq, *row, prev, chain(prev, seq, row))


def chain(prev: bytes, seq: int, columns: Sequence[Any]) -> bytes:
    """The hash of the entry `seq` whose columns from `at_ns` to `rest` are `columns`, after the hash `prev`."""
    return hashlib.sha256(prev + seq.to_bytes(8) + _encode(columns)).digest()


def payload_of(entry: DecisionEntry) -> str:
    """The payload of `entry`, as JSON; empty when there is nothing in it."""
    content = _text(_Payload(entry.detail, entry.violations, entry.would, entry.facts))
    return "" if content == "{}" else content


def payload_digest(salt: bytes, content: str) -> str:
    """What the entry says of its payload. Without the salt, which is pruned with it, nobody can try contents."""
    return hashlib.sha256(salt + content.encode()).hexdigest()


def rules_of(entry: DecisionEntry) -> set[str]:
    """Every rule that the decision speaks of: those that determined it, and those that only would have."""
    found = set(entry.rules)
    for violation in entry.violations + entry.would:
        found.add(violation.rule)
    found.discard("")
    return found


def rules_named(row: Row) -> set[str]:
    """`rules_of` the decision in `row`, with nothing but the row at hand."""
    rest = _decode(row[23])
    found = {*_decode(row[15]), *rest.get("would_by", ()), *rest.get("other_rules", ())}
    for violation in (*rest.get("violations", ()), *rest.get("would", ())):
        found.add(violation["rule"])
    found.discard("")
    return found


def _decision_row(entry: DecisionEntry, call_seq: int | None, beside: Beside | None) -> Row:
    would_by = tuple(dict.fromkeys(violation.rule or violation.code for violation in entry.would))
    rest = _DecisionRest(
        replay_of=entry.replay_of,
        fingerprint=entry.fingerprint,
        send_at_ns=entry.send_at_ns,
        waited_ns=entry.waited_ns,
        changes=entry.changes,
        **(
            {"payload": beside.digest, "would_by": would_by, "other_rules": _others(entry, would_by)}
            if beside
            else {
                "detail": entry.detail,
                "violations": entry.violations,
                "would": entry.would,
                "facts": entry.facts,
            }
        ),
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


def _others(entry: DecisionEntry, would_by: tuple[str, ...]) -> tuple[str, ...]:
    """The rules of violations that are named nowhere else in the row: hardly ever one."""
    if all(violation.rule in entry.rules or not violation.rule for violation in entry.violations):
        return ()
    return tuple(sorted(rules_of(entry) - {*entry.rules, *would_by}))


def _outcome_row(entry: OutcomeEntry, call_seq: int | None, beside: Beside | None) -> Row:
    kept = beside or Beside("")
    rest = _OutcomeRest(
        entry.error,
        entry.answer_sha256,
        entry.client_left,
        entry.expected,
        entry.shown_as,
        entry.messages,
        entry.streamed_bytes,
        entry.streamed_sha256,
        entry.changes,
        kept.digest,
        kept.until_ns,
    )
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


type PlainEntry = BootEntry | RulesetEntry | CommandEntry | CheckpointEntry | PruneEntry
"""The entries that have no columns of their own."""


def _plain_row(entry: PlainEntry, kind: str) -> Row:
    rest = msgspec.structs.asdict(entry)
    at_ns = rest.pop("at_ns")
    return (at_ns, kind, *(None,) * 20, _text(rest))


def _text(value: object) -> str:
    return _encode(value).decode()


def entry_of(row: Row, payload: str | None = None) -> Entry:
    """The entry that `row` holds, with what is in its `payload`. What `row_of` made comes back equal."""
    kind, rest = row[2], _decode(row[23])
    if kind == "decision":
        for name in ("payload", "would_by", "other_rules"):
            rest.pop(name, None)
        if payload:
            rest |= _decode(payload)
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
        if "messages" in rest:
            rest["messages"] = tuple(rest["messages"])
        for name in ("stored", "stored_until_ns"):
            rest.pop(name, None)
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
    if kind == "checkpoint":
        return CheckpointEntry(at_ns=row[1], **rest)
    if kind == "prune":
        return PruneEntry(at_ns=row[1], **rest)
    return CommandEntry(at_ns=row[1], **rest)
