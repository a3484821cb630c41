"""Which tool names a call and which rules apply to it: what deciding, explaining and `needs` share.

A rule applies where one of its targets matches and everything else that its selector says holds there, and its
`unless` does not. Which reading counts depends on the side that asks (`rules.where`): an allow is read strictly, a deny
and a guard leniently, so that what cannot be told never widens what may happen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from rules.call import Call
from rules.decision import Plain
from rules.fields import Absent, ConditionError, Field, Value, plain, read_field, read_in_value
from rules.globs import glob_fits
from rules.guards.history import Past
from rules.index import Hit
from rules.pattern import PLAIN, Pattern
from rules.protocols import arguments, shown_message
from rules.protocols.says import Asking, Says
from rules.ruleset import READ_METHODS, Match, Rule, RuleSet, Selector, Tool
from rules.suggest import listing
from rules.where import Condition, Miss, Side

type Bindings = Mapping[str, str]

SHOWN = 3
"""Of the tools under `after`, so many are named when none was called."""


class Ambiguous(Exception):
    """The call can be read in two ways, and which one counts is not for us to guess."""


class Target(msgspec.Struct, frozen=True, gc=False):
    """A target that matches: its pattern, and what that captured."""

    bindings: Bindings
    pattern: Pattern | None

    @property
    def exact_host(self) -> bool:
        """Whether it names the host literally."""
        return self.pattern is not None and self.pattern.exact_host


ANYTHING = Target({}, None)
"""The target of a selector that names neither tool nor match."""


class Naming(msgspec.Struct, frozen=True, gc=False):
    """The tool that names the call, or none; whether the call writes; the pattern by which the tool names it, and what
    that captured."""

    tool: Tool | None
    writes: bool
    pattern: Pattern | None = None
    bindings: Bindings = {}

    @property
    def name(self) -> str:
        return self.tool.name if self.tool else ""


class Reading:
    """A call being read: its hits in the index, and every field that was read on the way, as facts.

    `past`: what its run has done before.
    """

    def __init__(self, ruleset: RuleSet, call: Call, now_ns: int, past: Past) -> None:
        self.ruleset = ruleset
        self.call = call
        self.now_ns = now_ns
        self.past = past
        self.facts: dict[str, Plain] = {}
        self.fingerprints: dict[tuple[tuple[Field, ...], tuple[Field, ...]], str] = {}
        self._values: dict[str, Value] = {}
        self._asking = Asking(call)
        self._said: dict[Says, bool | None] = {}
        self.tool_hits: list[Hit] = []
        self.rule_hits: dict[tuple[str, str], list[Hit]] = {}
        self.tool_name = ""
        for hit in ruleset.index.find(call.method, call.scheme, call.host, call.port, call.segments):
            if hit.target.kind == "tool":
                self.tool_hits.append(hit)
            else:
                self.rule_hits.setdefault((hit.target.kind, hit.target.name), []).append(hit)
        for hits in (self.tool_hits, *self.rule_hits.values()):
            if len(hits) > 1:
                hits.sort(key=self._rank)

    def _rank(self, hit: Hit) -> tuple[object, ...]:
        """The most specific first; of equal ones, the one with a discriminator."""
        return (hit.pattern.specificity, self._match(hit).rank, hit.target.name, hit.target.nth)

    def read(self, field: Field, bindings: Bindings) -> Value:
        """The value of `field`, put on record. Where two rules see different captures, each is recorded."""
        name = field.text
        if name in self._values:
            return self._values[name]
        value = self._value(field, bindings)
        shown = plain(value)
        if field.place != "path":
            self._values[name] = value
            self.facts[name] = shown
            return value
        if self.facts.setdefault(name, shown) != shown:
            others = sum(each.startswith(f"{name}#") for each in self.facts)
            if shown not in [self.facts[f"{name}#{n + 2}"] for n in range(others)]:
                self.facts[f"{name}#{others + 2}"] = shown
        return value

    def matched(self) -> list[Match]:
        """Everything whose pattern the call matches."""
        return [self._match(hit) for hits in (self.tool_hits, *self.rule_hits.values()) for hit in hits]

    def telling(self) -> tuple[str, ...]:
        """The headers by which tools tell calls like this one apart, sorted. (Rules may look at a header for any other
        reason, such as to count retries.)"""
        found = [match.telling for match in map(self._match, self.tool_hits) if match.telling]
        return tuple(sorted(set().union(*found))) if found else ()

    def _value(self, field: Field, bindings: Bindings) -> Value:
        if field.place != "args":
            return read_field(self.call, bindings, field, self.tool_name)
        found = arguments(self.call)
        return found if isinstance(found, Absent) else read_in_value(found, field.steps)

    def candidates(self) -> list[Rule]:
        """The rules that a target of the call, or no target at all, brings into question; sorted by id."""
        ruleset = self.ruleset
        found = {rule.id: rule for rule in ruleset.everywhere}
        for hit in self.tool_hits:
            for rule in ruleset.by_tool.get(hit.target.name, ()):
                found[rule.id] = rule
        for kind, name in self.rule_hits:
            if kind == "rule":
                found[name] = ruleset.by_id[name]
        return [found[name] for name in sorted(found)]

    def name(self) -> Naming:
        """The tool that names the call: the most specific one, with a discriminator before one without.

        Raises `Ambiguous` when two tools are equal in that.
        """
        best: tuple[Any, ...] | None = None
        tools: list[str] = []
        pattern: Pattern | None = None
        bindings: Bindings = {}
        for hit in self.tool_hits:
            match = self._match(hit)
            rank: tuple[Any, ...] = (hit.pattern.specificity, match.rank)
            if best is not None and rank != best:
                break  # they come with the most specific first
            if not hit.only_denies and self._holds(match, hit.bindings, "allow"):
                if best is None:
                    best, pattern, bindings = rank, hit.pattern, hit.bindings
                if hit.target.name not in tools:
                    tools.append(hit.target.name)
        if len(tools) > 1:
            raise Ambiguous(f"the tools `{tools[0]}` and `{tools[1]}` both name this call")
        tool = self.ruleset.tools[tools[0]] if tools else None
        self.tool_name = tool.name if tool else ""
        self._values.pop("tool", None)
        return Naming(tool, writes(tool, self.call), pattern, bindings)

    def matching(self, side: Literal["allow", "deny"]) -> dict[str, Target]:
        """Every tool that matches the call, the most specific first, each with its first target. In doubt one does
        for a deny, and does not for an allow.
        """
        found: dict[str, Target] = {}
        for hit in self.tool_hits:
            name = hit.target.name
            if name in found or (hit.only_denies and side == "allow"):
                continue
            try:
                fits = self.fits(hit, side)
            except ConditionError:
                fits = side == "deny"
            if fits:
                found[name] = Target(hit.bindings, hit.pattern)
        return found

    def applies(self, rule: Rule, side: Literal["allow", "deny", "guard"]) -> Target | None:
        """The target under which `rule` applies for `side`, or None when it does not apply."""
        target = self.selected(rule.select, rule.id, side)
        if target is None and side == "guard" and rule.allow:
            # whatever the allow lets through, the guards of the same rule watch
            target = self.selected(rule.select, rule.id, "allow")
        if target is None or (rule.unless is not None and self.excused(rule, rule.unless, target, side)):
            return None
        return target

    def excused(self, rule: Rule, unless: Selector, target: Target, side: Side) -> bool:
        """Does `unless` hold? On doubt it does not excuse from a deny or a guard, and does take an allow away."""
        if side == "allow" and self.selected(unless, rule.id, "deny", "unless", target) is not None:
            return True
        return self.selected(unless, rule.id, "unless", "unless", target) is not None

    def selected(
        self,
        select: Selector,
        rule_id: str,
        side: Side,
        kind: Literal["rule", "unless"] = "rule",
        outer: Target = ANYTHING,
    ) -> Target | None:
        """The target under which everything that `select` says holds, or None."""
        if not self.present(select, side):
            return None
        for target in self.targets(select, rule_id, side, kind, outer):
            where = select.where
            if where is None or where.holds(self.reader(target.bindings), side) or self._untold(where, side):
                return target
        return None

    def _untold(self, where: Condition, side: Side) -> bool:
        """Does `where` ask for the arguments of a message of which can not be told what it asks for? Where a call is
        to be refused, it holds then.
        """
        return (
            side in ("deny", "guard")
            and any(field.place == "args" for field in where.fields)
            and any(match.says is not None and match.says.fits(self._asking) is None for match in self.matched())
            and isinstance(arguments(self.call), Absent)
        )

    def reader(self, bindings: Bindings) -> Callable[[Field], Value]:
        """`read` under one target."""
        return lambda field: self.read(field, bindings)

    def present(self, select: Selector, side: Side) -> bool:
        """Do the agent, the run, the time and the past fit?"""
        return (
            self.known(select)
            and (select.during is None or select.during.holds(self.now_ns))
            and (select.after is None or self.follows(select.after, side))
        )

    def follows(self, tools: frozenset[str], side: Side) -> bool:
        """Has the run called one of `tools` before? For a deny or a guard a call counts from the decision to let it
        out, for an allow (and to be excused) from its success.
        """
        return self.past.sent(tools) if side in ("deny", "guard") else self.past.done(tools)

    def known(self, select: Selector) -> bool:
        """Do the agent and the run fit?"""
        return (select.agents is None or any(glob_fits(glob, self.call.agent) for glob in select.agents)) and (
            select.runs is None or any(glob_fits(glob, self.call.run) for glob in select.runs)
        )

    def targets(
        self,
        select: Selector,
        rule_id: str,
        side: Side,
        kind: Literal["rule", "unless"] = "rule",
        outer: Target = ANYTHING,
    ) -> list[Target]:
        """The targets of `select` that match the call, the most specific first; `outer` where it has none."""
        if select.tools is None and select.matches is None:
            return [outer]
        lenient = side in ("deny", "guard")
        hits: list[Hit] = []
        if select.tools is not None:
            hits += [hit for hit in self.tool_hits if hit.target.name in select.tools]
        if select.matches is not None:
            hits += self.rule_hits.get((kind, rule_id), ())
        return [
            Target({**outer.bindings, **hit.bindings} if outer.bindings else hit.bindings, hit.pattern)
            for hit in hits
            if (lenient or not hit.only_denies) and self.fits(hit, side)
        ]

    def misses(self, rule: Rule, side: Literal["allow", "deny", "guard"]) -> tuple[Miss, ...] | None:
        """Why `rule` does not apply for `side`, nothing when it does; None when none of its targets matches."""
        select = rule.select
        targets = self.targets(select, rule.id, side)
        if not targets:
            return None
        found: list[Miss] = []
        if select.agents is not None and not any(glob_fits(glob, self.call.agent) for glob in select.agents):
            found.append(Miss("agent", self.call.agent or "absent", f"in {json.dumps(select.agents)}"))
        if select.runs is not None and not any(glob_fits(glob, self.call.run) for glob in select.runs):
            found.append(Miss("run", self.call.run or "absent", f"in {json.dumps(select.runs)}"))
        if select.during is not None and not select.during.holds(self.now_ns):
            found.append(Miss("", "", "this is outside the times of its `during`"))
        if select.after is not None and not self.follows(select.after, side):
            found.append(Miss("", "", f"this run has not called {listing(sorted(select.after)[:SHOWN])} before"))
        if select.where is not None:
            each = [select.where.misses(self.reader(target.bindings), side) for target in targets]
            fewest = min(each, key=len)
            found += fewest
        if not found and self.applies(rule, side) is None:
            found.append(Miss("", "", "its `unless` holds"))
        return tuple(found)

    def fits(self, hit: Hit, side: Side) -> bool:
        """Does the discriminator behind `hit`, if it has one, hold?"""
        return self._holds(self._match(hit), hit.bindings, side)

    def unasked(self, hit: Hit) -> str:
        """The word (`mcp`, `graphql`) by which the match behind `hit` speaks of another message; empty if by none."""
        says = self._match(hit).says
        return says.text.partition(":")[0] if says is not None and not self._asks(says) else ""

    def _match(self, hit: Hit) -> Match:
        target = hit.target
        if target.kind == "tool":
            return self.ruleset.tools[target.name].matches[target.nth]
        rule = self.ruleset.by_id[target.name]
        select = rule.select if target.kind == "rule" else rule.unless
        assert select is not None and select.matches is not None
        return select.matches[target.nth]

    def _holds(self, match: Match, bindings: Bindings, side: Side) -> bool:
        """Does what `match` says beside its pattern hold? What cannot be told holds where a call is to be refused."""
        if match.says is not None:
            fits = self._asks(match.says)
            if not (side in ("deny", "guard") if fits is None else fits):
                return False
        return match.where is None or match.where.holds(self.reader(bindings), side)

    def _asks(self, says: Says) -> bool | None:
        """Does the call ask for what `says` says? Told once."""
        if says not in self._said:
            self._said[says] = says.fits(self._asking)
            if "message" not in self.facts:
                self.facts["message"] = shown_message(self.call)
        return self._said[says]


def writes(tool: Tool | None, call: Call) -> bool:
    """Does such a call write? As its tool says, else by its method; nobody knows what is said in a WebSocket."""
    if tool is not None and tool.effect is not None:
        return tool.effect == "write"
    return call.method not in READ_METHODS or call.scheme in PLAIN
