"""Claims at the gate, with everything that can fail failing: a disk that is full, guards that raise, kill -9.

A small model says of every act what is known of it, and the upstream counts its effects: that is the truth. Whatever
failed in between, an act is done once, and `unknown` is said exactly where it is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.admission import Admission, Asked, withdrawn
from proxy.clock import Clock
from proxy.gate import Gate
from proxy.ledger.entries import LedgerError
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from proxy.runs import Runs
from rules.decision import Answer
from tests.proxy.ledger.samples import answer as stored_answer
from tests.rules.world import LOST, OK, START, answered, call, rules

RULESET = rules("""
tools:
  keyed: {match: "POST https://api.example.com/keyed/{n}", upstream_key: Idempotency-Key}
rules:
  - {id: once, match: "POST https://api.example.com/**", allow: true, dedupe: 1h}
""")
ACTS = ["/a", "/b", "/keyed/a", "/keyed/b"]
ASKED = Asked("POST", "HTTP/1.1")

ENDS: dict[str, tuple[Answer, bool]] = {
    "done": (OK, True),
    "lost after it acted": (LOST, True),
    "lost before it acted": (LOST, False),
    "failed after it acted": (answered(500), True),
    "refused": (answered(422), False),
    "held back": (withdrawn("a test"), False),
}
"""How an exchange may end, and whether the upstream acted."""


class Act:
    """What is known of one act: in memory, and on the disk. `keys` are those that the upstream was asked under."""

    def __init__(self) -> None:
        self.known = self.on_disk = "free"
        self.keys: set[str] = set()
        self.effects = 0
        self.attempts: list[str] = []

    def becomes(self, known: str, durable: bool) -> None:
        self.known = known
        if durable:
            self.on_disk = known


def gone() -> asyncio.Event:
    """The client does not wait for a twin: it is told at once that there is one."""
    event = asyncio.Event()
    event.set()
    return event


def disk_full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


class ClaimsAtTheGate(RuleBasedStateMachine):
    """`out` are the calls that were let out and have not come back."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.acts = {path: Act() for path in ACTS}
        self.out: dict[str, Admission] = {}
        self.full = False
        self.calls = 0
        self.open()

    def open(self) -> None:
        path = Path(self.directory.name) / "ledger.db"
        self.ledger = Ledger.open(path, Vault(bytes(32), bytes(32)), owner="test")
        self.gate = Gate(RULESET, self.ledger, Clock(lambda: START), Runs("r", lambda now_ns: "r"))
        self.gate.remember()
        self.full = False

    def run(self, what: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(what, 10))

    def settled_on_disk(self) -> bool:
        """Whether everything appended so far is on the disk."""
        try:
            self.run(self.ledger.idle())
        except LedgerError:
            return False
        return True

    def ask(self, path: str) -> Admission:
        self.calls += 1
        asked = call(path=path, segments=tuple(path.split("/")[1:]))
        admission: Admission = self.run(self.gate.admit(asked, f"c_{self.calls}", ASKED, gone()))
        return admission

    @rule(path=st.sampled_from(ACTS))
    def an_agent_asks(self, path: str) -> None:
        act = self.acts[path]
        admission = self.ask(path)
        code = "allow" if admission.reply is None else admission.decision.code
        keyed = path.startswith("/keyed")
        expected = {
            "free": "allow",
            "out": "duplicate-in-flight",
            "retrying": "duplicate-in-flight",
            "resolved": "duplicate-not-replayable",
            "done": "replay",
            "unknown": "allow" if keyed else "outcome-unknown",
        }[act.known]
        if self.full:
            assert code in ("store-error", expected) and code != "allow", "what cannot be recorded does not leave"
            assert self.acts[path].known == act.known
            return
        assert code == expected
        if code == "allow":
            self.out[path] = admission
            act.attempts.append(admission.call_id)
            act.becomes("retrying" if act.known == "unknown" else "out", durable=True)
            act.keys |= {value for _, _, value in admission.decision.send}
            if keyed:
                assert len(act.keys) == 1, "one act, one key, as long as it is in doubt"

    @precondition(lambda self: self.out)
    @rule(data=st.data(), end=st.sampled_from(sorted(ENDS)), fault=st.booleans())
    def an_exchange_ends(self, data: st.DataObject, end: str, fault: bool) -> None:
        path = data.draw(st.sampled_from(sorted(self.out)))
        answer, acted = ENDS[end]
        self.ends(path, answer, acted, fault)

    def ends(self, path: str, answer: Answer, acted: bool, fault: bool) -> None:
        act, admission = self.acts[path], self.out.pop(path)
        if acted:
            self.upstream_acts(path)
        stored = stored_answer(admission.call_id) if answer.status == 200 else None
        if fault:
            with patch("rules.decide.settle", side_effect=MemoryError("injected")):
                self.gate.settle(admission, answer, stored=stored)
            known = "unknown"
        else:
            self.gate.settle(admission, answer, stored=stored)
            known = {200: "done", 422: "free"}.get(answer.status, "free" if answer.withdrawn else "unknown")
            if act.known == "retrying" and known == "free":
                known = "unknown"  # that a retry was refused says nothing about the first attempt
                act.attempts.pop()
        act.becomes(known, durable=self.settled_on_disk())
        if act.known == "free":
            act.keys.clear()

    def upstream_acts(self, path: str) -> None:
        """A keyed API acts once for a key, others each time that they are asked."""
        act = self.acts[path]
        if not path.startswith("/keyed") or not act.effects:
            act.effects += 1

    @rule(path=st.sampled_from(ACTS))
    def deciding_fails(self, path: str) -> None:
        with patch("rules.decide.decide", side_effect=MemoryError("injected")), pytest.raises(MemoryError):
            self.ask(path)

    @rule()
    def the_disk_is_full(self) -> None:
        self.full = True
        self.ledger._writing.__dict__["write"] = disk_full

    @rule()
    def the_disk_has_room_again(self) -> None:
        self.settled_on_disk()
        self.ledger._writing.__dict__.pop("write", None)
        self.full = False
        if self.ledger.failed:
            assert self.run(self.gate.recover("test"))
            assert self.settled_on_disk()
        for act in self.acts.values():
            act.on_disk = act.known

    @rule(acted=st.sets(st.sampled_from(ACTS)))
    def it_is_killed_and_started_again(self, acted: set[str]) -> None:
        """What was out may have had its effect, or not; what was not on the disk is forgotten."""
        self.ledger._writing.__dict__["write"] = disk_full
        for path in self.out:
            if path in acted:
                self.upstream_acts(path)
        self.out.clear()
        with contextlib.suppress(LedgerError):
            self.ledger.close()
        self.open()
        assert self.settled_on_disk()
        for act in self.acts.values():
            act.becomes("unknown" if act.on_disk in ("out", "retrying") else act.on_disk, durable=True)

    @precondition(lambda self: not self.full and any(act.known == "unknown" for act in self.acts.values()))
    @rule(data=st.data())
    def a_person_finds_out(self, data: st.DataObject) -> None:
        """They look at the upstream, and say what is true."""
        path = data.draw(st.sampled_from(sorted(path for path, act in self.acts.items() if act.known == "unknown")))
        act = self.acts[path]
        assert self.gate.resolve(act.attempts[-1], bool(act.effects), "looked", "test")
        act.becomes("resolved" if act.effects else "free", durable=self.settled_on_disk())
        if act.known == "free":
            act.keys.clear()

    @invariant()
    def every_act_is_done_once(self) -> None:
        assert all(act.effects <= 1 for act in getattr(self, "acts", {}).values())

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger._writing.__dict__.pop("write", None)
            with contextlib.suppress(LedgerError):
                self.ledger.close()
            self.loop.close()
            self.directory.cleanup()


TestClaimsAtTheGate = ClaimsAtTheGate.TestCase
TestClaimsAtTheGate.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
