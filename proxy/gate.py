"""The gate: between a decoded call and the permission to send it. Decide, record, wait; later, settle.

Deciding and recording happen in one step on the event loop, with no await between them: the ledger's order is the
order of deciding. Only a decision that sends waits for the disk. A call that has to wait for something before it can be
decided (its twin, a slot, a person) sits in the waiting room and is decided again when that has happened, when the
rules change, when its time is over, or when its client leaves. No mitmproxy here.

If any line of `admit` raises, the call is not admitted: its caller has set the refusal before calling.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec

from proxy.admission import (
    Admission,
    Asked,
    Attempt,
    decision_entry,
    given_again,
    run_has_ended,
    store_error,
    withdrawn,
    withdrawn_refusal,
)
from proxy.clock import Clock
from proxy.ledger.entries import CommandEntry, DecisionEntry, OutcomeEntry, RulesetEntry, StoredAnswer
from proxy.ledger.snapshot import Snapshots
from proxy.ledger.store import Ledger, LedgerError
from proxy.ledger.tally import Tally
from proxy.refusal import Reply, readable, render
from proxy.replay import reply as replay_reply
from proxy.runs import LEAVE, JoinedRun, Runs
from proxy.unrecorded import Unrecorded
from proxy.waiting import Waiter, WaitingRoom, first_of
from proxy.wire.request import WireError
from rules import decide
from rules.call import Call
from rules.decision import Answer, Change, Decision, Outcome, OutcomeKind, Plain
from rules.guards.spending import Budgets, Fullness
from rules.halts import Halt, Halts
from rules.needs import needs
from rules.ruleset import RuleSet
from rules.state import SetBack, State

SHOWN_REASON = b"The API reported a failure"
"""The reason phrase of a failed answer that is shown as an error."""

log = logging.getLogger("borderpost")


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
        self.snapshots = Snapshots(ledger)
        self._tally = Tally()
        self._room = WaitingRoom()
        self._lost: list[Admission] = []
        self.unrecorded = Unrecorded()
        self._holds = True
        self.look: Callable[[], None] = lambda: None
        """Carries out what people have commanded; called before each decision."""
        self.ledger_option = ""
        """What a person has to add to a command to reach this ledger: ` --ledger FILE`, or nothing."""
        self.changed: Callable[[], None] = lambda: None
        """Told when something has changed that may concern any call that is out."""

    def remember(self) -> None:
        """Take up what the ledger tells: what held before a restart holds again.

        Calls that an earlier boot let out and never settled are recorded as `unknown`.
        """
        memory = self.snapshots.recall()
        self._state = memory.state
        self.clock.advance(memory.last_ns)
        for agent, (run, at_ns) in memory.runs.items():
            self.runs.recorded(agent, run, at_ns)
        self.runs.joined, self.runs.left = memory.joined, memory.left
        now_ns = self.clock.now_ns()
        abandoned: dict[str, list[Change]] = {}
        for change in decide.abandon(self._state, now_ns):
            abandoned.setdefault(str(change.data["call"]), []).append(change)
        for call_id, at_ns in memory.unsettled.items():
            changes = tuple(abandoned.get(call_id, ()))
            self._ledger.append(
                OutcomeEntry(
                    at_ns=now_ns,
                    id=call_id,
                    outcome="unknown",
                    status=0,
                    duration_ns=max(now_ns - at_ns, 0),  # less, if the clock was set back meanwhile
                    error="the proxy stopped before the answer came",
                    changes=changes,
                )
            )
            decide.apply(self._state, changes)

    async def recover(self, by: str) -> bool:
        """Record again, if the ledger has failed and can be written by now. Who runs the proxy is `by`.

        The state goes back to what is on the disk: what was decided since was refused. Calls that are on their way
        stay so, and outcomes that came meanwhile are recorded now. Not to be called again before it has returned.
        """
        entry = CommandEntry(self.clock.now_ns(), "recover", by, {"problem": self._ledger.failed})
        if not self._ledger.failed or not await asyncio.to_thread(self._ledger.mend, entry):
            return False
        self.unrecorded.durable(self._ledger.durable_seq - 1)  # the last is `entry`, in place of what was lost
        memory = await asyncio.to_thread(self.snapshots.recall)
        self._state, unsettled = memory.state, memory.unsettled
        self.runs.joined, self.runs.left = memory.joined, memory.left
        self.clock.advance(memory.last_ns)  # it may have been set back, and that not recorded
        owed, lost = self._ledger.resume()
        for outcome, stored in owed:
            if unsettled.pop(outcome.id, None) is not None or outcome.id not in lost:
                decide.apply(self._state, outcome.changes)
                self._conclude(outcome, stored)
        for admission in self._lost:  # those whose decision has reached the disk, though its commit failed
            if admission.call_id in unsettled:
                self.settle(admission, withdrawn("its decision seemed not to be recorded"))
        self._lost.clear()
        self.unrecorded.lost()
        self.tell_unrecorded(by)
        self._room.call_all()
        return True

    def use(self, ruleset: RuleSet, files: tuple[str, ...]) -> None:
        """Put `ruleset` in force, recorded. Calls that are out keep the one they were decided under."""
        self._ledger.append(self._ruleset_entry(ruleset, files, ""))
        self._ledger.bound(ruleset.ledger)
        self.ruleset = ruleset
        self._call_all()

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
            max_bytes=ruleset.ledger.max_bytes,
            keep_ns=ruleset.ledger.keep_ns,
        )

    async def admit(self, call: Call, call_id: str, asked: Asked, gone: asyncio.Event) -> Admission:
        """Decide `call`, record the decision, and wait until it may be sent. `gone` is set when its client leaves.

        Raises whatever goes wrong; the caller has refused already. A ledger that cannot be written is a refusal
        (`store-error`), not an exception.
        """
        attempt = Attempt(call, call_id, asked, gone, self.clock)
        attempt.waiter.ask = lambda: self._try_again(attempt)
        admission = await self._decided(attempt)
        if admission.reply is not None:
            return admission
        try:
            await self._ledger.durable(attempt.seq)
            self._count(admission.decision)
            if self._turn_ns(admission) > self.clock.now_ns():
                return await self._take_turn(admission, asked, gone)
            return msgspec.structs.replace(admission, sent_ns=self.clock.now_ns())
        except LedgerError as error:
            if self._ledger.failed:
                self._lost.append(admission)
            else:  # it is on record
                self.settle(admission, withdrawn("the ledger could not be read"))
            self._room.call_all()
            return self._unrecordable(admission, asked, error)
        except BaseException:
            self.settle(admission, withdrawn("an error of ours"))
            raise

    async def _decided(self, attempt: Attempt) -> Admission:
        """What is decided for good, after whatever the call has to wait for."""
        try:
            self._try(attempt)
            while attempt.admission is None and attempt.error is None:
                attempt.waiter.moved.clear()
                now_ns = attempt.now_ns()
                left_ns = attempt.until_ns - now_ns
                if left_ns > 0 and not attempt.gone.is_set():
                    await first_of(attempt.waiter.moved, attempt.gone, left_ns / 1e9)
                if not attempt.waiter.moved.is_set():  # its time is over, or its client has left
                    self._try(attempt)
        except BaseException:
            if attempt.admission is not None and attempt.admission.reply is None:  # let out as we were cancelled
                self.settle(attempt.admission, withdrawn("an error of ours"))
            raise
        finally:
            self._room.leave(attempt.waiter)
        if attempt.error is not None:
            raise attempt.error
        assert attempt.admission is not None
        return attempt.admission

    def _try_again(self, attempt: Attempt) -> None:
        """Decide a call that waits, in the step in which what it waits for has happened. Its own task takes it up."""
        try:
            self._try(attempt)
        except Exception as error:  # noqa: BLE001  it is raised where the call is admitted, and refuses it there
            attempt.error = error
            self._room.leave(attempt.waiter)

    def _try(self, attempt: Attempt) -> None:
        """Decide the call as things are, and record it: for good, or until what it waits for has happened."""
        self.look()
        if attempt.admission is not None or attempt.error is not None:  # by what was commanded just now
            return
        now_ns = attempt.now_ns()
        ruleset = self.ruleset
        if self.runs.has_left(attempt.call.run):
            decision = run_has_ended()
        else:
            decision = decide.decide(ruleset, self._state, attempt.call, attempt.call_id, now_ns)
        if decision.wait is not None and attempt.gone.is_set():  # it asks for nothing, and leaves what it waited for
            alone = [entry for entry in attempt.waiter.on if self._room.crowd(entry) == 1]
            left = decide.deserted(self._state, alone, now_ns)
            decision = msgspec.structs.replace(decision, changes=left)
        if self._may_wait(attempt, decision, now_ns):
            self._begin_to_wait(attempt, decision, ruleset, now_ns)
            return
        self._room.leave(attempt.waiter)
        attempt.admission = self._record_for_good(attempt, decision, ruleset, now_ns)

    def _may_wait(self, attempt: Attempt, decision: Decision, now_ns: int) -> bool:
        """Whether the call waits (on) for what `decision` says. While nothing can be recorded, nobody waits."""
        wait = decision.wait
        if wait is None or attempt.gone.is_set() or self._ledger.failed or not self._holds:
            return False
        new = [entry for entry in wait.on if entry not in attempt.waiter.on]
        if wait.crowd and any(self._room.crowd(entry) >= wait.crowd for entry in new):
            return False
        attempt.until_ns = attempt.began.setdefault(decision.code, now_ns) + wait.at_most_ns
        return now_ns < attempt.until_ns

    def _begin_to_wait(self, attempt: Attempt, decision: Decision, ruleset: RuleSet, now_ns: int) -> None:
        """Record what follows from beginning to wait, if anything does, and sit down."""
        assert decision.wait is not None
        if decision.changes:
            begun = Admission(attempt.call_id, attempt.call, decision, ruleset, now_ns, 0, None)
            try:
                self._record(decision_entry(begun, now_ns - attempt.arrived_ns, count=0))
            except LedgerError as error:
                attempt.admission = self._unrecordable(begun, attempt.asked, error)
                return
            decide.apply(self._state, decision.changes)
            self._tell_people(attempt, decision)
            self._call_for(decision.changes)
        self._room.sit(attempt.waiter, decision.wait.on)

    def _record_for_good(self, attempt: Attempt, decision: Decision, ruleset: RuleSet, now_ns: int) -> Admission:
        """Record the decision that stands. If it sends, the call may go when that is durable."""
        call_id, asked = attempt.call_id, attempt.asked
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
                    changes=(),
                )
            else:
                given = given_again(stored, needs(ruleset, attempt.call).answer)
                decision = decide.replayed(ruleset, self._state, attempt.call, decision, call_id, given, now_ns)
        if stored is not None:
            reply: Reply | None = replay_reply(stored, attempt.call)
        elif decision.action == "allow":
            reply = None
        else:
            reply = self._render(decision, asked, attempt.call, call_id, now_ns)
        admission = Admission(call_id, attempt.call, decision, ruleset, now_ns, 0, reply, self.clock.times_set_back)
        entry = decision_entry(admission, now_ns - attempt.arrived_ns)
        try:
            attempt.seq = self._record(entry)
        except LedgerError as error:
            if not decision.unrecorded:
                return self._unrecordable(admission, asked, error)
            self._let_out_unrecorded(admission, error)
            return msgspec.structs.replace(admission, unrecorded=True)
        try:
            decide.apply(self._state, decision.changes)
            if reply is not None:
                self._count(decision)
                self._tell_people(attempt, decision)
            for notice in decision.notices:
                log.warning("%s", readable(notice, 300))
            self._call_for(decision.changes)
        except BaseException:
            if reply is None:
                self.settle(admission, withdrawn("an error of ours"))
            raise
        return admission

    def _tell_people(self, attempt: Attempt, decision: Decision) -> None:
        """Say on the terminal that a call waits for a person, if it is the first to ask."""
        if decision.action == "hold" and decision.changes and not attempt.gone.is_set():
            call, option = attempt.call, self.ledger_option
            where = f"{call.host}{self._shown(call.path, decision.facts)}"
            what = readable(f"{call.agent or 'an agent'} asks for {call.method} {where}", 300)
            log.warning("a call waits for you: %s · borderpost approvals show %s%s", what, decision.ticket, option)

    def _shown(self, path: str, facts: dict[str, Plain]) -> str:
        """A path and what tells calls to it apart, with secrets as the ledger keeps them."""
        redactor = self._ledger.redactor
        named = ("query.", "operation.", "message")
        told = redactor.facts({name: value for name, value in facts.items() if name.startswith(named)})
        query = "&".join(f"{name[6:]}={value}" for name, value in told.items() if name.startswith("query."))
        asked = ", ".join(str(value) for name, value in told.items() if not name.startswith("query."))
        return f"{redactor.path(path)}{f'?{query}' if query else ''}{f' ({asked})' if asked else ''}"

    def _let_out_unrecorded(self, admission: Admission, error: LedgerError) -> None:
        """A rule says that this call, which only reads, may go out though it cannot be recorded: count it."""
        if not self.unrecorded.owed:
            log.error("calls that only read are let out without a record, as a rule says: %s", error)
        self.unrecorded.add(admission.call, admission.decision, admission.at_ns)
        decide.apply(self._state, admission.decision.changes)

    def tell_unrecorded(self, by: str) -> None:
        """Put on record how many calls were let out without one, if that is possible now. The proxy is run by `by`.

        While it is not, say so.
        """
        if not self._ledger.failed:
            self.unrecorded.durable(self._ledger.durable_seq)
        owed = self.unrecorded.owed
        if not owed:
            return
        if self._ledger.failed or self._ledger.room.full:
            log.error("%d calls went out without a record so far, since nothing can be recorded", owed)
            return
        while (entry := self.unrecorded.next(self.clock.now_ns(), by)) is not None:
            self.unrecorded.told(self._ledger.append(entry))
            decide.apply(self._state, entry.changes)
        log.warning("%d calls went out without a record; that is on record now", owed)

    def _unrecordable(self, admission: Admission, asked: Asked, error: LedgerError) -> Admission:
        """The refusal of a call whose decision cannot be recorded."""
        log.error("refused, because it cannot be recorded: %s", error)
        decision = store_error(admission.decision)
        self._count(decision)
        reply = self._render(decision, asked, admission.call, admission.call_id, admission.at_ns)
        return msgspec.structs.replace(admission, decision=decision, reply=reply)

    def _call_for(self, changes: Iterable[Change]) -> None:
        """`changes` are recorded and applied: those who wait for what they change are decided again, now."""
        self._room.call((change.guard, change.key) for change in changes)

    def _call_all(self) -> None:
        """The rules have changed, or what a person said: who waits is decided again, who is out may have to stop."""
        self._room.call_all()
        self.changed()

    def _turn_ns(self, admission: Admission) -> int:
        """When a call may be sent, as a throttle has decided."""
        return self.clock.moved(admission.decision.send_at_ns, admission.times_set_back)

    async def _take_turn(self, admission: Admission, asked: Asked, gone: asyncio.Event) -> Admission:
        """Wait for the place that a throttle reserved. Then, and whenever the rules change, check halt, deny and allow
        again."""
        waiter = Waiter()
        self._room.sit(waiter, ())
        try:
            while True:
                waiter.moved.clear()
                left_ns = self._turn_ns(admission) - self.clock.now_ns()
                if left_ns > 0 and not gone.is_set():
                    await first_of(waiter.moved, gone, left_ns / 1e9)
                self.look()
                now_ns = self.clock.now_ns()
                refusal = self._recheck(admission, now_ns)
                if refusal is not None or gone.is_set() or now_ns >= self._turn_ns(admission):
                    break
        finally:
            self._room.leave(waiter)
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

    def still(self, admission: Admission) -> Decision | None:
        """The refusal of a call that was let out and asks for more, if it would not be let out any more; else None."""
        self.look()
        return self.goes_on(admission)

    def goes_on(self, admission: Admission) -> Decision | None:
        """As `still`, by what is known: a ledger that cannot be read for a while cuts off nothing that is on record."""
        return self._recheck(admission, self.clock.now_ns())

    def _recheck(self, admission: Admission, now_ns: int) -> Decision | None:
        """The refusal of a call that was let out, if it would not be let out any more; else None."""
        if self.runs.has_left(admission.call.run):
            return run_has_ended()
        return decide.recheck(self.ruleset, self._state, admission.call, admission.call_id, now_ns)

    def settle(
        self,
        admission: Admission,
        answer: Answer,
        *,
        client_left: bool = False,
        answer_sha256: str = "",
        streamed_bytes: int = 0,
        streamed_sha256: str = "",
        stored: StoredAnswer | None = None,
        held: bool = False,
    ) -> int:
        """Record what became of a call that was admitted, and wake those who wait for it. Called exactly once.

        If it cannot be told what became of it, because of an error of ours, that is `unknown`, and so are its claims.
        Returns the status to give the client in place of a failed answer's, else 0; always 0 unless the answer is
        `held` back from it until now.
        """
        now_ns, times = self.clock.now_ns(), admission.times_set_back
        changes: tuple[Change, ...] = ()
        self.unanswered += not answer.complete and not answer.withdrawn
        if stored is not None:
            until_ns = self.clock.moved(decide.keep_until_ns(admission.decision), times)
            stored = msgspec.structs.replace(stored, until_ns=until_ns)
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
            if admission.unrecorded:
                return outcome.show_as if held else 0
            changes = outcome.changes
            decide.apply(self._state, changes)
            shown_as = outcome.show_as if held else 0
            if stored is not None and shown_as:
                stored = msgspec.structs.replace(stored, status=shown_as, reason=SHOWN_REASON)
            self._conclude(
                OutcomeEntry(
                    at_ns=now_ns,
                    id=admission.call_id,
                    outcome=outcome.kind,
                    status=answer.status,
                    duration_ns=now_ns - self.clock.moved(admission.sent_ns or admission.at_ns, times),
                    error=answer.error or outcome.reason,
                    answer_sha256=answer_sha256,
                    answer_bytes=answer.size_bytes,
                    streamed_bytes=streamed_bytes,
                    streamed_sha256=streamed_sha256,
                    client_left=client_left,
                    expected=outcome.expected,
                    shown_as=shown_as,
                    messages=answer.messages,
                    changes=outcome.changes,
                ),
                stored if outcome.kind == "done" else None,
            )
            for call_id in outcome.told:
                self._tell(call_id, outcome.kind, f"told by the answer to {admission.call_id}")
            return shown_as
        finally:
            self._call_for(changes)

    def _conclude(self, outcome: OutcomeEntry, stored: StoredAnswer | None = None) -> None:
        """Record `outcome`. One that cannot be recorded now is kept by the ledger until `recover`."""
        try:
            self._ledger.append(outcome, stored)
        except LedgerError as error:
            log.error("an outcome cannot be recorded for now: %s", error)

    def end_run(self, joined: JoinedRun, why: str, by: str) -> None:
        """A run that has joined has ended. Recorded. Nothing more of it gets out, not even what waits or goes on."""
        now_ns = self.clock.now_ns()
        data: dict[str, Plain] = {"run": joined.run, "agent": joined.agent, "hash": joined.hash, "why": why}
        self._ledger.append(CommandEntry(now_ns, LEAVE, by, data))
        self.runs.end(joined, now_ns)
        self._call_all()

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
        self._room.call_all()
        return True

    @property
    def halts(self) -> tuple[Halt, ...]:
        """What people have stopped."""
        return self._state.of(Halts).in_force()

    def halt(self, halt: Halt) -> None:
        """Stop the calls of `halt`, from the next decision on. Recorded."""
        data: dict[str, Plain] = {"agent": halt.agent, "tool": halt.tool, "reason": halt.reason}
        self._command(CommandEntry(halt.at_ns, "halt", halt.by, data, (halt.begun(),)))

    def resume(self, halt: Halt, by: str) -> None:
        """OS user `by` lets the calls of `halt` go on. Recorded."""
        now_ns = self.clock.now_ns()
        data: dict[str, Plain] = {"agent": halt.agent, "tool": halt.tool}
        self._command(CommandEntry(now_ns, "resume", by, data, (halt.ended(now_ns),)))

    def _command(self, entry: CommandEntry) -> None:
        """Record what a person commands, and do it. Those who wait are decided anew."""
        self._ledger.append(entry)
        decide.apply(self._state, entry.changes)
        self._call_all()

    def answer(self, ticket: str, allowed: bool, note: str, by: str, own_user: bool) -> bool:
        """OS user `by` says whether the call that was held with `ticket` may pass, and why. Recorded.

        `own_user`: that is the user who runs the proxy, and the agent may be the same. False, and nothing recorded,
        when no such question is open.
        """
        now_ns = self.clock.now_ns()
        changes = decide.said(self._state, ticket, allowed, note, now_ns)
        if not changes:
            return False
        data: dict[str, Plain] = {"card": ticket, "allowed": allowed, "note": note, "own_user": own_user}
        self._command(CommandEntry(now_ns, "approval", by, data, changes))
        return True

    def hold_nobody(self) -> None:
        """The proxy is about to stop: whoever waits is told so now, and what was asked of people stays asked."""
        self._holds = False
        self._room.call_all()

    def set_back_clock(self, note: str, by: str) -> SetBack | None:
        """OS user `by` says that the wall clock is right, though it is behind: time goes on from it. Recorded.

        None, and nothing recorded, when the wall clock is not behind.
        """
        back = self.clock.behind()
        if back is None:
            return None
        self.flush(everything=True)
        self._ledger.checkpoint(back.from_ns)
        data: dict[str, Plain] = {"from_ns": back.from_ns, "note": note}
        self._ledger.append(CommandEntry(back.to_ns, "clock", by, data, (back.change(),)))
        decide.apply(self._state, (back.change(),))
        self.clock.set_back(back)
        self._room.call_all()
        return back

    def budgets(self, most: int) -> tuple[Fullness, ...]:
        """The budgets that are used most."""
        return self._state.of(Budgets).fullest(self.clock.now_ns(), most)

    def _tell(self, call_id: str, outcome: OutcomeKind, how: str) -> None:
        """Record what has come out about an earlier call, whose outcome was unknown."""
        now_ns = self.clock.now_ns()
        self._conclude(OutcomeEntry(now_ns, call_id, outcome, status=0, duration_ns=0, error=how))

    def refuse_unread(self, call: Call, call_id: str, error: WireError, asked: Asked) -> Reply:
        """Refuse and record a request that never became a call worth deciding: ambiguous, oversized, not identified."""
        now_ns = self.clock.now_ns()
        decision = Decision(action="deny", code=error.code, detail=error.detail, rules=(), tool="")
        reply = self._render(decision, asked, call, call_id, now_ns)
        self._count(decision)
        try:
            self._record(decision_entry(Admission(call_id, call, decision, self.ruleset, now_ns, 0, reply), 0))
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
        key = decision.action if decision.action in ("allow", "replay", "throttle", "hold") else "deny"
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
