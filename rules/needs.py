"""What deciding a call will need, told from its head: its body, that of its answer, a claim, where its secret is."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rules.applies import Reading, writes
from rules.call import Call
from rules.guards.history import NO_PAST
from rules.ruleset import BODY_CAP_BYTES, Match, Rule, RuleSet, Tool
from rules.where import Condition


class Needs(msgspec.Struct, frozen=True):
    """What the shell has to do before a call can be decided, told from its head.

    `body`: buffer and decode the body, up to `cap_bytes`. `asked_by`: who needs that, a rule or a tool, in words; empty
    where nothing does, and the body can be streamed. `claim`: the call may hold a claim, so its exchange has to be
    finished even when the client leaves. `credential`: the field of the secret, or empty for the usual places.
    `answer`: rules read the body of the answer. `show_as`: its status may have to be replaced, so it has to arrive
    whole before it is handed on.
    """

    asked_by: str
    cap_bytes: int
    claim: bool
    credential: str
    answer: bool = False
    show_as: bool = False

    @property
    def body(self) -> bool:
        return bool(self.asked_by)


def needs(ruleset: RuleSet, head: Call) -> Needs:
    """What deciding this call will need, from everything but its body."""
    reading = Reading(ruleset, head, 0, NO_PAST)
    named = naming(reading)
    tools = [tool for tool in named if tool is not None]
    may_write = any(writes(tool, head) for tool in named)
    rules = [rule for rule in reading.candidates() if reading.known(rule.select)]
    claim = any(guard.claims(head.method, may_write) for rule in rules for guard in rule.guards)
    messages = any(match.says is not None for match in reading.matched())
    asked = [each for hit in reading.tool_hits for each in ruleset.earlier.get(hit.target.name, ())]
    return Needs(
        asked_by=next((f"tool `{tool.name}`" for tool in tools if tool.params or (claim and tool.keyed_in_body)), "")
        or body_asked_by(ruleset, reading, rules, may_write)
        or ("a rule that compares later calls with it" if any(each.reads_body for each in asked) else ""),
        cap_bytes=max([tool.cap_bytes for tool in tools], default=BODY_CAP_BYTES),
        claim=claim,
        credential=next((tool.credential for tool in tools if tool.credential), ""),
        answer=any(guard.needs_answer(messages) for rule in rules for guard in rule.guards)
        or any(tool.expect is not None and tool.expect.needs_body for tool in tools)
        or any(each.reads_answer for each in asked),
        show_as=any(tool.expect is not None and tool.expect.show_as for tool in tools),
    )


def naming(reading: Reading) -> list[Tool | None]:
    """The tools that may come to name the call, the most specific first; None among them where it may be that none
    does. What the body says is not asked."""
    found: list[Tool | None] = []
    for hit in reading.tool_hits:
        if not hit.only_denies:
            tool = reading.ruleset.tools[hit.target.name]
            found.append(tool)
            if not tool.matches[hit.target.nth].narrows:
                return found
    return [*found, None]


def body_asked_by(ruleset: RuleSet, reading: Reading, rules: Sequence[Rule], may_write: bool) -> str:
    """Whose discriminator, condition or guard, that could count for this call, reads the body; empty where none does.

    A rule or a tool, in words.
    """
    for hit in reading.tool_hits:
        if _reads_body(ruleset.tools[hit.target.name].matches[hit.target.nth]):
            return f"tool `{hit.target.name}`"
    for rule in rules:
        selectors = [select for select in (rule.select, rule.unless) if select is not None]
        if (
            any(guard.needs_body(reading.call, may_write) for guard in rule.guards)
            or any(reads_body(select.where) for select in selectors)
            or any(_reads_body(match) for select in selectors for match in select.matches or ())
        ):
            return f"rule `{rule.id}`"
    return ""


def reads_body(condition: Condition | None) -> bool:
    return condition is not None and any(field.needs_body for field in condition.fields)


def _reads_body(match: Match) -> bool:
    return match.says is not None or reads_body(match.where)
