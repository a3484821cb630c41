"""All guards together: whatever happens, a state that is folded again is the same, decides the same, and no bound is
ever broken, though the rules are another set now and then, calls end in any way, and the clock is set back."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rules import kept
from rules.call import NO_BODY, Call
from rules.canonical import canonical_json
from rules.decide import abandon, apply, decide, deserted, recheck, resolve, said
from rules.decision import Answer, Change, Decision
from rules.guards.concurrency import Leases
from rules.halts import Halt, Halts
from rules.state import SetBack, State
from tests.rules.world import LOST, OK, WITHDRAWN, S, World, answered, call, rules

RULES = """
tools:
  look: GET https://api.example.com/look/{id}
  pay:
    match: POST https://api.example.com/pay
    params: {id: {type: integer}, amount: {type: integer}}
    upstream_key: Idempotency-Key
    expect: {status: 2xx}
  send: POST https://api.example.com/send
rules:
  - {id: look, tool: look, allow: true, loop: {same_error: 2, same_result: 3}, throttle: {rate: 4/min, wait: 20s}}
  - id: pay
    tool: pay
    allow: true
    require: {after: look, same: {body.id: path.id}, within: 5m}
    dedupe: {window: 10m, key: [body.id]}
    loop: true
    budget: {sum: body.amount, max: 20, per: 5m, by: agent}
    concurrency: {max: 2, by: agent, wait: 10s}
  - id: send
    tool: send
    allow: true
    approve: {expires: 2m}
    dedupe: 2m
    breaker: {failures: 2, open: 30s}
    throttle: {pace: 4/min, burst: 2}
  - {id: large, tool: pay, where: {body.amount: {gte: 8}}, approve: true}
  - {id: no-send-after-look, tool: send, after: look, where: {body.to: {eq: out}}, deny: Not after looking.}
  - id: watched
    match: "https://**"
    mode: monitor
    approve: true
    dedupe: 5m
    loop: true
    breaker: true
    budget: {sum: count, max: 5, per: 1m}
    concurrency: 1
    throttle: 2/min
