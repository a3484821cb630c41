"""The gate: between a decoded call and the permission to send it. Decide, record, wait; later, settle.

Deciding and recording happen in one step on the event loop, with no await between them: the ledger's order is the
order of deciding. Only a decision that sends waits for the disk. No mitmproxy here.

If any line of `admit` raises, the call is not admitted: its caller has set the refusal before calling.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec

from proxy.clock import Clock
from proxy.ledger.entries import CommandEntry, DecisionEntry, Entry, OutcomeEntry, RulesetEntry, StoredAnswer
from proxy.ledger.store import Ledger, LedgerError
from proxy.ledger.tally import Tally
from proxy.refusal import Reply, render
from proxy.replay import reply as replay_reply
from proxy.runs import Runs
from proxy.wire.request import WireError
from rules import decide
from rules.call import Call
from rules.decision import Answer, Change, Decision, Outcome, OutcomeKind, Plain
from rules.ruleset import RuleSet
from rules.state import State

TWIN_WAIT_NS = 10_000_000_000
"""How long a call waits for its twin that is on its way, before it is told that it is a duplicate in flight."""

log = logging.getLogger("borderpost")


class Admission(msgspec.Struct, frozen=True):
    """What the gate says of one call. It may be sent if and only if `reply` is None.

    `ruleset` is the one it was decided under; `at_ns` is when. `sent_ns` is when it was let out, 0 if it was not.
    """

    call_id: str
    call: Call
    decision: Decision
    ruleset: RuleSet
    at_ns: int
    sent_ns: int
    reply: Reply | None


class Asked(msgspec.Struct, frozen=True):
    """How the client asked, as far as it shapes a reply of ours."""

    method: str
    http_version: str


class Gate:
    """One per process: owns the state, and is the only one that appends decisions and outcomes to the ledger."""

    def __init__(self, ruleset: RuleSet, ledger: Ledger, clock: Clock, runs: Runs) -> None:
        self.ruleset = ruleset
        self.clock = clock
        self.runs = runs
        self.counts: dict[str, int] = {}
        self.unanswered = 0
        self._state = State()
        self._ledger = ledger
        self._tally = Tally()
        self._waiting: dict[str, asyncio.Event] = {}
        self._unrecorded: list[Admission] = []
        self.look: Callable[[], None] = lambda: None
        """Carries out what people have commanded; called before each decision."""

    def remember(self) -> None:
        """Fold the ledger's entries into the state: what held before a restart holds again.

        Calls that an earlier boot let out and never settled are recorded as `unknown`.
        """
        self._state, unsettled = fold(self._noted(entry) for _, entry in self._ledger.history())
        now_ns = self.clock.now_ns()
        abandoned: dict[str, list[Change]] = {}
        for change in decide.abandon(self._state, now_ns):
            abandoned.setdefault(str(change.data["call"]), []).append(change)
        for call_id, at_ns in unsettled.items():
            changes = tuple(abandoned.get(call_id, ()))
            self._ledger.append(
                OutcomeEntry(
                    at_ns=now_ns,
                    id=call_id,
                    outcome="unknown",
                    status=0,
                    duration_ns=now_ns - at_ns,
                    error="the proxy stopped before the answer came",
                    changes=changes,
                )
            )
            decide.apply(self._state, changes)

    def _noted(self, entry: Entry) -> Entry:
        self.clock.advance(entry.at_ns)
        if isinstance(entry, DecisionEntry):
            self.runs.recorded(entry.agent, entry.run, entry.at_ns)
        return entry

    async def recover(self, by: str) -> bool:
        """Record again, if the ledger has failed and can be written by now. Who runs the proxy is `by`.

        The state goes back to what is on the disk: what was decided since was refused. Calls that are on their way
        stay so, and outcomes that came meanwhile are recorded now. Not to be called again before it has returned.
        """
        entry = CommandEntry(self.clock.now_ns(), "recover", by, {"problem": self._ledger.failed})
        if not self._ledger.failed or not await asyncio.to_thread(self._ledger.mend, entry):
            return False
        self._state, unsettled = await asyncio.to_thread(fold, (entry for _, entry in self._ledger.history()))
        owed, lost = self._ledger.resume()
        for outcome, stored in owed:
            if unsettled.pop(outcome.id, None) is not None or outcome.id not in lost:
                decide.apply(self._state, outcome.changes)
                self._conclude(outcome, stored)
        for admission in self._unrecorded:  # those whose decision has reached the disk, though its commit failed
            if admission.call_id in unsettled:
                self.settle(admission, withdrawn("its decision seemed not to be recorded"))
        self._unrecorded.clear()
        return True

    def use(self, ruleset: RuleSet, files: tuple[str, ...]) -> None:
        """Put `ruleset` in force, recorded. Calls that are out keep the one they were decided under."""
        self._ledger.append(self._ruleset_entry(ruleset, files, ""))
        self.ruleset = ruleset

    def keep(self, problem: str, files: tuple[str, ...]) -> None:
        """A reload failed for `problem`: the rule set in force stays, and the ledger says why."""
        self._ledger.append(self._ruleset_entry(self.ruleset, files, problem))

    def _ruleset_entry(self, ruleset: RuleSet, files: tuple[str, ...], problem: str) -> RulesetEntry:
        return RulesetEntry(
            at_ns=self.clock.now_ns(),
            digest=ruleset.digest,
            files=files,
            rules=len(ruleset.rules),
            tools=len(ruleset.tools),
            mode=ruleset.mode,
            problem=problem,
        )

    async def admit(self, call: Call, call_id: str, asked: Asked, gone: asyncio.Event) -> Admission:
        """Decide `call`, record the decision, and wait until it may be sent. `gone` is set when its client leaves.

        Raises whatever goes wrong; the caller has refused already. A ledger that cannot be written is a refusal
        (`store-error`), not an exception.
        """
        arrived_ns = self.clock.now_ns()
        decision, ruleset, now_ns = await self._decide(call, call_id, arrived_ns, gone)
        stored: StoredAnswer | None = None
        if decision.action == "replay":
            try:
                stored = self._ledger.answer(decision.replay_of)
            except LedgerError as error:
                log.error("a kept answer cannot be read: %s", error)
            if stored is None:
                decision = msgspec.structs.replace(
                    decision,
                    action="deny",
                    code="duplicate-not-replayable",
                    detail="this was already done, and its answer was not kept. Do not repeat it; look up the result.",
                )
        if stored is not None:
            reply: Reply | None = replay_reply(
                stored, accept_encoding=call.header("accept-encoding") or "", method=asked.method
            )
        elif decision.action == "allow":
            reply = None
        else:
            reply = self._render(decision, asked, call, call_id, now_ns)
        admission = Admission(call_id, call, decision, ruleset, now_ns, 0, reply)
        try:
            seq = self._record(_entry(admission, now_ns - arrived_ns))
            decide.apply(self._state, decision.changes)
            if reply is not None:
                self._count(decision)
                return admission
            self._waiting[call_id] = asyncio.Event()
            await self._ledger.durable(seq)
            self._count(decision)
            if decision.send_at_ns > self.clock.now_ns():
                return await self._take_turn(admission, asked, gone)
            return msgspec.structs.replace(admission, sent_ns=self.clock.now_ns())
        except LedgerError as error:
            log.error("refused, because it cannot be recorded: %s", error)
            if self._waiting.get(call_id) is not None:
                self._unrecorded.append(admission)
            self._wake(call_id)
            decision = store_error(decision)
            self._count(decision)
            reply = self._render(decision, asked, call, call_id, now_ns)
            return msgspec.structs.replace(admission, decision=decision, reply=reply)
        except BaseException:
            self.settle(admission, withdrawn("an error of ours"))
            raise

    async def _decide(
        self, call: Call, call_id: str, arrived_ns: int, gone: asyncio.Event
    ) -> tuple[Decision, RuleSet, int]:
        """The decision, the rule set it was made under, and when: after waiting for twins that are on their way."""
        while True:
            self.look()
            now_ns = self.clock.now_ns()
            ruleset = self.ruleset
            decision = decide.decide(ruleset, self._state, call, call_id, now_ns)
            left_ns = arrived_ns + TWIN_WAIT_NS - now_ns
            if decision.twin is None or left_ns <= 0 or gone.is_set():
                return decision, ruleset, now_ns
            settled = self._waiting.get(decision.twin.call)
            if settled is None:
                return decision, ruleset, now_ns
            await first_of(settled, gone, left_ns / 1e9)

    async def _take_turn(self, admission: Admission, asked: Asked, gone: asyncio.Event) -> Admission:
        """Wait for the place that a throttle reserved; then check halt, deny and allow again as they are then."""
        while not gone.is_set():
            left_ns = admission.decision.send_at_ns - self.clock.now_ns()
            if left_ns <= 0:
                break
            await first_of(gone, gone, left_ns / 1e9)
        self.look()
        now_ns = self.clock.now_ns()
        refusal = decide.recheck(self.ruleset, self._state, admission.call, now_ns)
        if refusal is None and not gone.is_set():
            return msgspec.structs.replace(admission, sent_ns=now_ns)
        reason = (
            "its client left while it waited its turn"
            if refusal is None
            else f"{refusal.code} came to apply while it waited"
        )
        self.settle(admission, withdrawn(reason), client_left=gone.is_set())
        refusal = refusal or withdrawn_refusal(admission.decision)
        return msgspec.structs.replace(
            admission, decision=refusal, reply=self._render(refusal, asked, admission.call, admission.call_id, now_ns)
        )

    def settle(
        self,
        admission: Admission,
        answer: Answer,
        *,
        client_left: bool = False,
        answer_sha256: str = "",
        stored: StoredAnswer | None = None,
    ) -> None:
        """Record what became of a call that was admitted, and wake those who wait for it. Called exactly once.

        If it cannot be told what became of it, because of an error of ours, that is `unknown`, and so are its claims.
        """
        now_ns = self.clock.now_ns()
        self.unanswered += not answer.complete and not answer.withdrawn
        if stored is not None:
            stored = msgspec.structs.replace(stored, until_ns=decide.keep_until_ns(admission.decision))
        try:
            try:
                outcome = decide.settle(
                    admission.ruleset,
                    self._state,
                    admission.call,
                    admission.decision,
                    admission.call_id,
                    answer,
                    now_ns,
                )
            except Exception:
                log.exception("an outcome is unknown, because of an error of ours")
                claims = decide.abandon(self._state, now_ns)
                outcome = Outcome("unknown", tuple(one for one in claims if one.data["call"] == admission.call_id))
            decide.apply(self._state, outcome.changes)
            self._conclude(
                OutcomeEntry(
                    at_ns=now_ns,
                    id=admission.call_id,
                    outcome=outcome.kind,
                    status=answer.status,
                    duration_ns=now_ns - (admission.sent_ns or admission.at_ns),
                    error=answer.error,
                    answer_sha256=answer_sha256,
                    answer_bytes=answer.size_bytes,
                    client_left=client_left,
                    changes=outcome.changes,
                ),
                stored if outcome.kind == "done" else None,
            )
            for call_id in outcome.told:
                self._tell(call_id, outcome.kind, f"told by the answer to {admission.call_id}")
        finally:
            self._wake(admission.call_id)

    def _conclude(self, outcome: OutcomeEntry, stored: StoredAnswer | None = None) -> None:
        """Record `outcome`. One that cannot be recorded now is kept by the ledger until `recover`."""
        try:
            self._ledger.append(outcome, stored)
        except LedgerError as error:
            log.error("an outcome cannot be recorded for now: %s", error)

    def resolve(self, call_id: str, executed: bool, note: str, by: str) -> bool:
        """OS user `by` has found out whether `call_id`, whose outcome is unknown, took effect. Recorded.

        False, and nothing recorded, when no claim of that call is unknown.
        """
        now_ns = self.clock.now_ns()
        changes = decide.resolve(self._state, call_id, executed, now_ns)
        if not changes:
            return False
        data: dict[str, Plain] = {"call": call_id, "executed": executed, "note": note}
        self._ledger.append(CommandEntry(now_ns, "resolve", by, data, changes))
        for told in decide.told(self._state, changes):
            self._tell(told, "done" if executed else "not_executed", f"resolved by {by}: {note}")
        decide.apply(self._state, changes)
        return True

    def _tell(self, call_id: str, outcome: OutcomeKind, how: str) -> None:
        """Record what has come out about an earlier call, whose outcome was unknown."""
        now_ns = self.clock.now_ns()
        self._conclude(OutcomeEntry(now_ns, call_id, outcome, status=0, duration_ns=0, error=how))

    def _wake(self, call_id: str) -> None:
        """Tell the twins that wait for `call_id` that it has come to its end."""
        settled = self._waiting.pop(call_id, None)
        if settled is not None:
            settled.set()

    def refuse_unread(self, call: Call, call_id: str, error: WireError, asked: Asked) -> Reply:
        """Refuse and record a request that never became a call worth deciding: ambiguous, oversized, not identified."""
        now_ns = self.clock.now_ns()
        decision = Decision(action="deny", code=error.code, detail=error.detail, rules=(), tool="")
        reply = self._render(decision, asked, call, call_id, now_ns)
        self._count(decision)
        try:
            self._record(_entry(Admission(call_id, call, decision, self.ruleset, now_ns, 0, reply), 0))
        except LedgerError as failure:
            log.error("a refusal could not be recorded: %s", failure)
        return reply

    def _record(self, entry: DecisionEntry) -> int:
        """Append `entry` and give its sequence number; the hundred-and-first equal refusal of a minute is counted."""
        seq = 0
        for due in self._tally.offer(entry):
            seq = self._ledger.append(due)
        return seq

    def flush(self, *, everything: bool = False) -> None:
        """Record the refusals that were only counted so far: those of minutes that are over, or all of them."""
        for due in self._tally.flush(self.clock.now_ns(), everything=everything):
            self._ledger.append(due)

    def _count(self, decision: Decision) -> None:
        key = decision.action if decision.action in ("allow", "replay", "throttle") else "deny"
        self.counts[key] = self.counts.get(key, 0) + 1

    def _render(self, decision: Decision, asked: Asked, call: Call, call_id: str, now_ns: int) -> Reply:
        tool = self.ruleset.tools.get(decision.tool)
        return render(
            decision,
            method=asked.method,
            http_version=asked.http_version,
            call_id=call_id,
            now_ns=now_ns,
            call=call,
            dialect=tool.refusal if tool is not None else "",
        )


def fold(entries: Iterable[Entry]) -> tuple[State, dict[str, int]]:
    """The state after `entries`, and the calls that were let out and have no outcome, with when that was (ns)."""
    state = State()
    unsettled: dict[str, int] = {}
    for entry in entries:
        if isinstance(entry, DecisionEntry):
            decide.apply(state, entry.changes)
            if entry.action == "allow":
                unsettled[entry.id] = entry.at_ns
        elif isinstance(entry, OutcomeEntry):
            decide.apply(state, entry.changes)
            unsettled.pop(entry.id, None)
        elif isinstance(entry, CommandEntry):
            decide.apply(state, entry.changes)
    return state, unsettled


def _entry(admission: Admission, waited_ns: int) -> DecisionEntry:
    """What the ledger keeps of a decision; it redacts it."""
    call, decision, reply = admission.call, admission.decision, admission.reply
    return DecisionEntry(
        at_ns=admission.at_ns,
        id=admission.call_id,
        run=call.run,
        agent=call.agent,
        tool=decision.tool,
        method=call.method,
        scheme=call.scheme,
        host=call.host,
        port=call.port,
        path=call.path,
        action=decision.action,
        code=decision.code,
        detail=decision.detail,
        rules=decision.rules,
        executed=decision.executed,
        status=reply.status if reply is not None else 0,
        ruleset=admission.ruleset.digest,
        violations=decision.violations,
        would=decision.would,
        replay_of=decision.replay_of,
        send_at_ns=decision.send_at_ns,
        waited_ns=waited_ns,
        facts=decision.facts,
        changes=decision.changes,
    )


def withdrawn(reason: str) -> Answer:
    """The end of a call that was let out and then held back by ourselves, as `reason` says."""
    return Answer(status=0, complete=False, sent=False, withdrawn=True, error=f"held back: {reason}")


def store_error(decision: Decision) -> Decision:
    """The refusal of a call that was decided but could not be recorded."""
    return Decision(
        action="deny",
        code="store-error",
        detail="This call could not be recorded, so it was not sent. Nothing was executed. Tell the operator.",
        rules=decision.rules,
        tool=decision.tool,
    )


def withdrawn_refusal(decision: Decision) -> Decision:
    """What a client that left while its call waited would be told."""
    return Decision(
        action="throttle",
        code="rate-limited",
        detail="This call was waiting for its turn when its client left. Nothing was executed.",
        rules=decision.rules,
        tool=decision.tool,
    )


async def first_of(one: asyncio.Event, other: asyncio.Event, timeout_s: float) -> None:
    """Return when one of the two events is set, or after `timeout_s`."""
    waits = {asyncio.ensure_future(event.wait()) for event in {one, other}}
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
