"""What a ledger tells: the shapes that `--json` prints. Their fields stay as they are."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from proxy.ledger.entries import RulesetEntry
from rules.decision import Change, Violation


class CallRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call as `log list --json` prints it. `at` is ISO 8601 in UTC.

    `would`: the rules that would have refused it, were they not in monitor mode. `outcome`, `status` and `duration_ms`
    are None as long as a call that was sent has no answer. `expected`: whether the answer was a success by its tool's
    `expect`: `met`, `failed` or `unclear`; left out of the JSON where there is none.
    """

    id: str
    seq: int
    at: str
    run: str
    agent: str
    tool: str
    method: str
    scheme: str
    host: str
    port: int
    path: str
    decision: str
    code: str
    rules: tuple[str, ...]
    would: tuple[str, ...]
    executed: str
    outcome: str | None
    status: int | None
    duration_ms: float | None
    ruleset: str
    expected: str = ""


class OutcomeRow(msgspec.Struct, frozen=True):
    """One thing that became known of a call that was sent."""

    seq: int
    at: str
    outcome: str
    status: int | None
    duration_ms: float
    error: str
    answer_bytes: int
    client_left: bool
    expected: str
    shown_as: int
    messages: tuple[int, int]
    streamed_bytes: int
    changes: tuple[Change, ...]


class CallDetail(msgspec.Struct, frozen=True):
    """Everything on record about one call. `calls`: above 1, this stands for so many equal refusals.

    `pruned`: detail, violations, would and facts were given up (`log prune`, `keep`, `max_size`).
    """

    call: CallRow
    detail: str
    violations: tuple[Violation, ...]
    would: tuple[Violation, ...]
    facts: dict[str, Any]
    changes: tuple[Change, ...]
    replay_of: str
    fingerprint: str
    send_at_ns: int
    waited_ms: float
    calls: int
    outcomes: tuple[OutcomeRow, ...]
    hash: str
    pruned: bool


class StatsRow(msgspec.Struct, frozen=True):
    """The calls of one group. `answer_bytes` counts upstream answers; latencies are of calls that were answered."""

    key: str
    calls: int
    allowed: int
    denied: int
    throttled: int
    replayed: int
    held: int
    unknown: int
    failed: int
    answer_bytes: int
    p50_ms: float | None
    p95_ms: float | None


class RunRow(msgspec.Struct, frozen=True):
    """One run: when, who, and how many calls were decided how."""

    run: str
    agent: str
    first_at: str
    last_at: str
    calls: int
    allowed: int
    denied: int
    throttled: int
    replayed: int
    held: int


class HaltRow(msgspec.Struct, frozen=True):
    """Calls that a person has stopped: `calls` says which; `agent` and `tool` are names or globs, empty for any."""

    calls: str
    agent: str
    tool: str
    reason: str
    by: str
    at: str


class Status(msgspec.Struct, frozen=True):
    """Where the ledger stands. `used_bytes` is what counts towards `max_size`; `size_bytes` are all its files.

    `problem` is of the last reload that failed since the rule set in force was loaded."""

    path: str
    entries: int
    size_bytes: int
    used_bytes: int
    last_ns: int
    last_at: str
    boot: dict[str, Any] | None
    boot_at: str
    ruleset: RulesetEntry | None
    ruleset_at: str
    problem: str
    problem_at: str
    totals: dict[str, int]
    codes: dict[str, int]
    halts: tuple[HaltRow, ...]


def ms(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else round(duration_ns / 1e6, 3)


def iso(at_ns: int) -> str:
    """`at_ns` as ISO 8601 in UTC to the millisecond, cut and not rounded; empty for 0."""
    if not at_ns:
        return ""
    seconds, rest_ns = divmod(at_ns, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"
