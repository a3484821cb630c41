"""Entries come back from rows as they went in, and the chain can be computed by anybody."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger.entries import CheckpointEntry, CommandEntry, DecisionEntry, Entry, PruneEntry
from proxy.ledger.rows import (
    COLUMNS,
    Beside,
    chain,
    entry_of,
    payload_digest,
    payload_of,
    row_of,
    rules_named,
    rules_of,
)
from proxy.ledger.schema import entries
from rules.decision import Change, Violation
from tests.proxy.ledger.samples import NOW_NS, boot, decision, outcome, refusal, ruleset

VIOLATION = Violation("small-refunds", "policy-denied", "too much", "body.amount", "6000", "5000")

ENTRIES: dict[str, Entry] = {
    "boot": boot(),
    "ruleset": ruleset(),
    "reload that failed": ruleset(problem="error: x\n --> a.yaml:1:1"),
    "decision that sends": decision(),
    "decision with nothing to say": decision(detail="", rules=(), facts={}, changes=(), tool="", fingerprint=""),
    "refusal": refusal(violations=(VIOLATION,), would=(VIOLATION, VIOLATION), count=7),
    "replay": decision(action="replay", status=200, executed="yes", replay_of="c_0", waited_ns=5),
    "throttled": decision(send_at_ns=NOW_NS + 1),
    "outcome": outcome(),
    "outcome without answer": outcome(outcome="unknown", status=0, error="reset", client_left=True, answer_bytes=0),
    "outcome of an upload": outcome(streamed_bytes=7, streamed_sha256="ab" * 32),
    "command": CommandEntry(
        NOW_NS, "shutdown", "ada", {"why": ["x", 1, None]}, (Change("g", "r", "k", "op", {"a": {}}),)
    ),
    "checkpoint": CheckpointEntry(NOW_NS, "a note", "a key"),
    "prune": PruneEntry(NOW_NS, 7, NOW_NS - 1, "ada"),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_an_entry_comes_back_equal(entry: Entry) -> None:
    assert entry_of(row_of(entry, 7, 7, bytes(32))) == entry


def test_a_row_has_the_columns_of_the_table() -> None:
    assert tuple(column.name for column in entries.columns) == COLUMNS
    for entry in ENTRIES.values():
        assert len(row_of(entry, 7, 7, bytes(32))) == len(COLUMNS)


DECISIONS = {name: entry for name, entry in ENTRIES.items() if isinstance(entry, DecisionEntry)}


@pytest.mark.parametrize("entry", DECISIONS.values(), ids=list(DECISIONS))
def test_a_decision_comes_back_equal_from_its_row_and_its_payload(entry: DecisionEntry) -> None:
    payload = payload_of(entry)
    row = row_of(entry, 7, 7, bytes(32), Beside(payload_digest(b"salt", payload)))
    assert entry_of(row, payload) == entry
    assert rules_named(row) == rules_of(entry) == rules_named(row_of(entry, 7, 7, bytes(32)))


def test_without_its_payload_a_decision_still_tells_who_called_what_and_how_it_was_decided() -> None:
    entry = refusal(violations=(VIOLATION,), would=(VIOLATION,))
    left = entry_of(row_of(entry, 7, 7, bytes(32), Beside("d")))
    given_up = {"detail": "", "violations": (), "would": (), "facts": {}}
    assert left == msgspec.structs.replace(entry, **given_up)
    assert "6000" not in str(row_of(entry, 7, 7, bytes(32), Beside("d")))


def test_every_rule_that_a_decision_speaks_of_is_named_without_its_payload() -> None:
    entry = refusal(rules=("a",), violations=(Violation("b", "c", "d"),), would=(Violation("e", "c", "d"),))
    assert rules_named(row_of(entry, 7, 7, bytes(32), Beside("d"))) == {"a", "b", "e"}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_the_hash_can_be_computed_with_any_json_and_sha256(entry: Entry) -> None:
    seq, *columns, prev, digest = row_of(entry, 258, None, b"p" * 32)
    canonical = json.dumps(columns, ensure_ascii=False, separators=(",", ":")).encode()
    assert seq == 258
    assert prev == b"p" * 32
    assert digest == hashlib.sha256(b"p" * 32 + b"\0\0\0\0\0\0\x01\x02" + canonical).digest()


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(), max_size=5))
def test_our_json_is_everybodys_json(columns: list[int | str | None]) -> None:
    """Also for control characters, quotes and every script: both write the same bytes."""
    canonical = json.dumps(columns, ensure_ascii=False, separators=(",", ":")).encode()
    assert chain(b"", 0, columns) == hashlib.sha256(bytes(8) + canonical).digest()


def test_the_order_of_facts_does_not_change_the_row() -> None:
    one = decision(facts={"a": 1, "b": {"c": 1, "d": 2}})
    other = decision(facts={"b": {"d": 2, "c": 1}, "a": 1})
    assert row_of(one, 1, 1, bytes(32)) == row_of(other, 1, 1, bytes(32))


def test_a_decision_is_found_by_every_rule_it_speaks_of() -> None:
    entry = refusal(
        rules=("a",),
        violations=(Violation("b", "c", "d"), Violation("", "no-allow", "d")),
        would=(Violation("e", "c", "d"),),
    )
    assert rules_of(entry) == {"a", "b", "e"}
