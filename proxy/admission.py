"""One call at the gate: how it asked, how long it may wait, what the gate says of it, and how that is recorded."""

from __future__ import annotations

import asyncio

import msgspec

from proxy.clock import Clock
from proxy.ledger.entries import HELD_BACK, DecisionEntry, StoredAnswer
from proxy.refusal import Reply
from proxy.waiting import Waiter
from proxy.wire.answer import read_answer_body
from proxy.wire.grpcweb import web_trailers
from rules.call import UNREAD_BODY, Call
from rules.decision import Answer, Decision
from rules.ruleset import RuleSet


class Admission(msgspec.Struct, frozen=True):
    """What the gate says of one call. It may be sent if and only if `reply` is None.

    `ruleset` is the one it was decided under; `at_ns` is when. `sent_ns` is when it was let out, 0 if it was not.
    `times_set_back`: the clock had been set back so often when it was decided. `unrecorded`: it is not on record.
    """

    call_id: str
    call: Call
    decision: Decision
    ruleset: RuleSet
    at_ns: int
    sent_ns: int
    reply: Reply | None
    times_set_back: int = 0
    unrecorded: bool = False


class Asked(msgspec.Struct, frozen=True):
    """How the client asked, as far as it shapes a reply of ours."""

    method: str
    http_version: str


class Attempt:
    """A call on its way to being decided for good: then `admission` is set, or `error`.

    `began`: when it began to wait, by the code of what it waits for. `until_ns`: how long it may wait as things are.
    """

    def __init__(self, call: Call, call_id: str, asked: Asked, gone: asyncio.Event, clock: Clock) -> None:
        self.call = call
        self.call_id = call_id
        self.asked = asked
        self.gone = gone
        self._clock = clock
        self._times_set_back = clock.times_set_back
        self.arrived_ns = clock.now_ns()
        self.began: dict[str, int] = {}
        self.until_ns = 0
        self.waiter = Waiter()
        self.admission: Admission | None = None
        self.seq = 0
        self.error: BaseException | None = None

    def now_ns(self) -> int:
        """What time it is. Its own moments are put where they stand, if the clock was set back."""
        times, self._times_set_back = self._times_set_back, self._clock.times_set_back
        if times != self._times_set_back:
            self.arrived_ns, self.until_ns = (
                self._clock.moved(at_ns, times) for at_ns in (self.arrived_ns, self.until_ns)
            )
            self.began = {code: self._clock.moved(at_ns, times) for code, at_ns in self.began.items()}
        return self._clock.now_ns()


def decision_entry(admission: Admission, waited_ns: int, count: int = 1) -> DecisionEntry:
    """What the ledger keeps of a decision; it redacts it. `count`: 0 for one that does not stand for good."""
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
        count=count,
    )


def given_again(stored: StoredAnswer, read: bool) -> Answer:
    """A kept answer as what the upstream said, for rules that ask what a run has got. `read`: its body, too."""
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in stored.headers)
    web = web_trailers(headers)
    if web is not None:
        web.feed(stored.body)
    return Answer(
        stored.status,
        complete=True,
        sent=True,
        stored=True,
        headers=headers,
        trailers=web.trailers if web is not None else (),
        size_bytes=len(stored.body),
        body=read_answer_body(headers, stored.body) if read else UNREAD_BODY,
    )


def withdrawn(reason: str) -> Answer:
    """The end of a call that was let out and then held back by ourselves, as `reason` says."""
    return Answer(status=0, complete=False, sent=False, withdrawn=True, error=HELD_BACK + reason)


def store_error(decision: Decision) -> Decision:
    """The refusal of a call that was decided but could not be recorded."""
    return Decision(
        action="deny",
        code="store-error",
        detail="This call could not be recorded, so it was not sent. Nothing was executed. Tell the operator.",
        rules=decision.rules,
        tool=decision.tool,
    )


def run_has_ended() -> Decision:
    """The refusal of a call whose run had joined and has ended."""
    return Decision(
        action="deny",
        code="proxy-auth-required",
        detail="The run that this token was made for has ended. Nothing was executed.",
        rules=(),
        tool="",
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
