"""A side effect happens at most once: the engine against upstreams that act and lose their answers as they please.

The upstreams here are models, and their count of effects is the truth. One knows keys, for as long as it promises;
the other does not. A claim is what the engine's changes say it is: it begins with the step `claim`, and a `retry`
belongs to the claim of the call before it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rules.decide import abandon, resolve
from rules.decision import Answer, Decision
from tests.rules.world import LOST, OK, WITHDRAWN, S, World, answered, call

HOUR = 3600
WINDOW = 48 * HOUR
RETENTION = 24 * HOUR
RULES = """
tools:
  pay: {{match: POST https://api.example.com/pay, upstream_key: {{header: X-Key, retention: {retention}h}}}}
  say: POST https://api.example.com/say
rules:
  - {{id: pay, tool: pay, allow: true, dedupe: {{window: {window}h}}}}
  - {{id: say, tool: say, allow: true, dedupe: {{window: {window}h}}}}
""".format(retention=RETENTION // HOUR, window=WINDOW // HOUR)

# What the upstream does with a request that it has not seen before, and what comes back.
ACTS = (OK, answered(201), answered(303), answered(500), answered(502), answered(504), answered(408), LOST)
REFUSES = (answered(422), answered(402), answered(401), answered(429), answered(503, ("retry-after", "9")))
FAILS = (answered(500), answered(503), answered(502), LOST, Answer(200, complete=False, sent=True))
LEAVES_NOT = (WITHDRAWN, Answer(0, complete=False, sent=False, error="connection refused"))
# What comes back when it knows the key: it acts no more.
KNOWS = (OK, answered(409), answered(401), answered(429), answered(400), answered(303), answered(500), LOST)

FATES = (
    *[("acts", answer) for answer in ACTS],
    *[("refuses", answer) for answer in REFUSES],
    *[("fails", answer) for answer in FAILS],
    *[("leaves not", answer) for answer in LEAVES_NOT],
)


class Effect(NamedTuple):
    """An effect at the upstream: what was done, and under which claim, made when."""

    act: int
    claim: str
    claimed_ns: int


class Upstream:
    """It remembers a key with what it was for, since when, and the answer if it keeps one."""

    def __init__(self, knows_keys: bool) -> None:
        self.knows_keys = knows_keys
        self.effects: list[Effect] = []
        self.keys: dict[str, tuple[int, int, Answer | None]] = {}

    def take(self, effect: Effect, key: str, fate: tuple[str, Answer], again: Answer, now_ns: int) -> Answer:
        """One request arrives, or does not; the answer as the proxy gets it."""
        what, answer = fate
        if what == "leaves not":
            return answer
        known = self.keys.get(key) if key and self.knows_keys else None
        if known is not None and now_ns < known[1] + RETENTION * S:
            act, _, kept = known
            if act != effect.act:
                return answered(400)
            return msgspec.structs.replace(kept, replayed=True) if kept is not None and again is OK else again
        if what == "acts":
            self.effects.append(effect)
            self.keys[key] = (effect.act, now_ns, answer if answer.complete else None)
        if answer.status == 402:  # it has tried, and keeps that this came to nothing
            self.keys[key] = (effect.act, now_ns, answer)
        return answer


class Once(RuleBasedStateMachine):
    """Calls, answers, crashes, people who look, and time."""

    knows_keys = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World(RULES)
        self.upstream = Upstream(self.knows_keys)
        self.answers: dict[str, Answer] = {}
        self.claim_of: dict[str, str] = {}
        self.claimed_ns: dict[str, int] = {}
        self.requests: dict[str, int] = {}

    @rule(
        act=st.integers(0, 2),
        own=st.sampled_from(("", "", "", "k1", "k2")),
        fate=st.sampled_from(FATES),
        again=st.sampled_from(KNOWS),
        at_once=st.booleans(),
    )
    def an_agent_calls(self, act: int, own: str, fate: tuple[str, Answer], again: Answer, at_once: bool) -> None:
        headers = (("x-key", own),) if own else ()
        asked = call(path="/pay" if self.knows_keys else "/say", body=f'{{"act": {act}}}', headers=headers)
        decision = self.world.ask(asked)
        if decision.action != "allow":
            return
        call_id = f"call-{self.world.calls}"
        claim = self._claim(call_id, decision)
        sent = {name: value for _, name, value in decision.send}.get("X-Key", own)
        assert bool(decision.send) is self.knows_keys
        effect = Effect(act, claim, self.claimed_ns[claim])
        self.requests[claim] = self.requests.get(claim, 0) + (fate[0] != "leaves not")
        self.answers[call_id] = self.upstream.take(effect, sent, fate, again, self.world.at_ns)
        if at_once:
            self._end(call_id)

    def _claim(self, call_id: str, decision: Decision) -> str:
        (step,) = [change for change in decision.changes if change.guard == "dedupe"]
        claim = call_id if step.op == "claim" else self.claim_of[str(step.data["of"])]
        self.claim_of[call_id] = claim
        self.claimed_ns.setdefault(claim, self.world.at_ns)
        return claim

    def _end(self, call_id: str) -> None:
        self.world.end(self.answers.pop(call_id), call_id)

    @precondition(lambda self: self.world.out)
    @rule(data=st.data())
    def an_answer_comes(self, data: Any) -> None:
        self._end(data.draw(st.sampled_from(sorted(self.world.out))))

    @rule()
    def the_proxy_is_killed_and_started_again(self) -> None:
        self.world.state = self.world.refold()
        self.world.out.clear()
        self.world.record(abandon(self.world.state, self.world.at_ns))

    @precondition(lambda self: self.claim_of)
    @rule(data=st.data())
    def a_person_finds_out(self, data: Any) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.claim_of)))
        executed = any(effect.claim == self.claim_of[call_id] for effect in self.upstream.effects)
        self.world.record(resolve(self.world.state, call_id, executed, self.world.at_ns))

    @rule(hours=st.sampled_from((0.01, 1, 5, 21, 30)))
    def time_passes(self, hours: float) -> None:
        self.world.at_ns += int(hours * HOUR * S)

    @invariant()
    def effects_per_claim_are_at_most_one(self) -> None:
        claims = [effect.claim for effect in self.upstream.effects]
        assert len(claims) == len(set(claims))

    @invariant()
    def equal_effects_are_a_window_apart(self) -> None:
        for act in range(3):
            claimed = sorted(effect.claimed_ns for effect in self.upstream.effects if effect.act == act)
            assert all(later - earlier >= WINDOW * S for earlier, later in pairwise(claimed))

    def teardown(self) -> None:
        assert self.world.refold() == self.world.state


class OnceWithoutKeys(Once):
    """At an API that knows no keys, not even a second request is made."""

    knows_keys = False

    @invariant()
    def requests_per_claim_are_at_most_one(self) -> None:
        assert max(self.requests.values(), default=0) <= 1


SETTINGS = settings(stateful_step_count=40)
TestAnEffectHappensAtMostOnceWithKeys = Once.TestCase
TestAnEffectHappensAtMostOnceWithKeys.settings = SETTINGS
TestAnEffectHappensAtMostOnceWithoutKeys = OnceWithoutKeys.TestCase
TestAnEffectHappensAtMostOnceWithoutKeys.settings = SETTINGS
