"""Deciding: one call, one state, one moment, one answer. Pure functions; the shell does what they say.

How a decision comes about, stage by stage, is in `rules.deciding`; here are the questions that the shell may ask.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from rules import grpc
from rules.applies import Reading
from rules.batch import MOST, together, too_many
from rules.call import Call
from rules.deciding import Deciding
from rules.decision import Answer, Change, Decision, Expected, Outcome
from rules.expect import effect, judge
from rules.guard import Settled
from rules.guards import ASKING, HOLDING, IMPLICIT, TABLES
from rules.guards.claims import outcome_of
from rules.guards.history import NO_PAST
from rules.pattern import MESSAGE
from rules.protocols import parts
from rules.remember import completed
from rules.ruleset import RuleSet
from rules.state import CLOCK, SetBack, State


def decide(ruleset: RuleSet, state: State, call: Call, call_id: str, now_ns: int) -> Decision:
    """The decision on `call`. Changes nothing: `apply` its changes when it is recorded, or begins to wait."""
    batch = _batch(ruleset, call)
    if not batch:
        return Deciding(ruleset, state, call, call_id, now_ns).decide()
    if len(batch) > MOST:
        return too_many()
    return together([Deciding(ruleset, state, one, call_id, now_ns).decide() for one in batch], ruleset.in_force)


def _batch(ruleset: RuleSet, call: Call) -> tuple[Call, ...]:
    """The messages in a batch (one more than there may be, if there are), where anything that the call matches reads
    them; else nothing."""
    batch = parts(call, MOST + 1)
    if batch and any(match.says is not None for match in Reading(ruleset, call, 0, NO_PAST).matched()):
        return batch
    return ()


def decides_messages(ruleset: RuleSet, call: Call) -> bool:
    """Is what is sent in the WebSocket that `call` opens decided message by message? When a pattern says MESSAGE."""
    hits = ruleset.index.find(MESSAGE, call.scheme, call.host, call.port, call.segments)
    return any(MESSAGE in hit.pattern.methods for hit in hits)


def recheck(ruleset: RuleSet, state: State, call: Call, call_id: str, now_ns: int) -> Decision | None:
    """The refusal of a call that waited for its place and is no longer permitted (stages 0 to 2), else None."""
    for one in _batch(ruleset, call) or (call,):
        deciding = Deciding(ruleset, state, one, call_id, now_ns)
        refusal = deciding.permission()
        if refusal is not None and (ruleset.mode == "enforce" or deciding.final):
            return refusal
    return None


def settle(
    ruleset: RuleSet, state: State, call: Call, decision: Decision, call_id: str, answer: Answer, now_ns: int
) -> Outcome:
    """What became of a call that `decision` let out, by the rule set that let it out."""
    tool = ruleset.tools.get(decision.tool)
    keyed = tool is not None and tool.upstream_key is not None and keep_until_ns(decision) > 0
    kind, reason = grpc.judge(call, answer, outcome_of(answer, keyed))
    expected: Expected = ""
    show_as = 0
    if tool is not None and tool.expect is not None:
        expected, unmet = judge(tool.expect, answer)
        reason = reason or unmet
        kind = effect(tool.expect, answer, expected, kind)
        show_as = tool.expect.show_as if expected == "failed" else 0
    settled = Settled(call, call_id, decision.tool, (), kind, answer, expected)
    by_guard: dict[tuple[str, str], list[Change]] = {}
    for change in decision.changes:
        if change.rule:
            by_guard.setdefault((change.rule, change.guard), []).append(change)
    changes: list[Change] = []
    for (rule_id, verb), claimed in by_guard.items():
        for guard in ruleset.by_id[rule_id].guards:
            if guard.verb == verb:
                own = msgspec.structs.replace(settled, claimed=tuple(claimed))
                changes += guard.settle(own, state, now_ns)
    known = told(state, _of_rules_in_force(ruleset, changes)) if decision.replay_of else ()
    for implicit in IMPLICIT:
        changes += implicit.settle(settled, state, now_ns)
    changes += completed(Reading(ruleset, call, now_ns, NO_PAST), state, settled)
    return Outcome(kind, tuple(changes), known, expected, reason, show_as)


def replayed(
    ruleset: RuleSet, state: State, call: Call, decision: Decision, call_id: str, answer: Answer, now_ns: int
) -> Decision:
    """A replay, whose kept answer is `answer`: the run of `call` has now got it, as if the call had been sent."""
    tool = ruleset.tools.get(decision.tool)
    expected = judge(tool.expect, answer)[0] if tool is not None and tool.expect is not None else ""
    kind = grpc.judge(call, answer, outcome_of(answer))[0]
    settled = Settled(call, call_id, decision.tool, (), kind, answer, expected)
    changes = completed(Reading(ruleset, call, now_ns, NO_PAST), state, settled)
    return msgspec.structs.replace(decision, changes=decision.changes + changes)


def _of_rules_in_force(ruleset: RuleSet, changes: Iterable[Change]) -> list[Change]:
    return [change for change in changes if ruleset.by_id[change.rule].mode == "enforce"]


def abandon(state: State, now_ns: int) -> tuple[Change, ...]:
    """After a restart: the outcome of every call that was on its way is unknown. Apply and record the changes."""
    return tuple(change for kind in HOLDING.values() for change in state.of(kind).abandoned(now_ns))


def resolve(state: State, call_id: str, executed: bool, now_ns: int) -> tuple[Change, ...]:
    """A person has found out whether `call_id`, whose outcome is unknown, took effect. Apply and record the changes.

    Executed, its duplicates are refused as such; not executed, the next one goes out, and what it held is free. Nothing
    when that call holds nothing in doubt (any more).
    """
    tables = [state.of(kind) for kind in HOLDING.values()]
    return tuple(change for table in tables for change in table.resolved(call_id, executed, now_ns))


def told(state: State, changes: Iterable[Change]) -> tuple[str, ...]:
    """The calls whose outcome was unknown and is told by `changes`, which are not applied yet."""
    holding = [(HOLDING[change.guard], change) for change in changes if change.guard in HOLDING]
    return tuple(dict.fromkeys(call for kind, change in holding for call in state.of(kind).told(change)))


def said(state: State, question: str, allowed: bool, reason: str, now_ns: int) -> tuple[Change, ...]:
    """A person has answered the question `question` (a decision's `ticket`). Apply and record the changes.

    Nothing when there is no such question, or it is closed.
    """
    tables = [state.of(kind) for kind in ASKING.values()]
    return tuple(change for table in tables for change in table.said(question, allowed, reason, now_ns))


def deserted(state: State, entries: Iterable[tuple[str, str]], now_ns: int) -> tuple[Change, ...]:
    """The last who waited for these entries, (guard, key), have left. Apply and record the changes."""
    asking = [(ASKING[guard], key) for guard, key in entries if guard in ASKING]
    return tuple(change for kind, key in asking for change in state.of(kind).deserted(key, now_ns))


def apply(state: State, changes: Iterable[Change]) -> None:
    """Fold `changes` into `state`. Every change once, in the order of the ledger."""
    for change in changes:
        if change.guard == CLOCK:
            state.set_back(SetBack.told(change))
        else:
            state.of(TABLES[change.guard]).apply(change)


def keep_until_ns(decision: Decision) -> int:
    """How long the answer to this call may have to be replayed; 0 when it never will."""
    ends = [change.data["until_ns"] for change in decision.changes if change.op in ("claim", "retry")]
    return max([end for end in ends if isinstance(end, int)], default=0)
