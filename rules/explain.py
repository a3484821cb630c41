"""Explaining a decision: every tool that matched, every rule and why it applied or not, and the decision itself."""

from __future__ import annotations

from typing import Literal

import msgspec

from rules.applies import Ambiguous, Naming, Reading, writes
from rules.call import Call
from rules.decide import decide
from rules.decision import Decision
from rules.fields import ConditionError
from rules.guards.history import past_of
from rules.index import Hit
from rules.ruleset import Rule, RuleSet
from rules.state import State
from rules.where import Miss


class ToolSeen(msgspec.Struct, frozen=True):
    """A tool with a pattern that matches the call. `why_not`: why it does not name it, empty when it does."""

    name: str
    pattern: str
    why_not: str


class RuleSeen(msgspec.Struct, frozen=True):
    """A rule. `near`: one of its targets matches the call. `why_not`: why it does not apply, empty when it does."""

    id: str
    source: str
    mode: str
    verbs: tuple[str, ...]
    near: bool
    why_not: tuple[Miss, ...] = ()
    error: str = ""

    @property
    def applies(self) -> bool:
        return self.near and not self.why_not and not self.error


class Explanation(msgspec.Struct, frozen=True):
    """A decision and everything that it was made of. `nearest`: the allow that came nearest, when none applied."""

    decision: Decision
    writes: bool
    tools: tuple[ToolSeen, ...]
    rules: tuple[RuleSeen, ...]
    nearest: str


def explain(ruleset: RuleSet, state: State, call: Call, now_ns: int) -> Explanation:
    """Explain what `rules.decide.decide` says of `call`, which has a decoded body if anything needs it."""
    decision = decide(ruleset, state, call, "", now_ns)
    reading = Reading(ruleset, call, now_ns, past_of(state, call.run, ""))
    try:
        naming = reading.name()
    except (Ambiguous, ConditionError):
        naming = Naming(None, writes(None, call))
    return Explanation(
        decision=decision,
        writes=naming.writes,
        tools=tuple(_tools(reading, naming)),
        rules=tuple(_rule(reading, rule) for rule in ruleset.rules),
        nearest=next((each.rule for each in decision.violations if each.code == "no-allow"), ""),
    )


def _tools(reading: Reading, naming: Naming) -> list[ToolSeen]:
    """Each tool once, by its most specific pattern that matches; the most specific tool first."""
    found: dict[str, ToolSeen] = {}
    for hit in reading.tool_hits:
        name = hit.target.name
        if name not in found:
            found[name] = ToolSeen(
                name, str(hit.pattern), "" if name == naming.name else _not_named(reading, naming, hit)
            )
    return list(found.values())


def _not_named(reading: Reading, naming: Naming, hit: Hit) -> str:
    """Why the tool behind `hit` does not name the call."""
    if hit.only_denies:
        return "it matches only when encoded slashes and empty segments are read leniently"
    try:
        if not reading.fits(hit, "allow"):
            unasked = reading.unasked(hit)
            return f"its `{unasked}` does not fit the message" if unasked else "its `where` does not hold"
    except ConditionError as error:
        return f"its `where` could not be applied: {error}"
    return f"`{naming.name}` is more specific" if naming.name else "another tool is just as specific"


def _rule(reading: Reading, rule: Rule) -> RuleSeen:
    verbs = (
        *(("deny",) if rule.deny is not None else ()),
        *(("allow",) if rule.allow else ()),
        *(guard.verb for guard in rule.guards),
    )
    side: Literal["deny", "allow", "guard"] = "deny" if rule.deny is not None else "allow" if rule.allow else "guard"
    seen = RuleSeen(rule.id, rule.source, rule.mode, verbs, near=True)
    try:
        why_not = reading.misses(rule, side)
    except ConditionError as error:
        return msgspec.structs.replace(seen, error=str(error))
    if why_not is None:
        return msgspec.structs.replace(seen, near=False)
    return msgspec.structs.replace(seen, why_not=why_not)