"""
OTHER = RULES.replace("max: 20", "max: 30").replace("burst: 2", "burst: 3").replace("same_error: 2, ", "")
SETS = (rules(RULES), rules(OTHER), rules("mode: monitor\n" + RULES))

CALLS = (
    call("GET", "/look/1"),
    call("GET", "/look/2"),
    *(call(path="/pay", body=f'{{"id": {n}, "amount": {amount}}}') for n in (1, 2) for amount in (3, 9)),
    call(path="/pay", body='{"id": 1, "amount": 3}', agent="bob", run="run-2"),
    call("GET", "/look/1", agent="bob", run="run-2"),
    call(path="/pay", body='{"id": 1, "surprise": 1}'),
    call(path="/send", body='{"to": "out"}'),
    call(path="/send", body='{"to": "in"}'),
    call("DELETE", "/look/1"),
)
PAYMENTS = tuple(
    asked for asked in CALLS if asked.path == "/pay" and b"surprise" not in canonical_json(asked.body.json)
)
ENDS = (
    OK,
    LOST,
    WITHDRAWN,
    answered(201),
    answered(402),
    answered(429, ("retry-after", "5")),
    answered(500),
    answered(502),
    Answer(0, complete=False, sent=False, error="no route"),
    Answer(200, complete=False, sent=True, error="broke off"),
)


class Everything(RuleBasedStateMachine):
    """One proxy that lives, and others that start anew from the ledger, with a snapshot or without."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(SETS[0])
        self.other = State()
        self.folded = 0
        self.tickets: list[str] = []
        self.waits: list[tuple[str, str]] = []
        self.sets: dict[str, Any] = {}

    def again(self) -> State:
        """The state of another process that has folded what is new, as it stands in the ledger."""
        new = self.world.ledger[self.folded :]
        self.folded = len(self.world.ledger)
        apply(self.other, [Change(**each) for each in msgspec.json.decode(msgspec.json.encode(new))])
        return self.other

    def ask(self, asked: Call) -> Decision:
        world = self.world
        before = kept.read(kept.write(world.state))
        twice = [decide(world.ruleset, state, asked, f"call-{world.calls + 1}", world.at_ns) for state in
                 (world.state, self.again())]  # fmt: skip
        decision = world.ask(asked)
        assert twice == [decision, decision], "the same rules, ledger, call and clock give the same decision"
        if decision.action != "allow":
            assert not decision.send
            if decision.wait is None:
                assert all(change.guard in ("history", "loop") for change in decision.changes), (
                    "what is refused consumes nothing"
                )
        if not decision.changes:
            assert before == world.state, "deciding changes nothing"
        return decision

    @rule(asked=st.sampled_from(CALLS), seconds=st.sampled_from((0, 0, 1, 7, 31, 61, 130)))
    def a_call_comes(self, asked: Call, seconds: int) -> None:
        self.world.at_ns += seconds * S
        decision = self.ask(asked)
        if decision.ticket:
            self.tickets.append(decision.ticket)
        if decision.wait is not None:
            self.waits += decision.wait.on
        if decision.action == "allow":
            self.sets[list(self.world.out)[-1]] = self.world.ruleset

    @precondition(lambda self: self.world.out)
    @rule(data=st.data(), answer=st.sampled_from(ENDS), seconds=st.sampled_from((0, 0, 2, 40)))
    def a_call_ends(self, data: st.DataObject, answer: Answer, seconds: int) -> None:
        world = self.world
        world.at_ns += seconds * S
        call_id = data.draw(st.sampled_from(sorted(world.out)))
        now, world.ruleset = world.ruleset, self.sets.pop(call_id)
        world.end(answer, call_id)
        world.ruleset = now

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), allowed=st.booleans())
    def a_person_answers(self, data: st.DataObject, allowed: bool) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.world.record(said(self.world.state, ticket, allowed, "no", self.world.at_ns))

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def who_waits_leaves(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waits))
        self.world.record(deserted(self.world.state, [entry], self.world.at_ns))

    @rule(number=st.integers(1, 30), executed=st.booleans())
    def a_person_finds_out(self, number: int, executed: bool) -> None:
        changes = resolve(self.world.state, f"call-{number}", executed, self.world.at_ns)
        if f"call-{number}" in self.world.out:
            assert changes == (), "what is on its way is not in doubt"
        self.world.record(changes)

    @rule(asked=st.sampled_from(PAYMENTS), answer=st.sampled_from(ENDS))
    def a_payment(self, asked: Call, answer: Answer) -> None:
        """As it should be: looked at before, approved where it has to be, and carried out at once."""
        self.at_once(msgspec.structs.replace(asked, method="GET", path="/look/1", segments=("look", "1"), body=NO_BODY))
        self.at_once(asked, answer)

    @rule(answer=st.sampled_from(ENDS))
    def a_message(self, answer: Answer) -> None:
        self.at_once(call(path="/send", body='{"to": "in"}'), answer)

    def at_once(self, asked: Call, answer: Answer = OK) -> None:
        decision = self.ask(asked)
        if decision.ticket:
            self.world.record(said(self.world.state, decision.ticket, True, "", self.world.at_ns))
            decision = self.ask(asked)
        if decision.action == "allow":
            self.world.end(answer)

    @rule(agent=st.sampled_from(("ann", "b*")), tool=st.sampled_from(("", "pay", "s*")), begins=st.booleans())
    def a_halt(self, agent: str, tool: str, begins: bool) -> None:
        halt = Halt(agent, tool, "Stop.", "root", self.world.at_ns)
        self.world.record((halt.begun() if begins else halt.ended(self.world.at_ns),))

    @rule()
    def everything_is_halted_and_goes_on(self) -> None:
        halt = Halt("", "", "Stop.", "root", self.world.at_ns)
        self.world.record((halt.begun(),))
        for asked in CALLS:
            assert recheck(self.world.ruleset, self.world.state, asked, "x", self.world.at_ns) is not None
            assert self.ask(asked).action != "allow"
        halts = self.world.state.of(Halts).in_force()
        self.world.record(tuple(one.ended(self.world.at_ns) for one in halts))

    @rule(seconds=st.integers(1, 100))
    def the_clock_is_set_back(self, seconds: int) -> None:
        world = self.world
        back = SetBack(world.at_ns, world.at_ns - seconds * S)
        world.record((back.change(),))
        world.at_ns = back.to_ns

    @rule(number=st.integers(0, len(SETS) - 1))
    def the_rules_change(self, number: int) -> None:
        self.world.ruleset = SETS[number]

    @rule()
    def the_proxy_dies(self) -> None:
        world = self.world
        world.state = world.refold()
        world.record(abandon(world.state, world.at_ns))
        world.out.clear()
        self.sets.clear()
        assert world.state.of(Leases).rows == {}, "nothing of a dead proxy is on its way"
        assert abandon(world.state, world.at_ns) == ()

    @invariant()
    def no_lease_but_of_calls_that_are_out(self) -> None:
        held = {one for row in self.world.state.of(Leases).rows.values() for one in row}
        assert held <= set(self.world.out)

    @invariant()
    def never_more_at_once_than_the_rule_says(self) -> None:
        out = [asked.agent for call_id, (asked, decision) in self.world.out.items()
               if decision.tool == "pay" and self.sets[call_id].mode == "enforce"]  # fmt: skip
        assert all(out.count(agent) <= 2 for agent in out)

    @invariant()
    def a_state_that_is_written_down_and_read_is_the_same(self) -> None:
        assert kept.read(kept.write(self.world.state)) == self.world.state
        assert self.again() == self.world.state

    def teardown(self) -> None:
        assert self.world.refold() == self.world.state


TestEverything = Everything.TestCase
