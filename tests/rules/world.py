"""A small world for tests of deciding: rule sets from YAML, calls, and a clock that goes where it is told."""

from __future__ import annotations

import json
from decimal import Decimal
from hashlib import sha256
from typing import Any, cast

import msgspec

from rules import kept
from rules.call import NO_BODY, Body, Call, Json
from rules.decide import apply, decide, settle
from rules.decision import Answer, Change, Decision, Outcome
from rules.load import Source, load
from rules.ruleset import RuleSet
from rules.state import State

S = 1_000_000_000
START = 1_767_614_400 * S
"""2026-01-05 12:00 UTC, a Monday."""


def rules(text: str) -> RuleSet:
    """The rule set that the YAML `text`, without `version`, says."""
    return load([Source("test.yaml", f"version: 1\n{text}")], {}).ruleset


def json_body(text: str, media_type: str = "application/json") -> Body:
    """A body as the wire decodes it: exact numbers."""
    value = cast(Json, json.loads(text, parse_float=Decimal))
    return Body("json", media_type, json=value, sha256=sha256(text.encode()).digest(), size_bytes=len(text))


def form_body(*fields: tuple[str, str]) -> Body:
    return Body("form", "application/x-www-form-urlencoded", fields=fields, size_bytes=1)


def call(method: str = "POST", path: str = "/orders", body: Body | str | None = None, **given: Any) -> Call:
    """A call to https://api.example.com; `body` may be JSON text. `given` replaces any other field."""
    if isinstance(body, str):
        body = json_body(body)
    made = Call(
        agent="ann",
        run="run-1",
        method=method,
        scheme="https",
        host="api.example.com",
        port=443,
        path=path,
        segments=tuple(path.split("/")[1:]),
        body=body or NO_BODY,
        credential="c0ffee",
    )
    return msgspec.structs.replace(made, **given)


OK = Answer(200, complete=True, sent=True, stored=True)
LOST = Answer(0, complete=False, sent=True, error="connection reset")
WITHDRAWN = Answer(0, complete=False, sent=False, withdrawn=True)


def answered(status: int, *headers: tuple[str, str]) -> Answer:
    return Answer(status, complete=True, sent=True, stored=True, headers=headers)


def of_guards(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """`changes` without what is remembered of every call."""
    return tuple(change for change in changes if change.guard != "history")


class World:
    """A rule set with a state: calls go in, decisions come out, and every change is kept as the ledger would."""

    def __init__(self, ruleset: RuleSet | str) -> None:
        self.ruleset = rules(ruleset) if isinstance(ruleset, str) else ruleset
        self.state = State()
        self.ledger: list[Change] = []
        self.at_ns = START
        self.out: dict[str, tuple[Call, Decision]] = {}
        self.calls = 0

    def record(self, changes: tuple[Change, ...]) -> None:
        self.ledger += changes
        apply(self.state, changes)

    def ask(self, asked: Call, at: float | None = None) -> Decision:
        """Decide `asked`, `at` seconds after the start, and record what it changes. Let out, it stays on its way."""
        if at is not None:
            self.at_ns = START + int(at * S)
        self.calls += 1
        call_id = f"call-{self.calls}"
        decision = decide(self.ruleset, self.state, asked, call_id, self.at_ns)
        self.record(decision.changes)
        if decision.action == "allow":
            self.out[call_id] = (asked, decision)
        return decision

    def end(self, answer: Answer = OK, call_id: str = "") -> Outcome:
        """The call `call_id`, else the one let out last, ends with `answer`."""
        call_id = call_id or list(self.out)[-1]
        asked, decision = self.out.pop(call_id)
        outcome = settle(self.ruleset, self.state, asked, decision, call_id, answer, self.at_ns)
        self.record(outcome.changes)
        return outcome

    def do(self, asked: Call, answer: Answer = OK, at: float | None = None) -> str:
        """Ask, and when it is let out, end it at once. What was decided: `allow`, `replay`, or the code."""
        decision = self.ask(asked, at)
        if decision.action == "allow":
            self.end(answer)
        return decision.code or decision.action

    def refold(self) -> State:
        """The state as a restart finds it: every change written as JSON, read back and folded.

        Half of them are folded before: the state after these was written down, too, and read back.
        """
        changes = [Change(**each) for each in msgspec.json.decode(msgspec.json.encode(self.ledger))]
        before = State()
        apply(before, changes[: len(changes) // 2])
        state = kept.read(kept.write(before))
        assert state == before
        apply(state, changes[len(changes) // 2 :])
        return state
