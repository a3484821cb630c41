"""Entries for the tests of the ledger: whole and plausible, any field can be said otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxy.confdir import Confdir
from proxy.ledger.entries import BootEntry, DecisionEntry, OutcomeEntry, RulesetEntry, StoredAnswer
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from rules.decision import Change

NOW_NS = 1_767_225_600_123_456_789
"""2026-01-01T00:00:00.123Z"""

VAULT = Vault(b"h" * 32, b"v" * 32)

CLAIM = Change("dedupe", "small-refunds", "0f" * 16, "claim", {"until_ns": NOW_NS + 1, "call": "c_1", "n": None})


def open_ledger(directory: Path) -> Ledger:
    """The ledger in `directory`, with the keys that are there."""
    return Ledger.open(directory / "ledger.db", Vault.of(Confdir.open(directory / "conf")), owner="borderpost test")


def decision(call_id: str = "c_1", **fields: Any) -> DecisionEntry:
    """A call that was let out."""
    usual: dict[str, Any] = {
        "at_ns": NOW_NS,
        "id": call_id,
        "run": "r_1",
        "agent": "support",
        "tool": "stripe.refund",
        "method": "POST",
        "scheme": "https",
        "host": "api.stripe.com",
        "port": 443,
        "path": "/v1/refunds",
        "action": "allow",
        "code": "",
        "detail": "allowed by small-refunds",
        "rules": ("small-refunds",),
        "executed": "no",
        "status": 0,
        "ruleset": "5d41402a",
        "fingerprint": "ab" * 32,
        "facts": {"body.amount": 500, "body.charge": "ch_1"},
        "changes": (CLAIM,),
    }
    return DecisionEntry(**{**usual, **fields})


def refusal(call_id: str = "c_1", **fields: Any) -> DecisionEntry:
    """A call that was denied."""
    usual: dict[str, Any] = {
        "action": "deny",
        "code": "policy-denied",
        "detail": "Deleting is not permitted.",
        "rules": ("no-deletes",),
        "status": 403,
        "method": "DELETE",
        "changes": (),
    }
    return decision(call_id, **{**usual, **fields})


def outcome(call_id: str = "c_1", **fields: Any) -> OutcomeEntry:
    """The upstream answered."""
    usual: dict[str, Any] = {
        "at_ns": NOW_NS,
        "id": call_id,
        "outcome": "done",
        "status": 200,
        "duration_ns": 12_345_678,
        "answer_bytes": 512,
        "changes": (Change("dedupe", "small-refunds", "0f" * 16, "done", {}),),
    }
    return OutcomeEntry(**{**usual, **fields})


def boot(**fields: Any) -> BootEntry:
    """A proxy began."""
    usual: dict[str, Any] = {
        "at_ns": NOW_NS,
        "boot": "b_1",
        "command": "borderpost serve",
        "pid": 4711,
        "listen": "127.0.0.1:8080",
        "versions": {"borderpost": "0.1.0"},
    }
    return BootEntry(**{**usual, **fields})


def ruleset(digest: str = "5d41402a", **fields: Any) -> RulesetEntry:
    """A rule set came into force."""
    usual: dict[str, Any] = {
        "at_ns": NOW_NS,
        "digest": digest,
        "files": ("rules/a.yaml",),
        "rules": 3,
        "tools": 2,
        "mode": "enforce",
    }
    return RulesetEntry(**{**usual, **fields})


def answer(call_id: str = "c_1", **fields: Any) -> StoredAnswer:
    """An answer to be kept for replay."""
    usual: dict[str, Any] = {
        "id": call_id,
        "until_ns": NOW_NS + 1_000_000_000,
        "status": 200,
        "reason": b"OK",
        "http_version": "HTTP/1.1",
        "headers": ((b"Content-Type", b"application/json"), (b"X", b"\xff")),
        "body": b'{"id":"re_1"}\x00\xff',
    }
    return StoredAnswer(**{**usual, **fields})
