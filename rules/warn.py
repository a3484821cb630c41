"""What is legal in rule files and yet probably not meant. Few, so that each is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rules.contradictions import contradictions, never
from rules.covered import Covered
from rules.earlier import AsksEarlier, parts
from rules.fields import Field
from rules.guards import LIMITING
from rules.guards.budget import Budget
from rules.guards.dedupe import Dedupe
from rules.guards.measures import OfField
from rules.guards.throttle import EXACT, Throttle
from rules.pattern import Pattern
from rules.problems import Mark, Problem
from rules.ruleset import READ_METHODS, Match, Rule, Selector, Tool
from rules.suggest import listing, nearest
from rules.where import Condition
from rules.yamltree import Node

type Written = Sequence[tuple[Rule, Node]]
"""Every rule with the node that says it."""


SHOWN = 3
"""Of the tools that a warning is about, so many are named."""


def warn(rules: Written, tools: Mapping[str, Tool], places: Mapping[str, Node]) -> tuple[Problem, ...]:
    """The warnings about `rules` and `tools`, in the order of their places. `places`: where the tools are named."""
    limited = _limited(rule for rule, _ in rules)
    allowed = _Allowed([rule for rule, _ in rules], tools)
    denied = {name: rule.id for rule, _ in rules if rule.deny is not None for name in _all_of(rule)}
    found: list[Problem] = []
    for rule, node in rules:
        if rule.allow and rule.mode == "enforce":
            found.extend(_writes(rule, node, tools, limited))
        found.extend(_dedupe(rule, node, tools))
        found.extend(_retries(rule, node, tools))
        found.extend(_throttle(rule, node))
        found.extend(_require(rule, node, tools, allowed))
        found.extend(_keys(rule, node, tools, limited))
        found.extend(_amounts(rule, node, tools))
        found.extend(_unreachable(rule, node, tools, allowed, denied))
        found.extend(_unnamed(rule, node, tools))
        found.extend(_contradictions(rule, node, tools))
    for tool in tools.values():
        found.extend(_contradictions_of_tool(tool, places[tool.name]))
    return tuple(sorted(found, key=lambda problem: (problem.mark.file, problem.mark.line, problem.mark.col)))


_METHODS = ("POST", "PUT", "PATCH", "DELETE")


def _limited(rules: Iterable[Rule]) -> Covered:
    """What rules in force limit, by what they limit: how often calls are made, or those by a method are repeated; and
    what counts them by nothing that the agent chooses."""
    limited = Covered()
    for rule in rules:
        for guard in rule.guards if rule.mode == "enforce" else ():
            if isinstance(guard, LIMITING):
                limited.put("often", rule)
            for method in _METHODS:
                if guard.claims(method, True):
                    limited.put(method, rule)
            if isinstance(guard, Throttle | Budget) and not _chosen(guard):
                limited.put(_counting(guard), rule)
    return limited


def _chosen(guard: Throttle | Budget) -> list[Field]:
    """The fields that it counts by and that the agent chooses."""
    return [field for field in guard.by if field.place in ("path", "query", "header", "body", "args")]


def _counting(guard: Throttle | Budget) -> str:
    return f"{guard.verb} {guard.measure.text}" if isinstance(guard, Budget) else guard.verb


class _Allowed:
    """What some allow permits: tools by name, and patterns, which other tools may share calls with."""

    def __init__(self, rules: Sequence[Rule], tools: Mapping[str, Tool]) -> None:
        selects = [rule.select for rule in rules if rule.allow and rule.mode == "enforce"]
        self.tools = frozenset[str]().union(*(select.tools or () for select in selects))
        matches = [match for select in selects for match in select.matches or ()]
        self.patterns = [m.pattern for m in (*matches, *(m for name in self.tools for m in tools[name].matches))]

    def may_be(self, tool: Tool) -> bool:
        """May a call of `tool` be permitted? In doubt it may: paths are not compared."""
        return tool.name in self.tools or any(_may_meet(m.pattern, one) for m in tool.matches for one in self.patterns)


def _may_meet(one: Pattern, other: Pattern) -> bool:
    if one.scheme != other.scheme or (one.methods and other.methods and not set(one.methods) & set(other.methods)):
        return False
    return one.fits_host(other.host) or other.fits_host(one.host) or not (one.exact_host or other.exact_host)


def _require(rule: Rule, node: Node, tools: Mapping[str, Tool], allowed: _Allowed) -> Iterator[Problem]:
    """A `require` that nothing can meet."""
    mark = _mark(node, "require")
    for guard in rule.guards:
        for earlier in guard.earlier if isinstance(guard, AsksEarlier) else ():
            shown = listing(sorted(earlier.tools)[:SHOWN])
            if not any(allowed.may_be(tools[name]) for name in earlier.tools):
                message = f"nothing can meet the `require` of `{rule.id}`: no rule allows {shown}"
                yield Problem("unmet-require", message, mark, "allow it, or remove the `require`")
            elif _all_of(rule) >= earlier.tools:
                message = f"nothing can meet the `require` of `{rule.id}`: {shown} would have to come before itself"
                yield Problem("unmet-require", message, mark, "require another tool, or narrow the rule by `where`")


def _all_of(rule: Rule) -> frozenset[str]:
    """The tools of which every call is under `rule`."""
    select = rule.select
    narrowed = (select.agents, select.runs, select.where, select.during, select.after, rule.unless)
    enforced = rule.mode == "enforce" and all(each is None for each in narrowed)
    return (select.tools or frozenset()) if enforced else frozenset()


def _writes(rule: Rule, node: Node, tools: Mapping[str, Tool], limited: Covered) -> Iterator[Problem]:
    """Writes that may be repeated without end."""
    if any(isinstance(guard, (*LIMITING, Dedupe)) for guard in rule.guards):
        return  # a dedupe that covers none of its calls has a warning of its own
    mark = (node.get("allow") or node).mark
    loose = [match for match in rule.select.matches or () if match.may_write]
    names = [name for name in sorted(rule.select.tools or ()) if tools[name].may_write]
    everywhere = [match for match in (*loose, *(m for n in names for m in tools[n].matches)) if _anywhere(match)]
    if everywhere and rule.select.where is None:
        message = f"`{rule.id}` allows writes to every host: `{everywhere[0].pattern}`"
        yield Problem("broad-allow", message, mark, "name the hosts, or the methods GET and HEAD; or add a guard")
        return
    loose = [match for match in loose if not any(limited.match(kind, rule, match) for kind in _kinds([match]))]
    names = [
        name
        for name in names
        if not any(limited.tool(kind, rule, name, tools[name].matches) for kind in _kinds(tools[name].matches))
    ]
    if loose or names:
        shown = listing([*names[:SHOWN]] or [str(loose[0].pattern)], "and")
        if len(names) > SHOWN:
            shown = f"{', '.join(f'`{name}`' for name in names[:SHOWN])} and {len(names) - SHOWN} more tools"
        message = f"`{rule.id}` allows writes that nothing limits: {shown}"
        mend = "add `dedupe: 24h` or `throttle: 10/min`; a tool that only reads says `effect: read`"
        yield Problem("unlimited-writes", message, mark, mend)


def _kinds(matches: Sequence[Match]) -> Iterator[str]:
    """Any of these limits is one of calls that match; where any method will do, POST stands for it."""
    yield "often"
    yield from dict.fromkeys(method for match in matches for method in match.pattern.methods or ("POST",))


def _dedupe(rule: Rule, node: Node, tools: Mapping[str, Tool]) -> Iterator[Problem]:
    """A dedupe that covers none of the calls that its rule is for."""
    for guard in rule.guards:
        calls = list(_calls(rule, tools))
        if guard.verb != "dedupe" or not calls or any(guard.claims(method, writes) for method, writes in calls):
            continue
        if any(writes for _, writes in calls):
            said = listing(sorted({method for method, writes in calls if writes}), "and")
            message = f"`dedupe` of `{rule.id}` covers none of its calls: POST only, unless it says `methods`"
            methods = ", ".join(sorted({method for method, writes in calls if writes}))
            mend = f"its calls write by {said}: add `methods: [{methods}]`"
        else:
            message = f"`dedupe` of `{rule.id}` covers none of its calls: they only read"
            mend = "remove it, or say `effect: write` for the tool"
        yield Problem("idle-dedupe", message, _mark(node, "dedupe"), mend)


def _retries(rule: Rule, node: Node, tools: Mapping[str, Tool]) -> Iterator[Problem]:
    """A retry under the first key, of calls that have none."""
    for guard in rule.guards:
        if not isinstance(guard, Dedupe) or guard.on_unknown != "keyed" or rule.select.tools is None:
            continue
        if not any(tools[name].upstream_key for name in rule.select.tools):
            message = f"`on_unknown: keyed` of `{rule.id}` can retry nothing: its tools have no `upstream_key`"
            mend = "say `upstream_key: Idempotency-Key` for the tool, if its API knows one; else `on_unknown: block`"
            yield Problem("keyless-retry", message, _mark(node, "dedupe"), mend)


def _throttle(rule: Rule, node: Node) -> Iterator[Problem]:
    for guard in rule.guards:
        if not isinstance(guard, Throttle):
            continue
        if not guard.rate.burst and guard.rate.quota > EXACT:
            message = f"above {EXACT} calls a window, `throttle` counts in slices of the window"
            mend = "it never lets more through than it says, but a place becomes free up to 1 % of the window late"
            yield Problem("approximate-rate", message, _mark(node, "throttle"), mend)


def _unreachable(
    rule: Rule, node: Node, tools: Mapping[str, Tool], allowed: _Allowed, denied: Mapping[str, str]
) -> Iterator[Problem]:
    """A rule that no call ever comes to. `denied`: tools of which every call is denied, and by which rule."""
    names = sorted(rule.select.tools or ())
    if not names or rule.deny is not None:
        return
    if all(name in denied for name in names):
        message = f"`{rule.id}` never counts: `{denied[names[0]]}` denies every call of {listing(names[:SHOWN], 'and')}"
        yield Problem("unreachable-rule", message, node.mark, "remove it, or give the deny an `unless`")
    elif rule.guards and not any(allowed.may_be(tools[name]) for name in names):
        message = f"`{rule.id}` never counts: no rule allows {listing(names[:SHOWN])}"
        yield Problem("unreachable-rule", message, node.mark, "add `allow: true` to it, or allow the calls elsewhere")


_PARAMETER = re.compile(r"(?:^|\|\s*)(query|body|args)\.([A-Za-z0-9_$@-]+)(?=[.\[|\s]|$)")
_LISTS_FIELDS = ("by", "key", "ignore", "sum")


def _unnamed(rule: Rule, node: Node, tools: Mapping[str, Tool]) -> Iterator[Problem]:
    """A condition or a key that reads a parameter which the `params` of every tool of the rule refuse."""
    contracts = [tools[name].params for name in sorted(rule.select.tools or ())]
    told: set[str] = set()
    for text in _fields_of(rule, node):
        for place, name in _PARAMETER.findall(str(text.scalar)) if contracts else ():
            if f"{place}.{name}" in told or not all(
                each is not None and each.refuses(place, name) for each in contracts
            ):
                continue
            told.add(f"{place}.{name}")
            places = [where for each in contracts if each is not None for where in each.places if where.name == place]
            known = [name for where in places for name in where.names]
            message = f"`{place}.{name}` is never there: the `params` of {_shown_tools(rule)} refuse it"
            near = nearest(name, known)
            otherwise = f"name it under `params`, or do not speak of it in `{rule.id}`"
            mend = f"did you mean `{place}.{near}`?" if near else otherwise
            yield Problem("unnamed-field", message, text.mark, mend)


def _shown_tools(rule: Rule) -> str:
    return listing(sorted(rule.select.tools or ())[:SHOWN], "and")


def _fields_of(rule: Rule, node: Node) -> Iterator[Node]:
    """The fields of its calls that the conditions and guards of a rule name."""
    where = node.get("where")
    yield from _keys_inside(where) if where is not None else ()
    for guard in rule.guards:
        said = node.get(guard.verb)
        for key in _LISTS_FIELDS:
            value = said.get(key) if said is not None else None
            yield from (value.items or (value,)) if value is not None else ()
        for part in parts(said) if said is not None and isinstance(guard, AsksEarlier) else ():
            same = part.get("same")
            yield from (here for here, _ in same.entries) if same is not None else ()


def _keys_inside(node: Node) -> Iterator[Node]:
    for key, value in node.entries:
        yield key
        yield from _keys_inside(value)
    for item in node.items:
        yield from _keys_inside(item)


def _keys(rule: Rule, node: Node, tools: Mapping[str, Tool], limited: Covered) -> Iterator[Problem]:
    """Limits that the agent gets anew with every value that it chooses, and no other beside them that it does not."""
    for guard in rule.guards:
        if not isinstance(guard, Throttle | Budget) or not (chosen := _chosen(guard)):
            continue
        kind = _counting(guard)
        of_tools = all(limited.tool(kind, rule, name, tools[name].matches) for name in rule.select.tools or ())
        of_others = all(limited.match(kind, rule, match) for match in rule.select.matches or ())
        named = rule.select.tools is not None or rule.select.matches is not None
        if of_tools and of_others and (named or limited.everything(kind, rule)):
            continue
        anew = "quota" if isinstance(guard, Throttle) else "budget"
        message = f"the agent chooses `{chosen[0]}`: with a new value it has a new {anew}"
        mend = f"let another rule put a {guard.verb} on the same calls `by: agent`, or by nothing"
        yield Problem("chosen-key", message, _mark(node, guard.verb), mend)


def _contradictions(rule: Rule, node: Node, tools: Mapping[str, Tool]) -> Iterator[Problem]:
    """Conditions of a rule that no call meets."""
    for select, said, strict in ((rule.select, node, rule.allow), (rule.unless, node.get("unless"), True)):
        if select is None or said is None:
            continue
        for match in select.matches or ():
            yield from _unmet_match(match, f"`{rule.id}` is about no call", said.get("match") or said, strict)
        where = said.get("where")
        if where is None or select.where is None:
            continue
        yield from _unmet(select.where, where, strict)
        matches = _matches(select, tools) or _matches(rule.select, tools)
        found = never(select.where, matches, select.agents or rule.select.agents)
        if found is not None:
            name, values = found
            message = f"`where` never holds: `{name}` is {listing(values[:SHOWN])} in the calls of `{rule.id}`"
            yield Problem("contradiction", message, where.mark, f"remove `{name}`, or change what the rule is for")


def _contradictions_of_tool(tool: Tool, place: Node) -> Iterator[Problem]:
    for match in tool.matches:
        yield from _unmet_match(match, f"`{tool.name}` names no call", place, True)


def _unmet_match(match: Match, what: str, place: Node, strict: bool) -> Iterator[Problem]:
    if match.where is None:
        return
    yield from _unmet(match.where, place, strict)
    found = never(match.where, [match], None)
    if found is not None:
        message = f"{what}: `{found[0]}` is {listing(found[1])} where its pattern matches"
        yield Problem("contradiction", message, place.mark, f"remove `{found[0]}`, or change the pattern")


def _unmet(condition: Condition, place: Node, strict: bool) -> Iterator[Problem]:
    for field, one, other in contradictions(condition, strict):
        message = f"no value of `{field}` is `{one}` and also `{other}`"
        yield Problem("contradiction", message, place.mark, "change one of them; with `any`, either is enough")


def _matches(select: Selector, tools: Mapping[str, Tool]) -> list[Match]:
    """Everything that the calls of `select` may match."""
    return [*(select.matches or ()), *(match for name in sorted(select.tools or ()) for match in tools[name].matches)]


def _amounts(rule: Rule, node: Node, tools: Mapping[str, Tool]) -> Iterator[Problem]:
    """Budgets of parameters that calls may leave out: those are refused. (`_unnamed` tells of what `params` refuse.)"""
    for guard in rule.guards:
        if not isinstance(guard, Budget) or not isinstance(guard.measure, OfField):
            continue
        field = guard.measure.field
        for name in sorted(rule.select.tools or ()):
            contract = tools[name].params
            places = contract.places if contract is not None else ()
            place = next((each for each in places if each.name == field.place), None)
            first = field.steps[0] if field.steps else None
            if place is not None and first in place.names and first not in _required(place.schema):
                message = f"calls of `{name}` may leave out `{field}`, which `budget` counts: those are refused"
                mend = f"say `required: true` for `{first}` in the `params` of `{name}`"
                yield Problem("optional-amount", message, _mark(node, "budget"), mend)


def _required(schema: Mapping[str, Any]) -> set[object]:
    """The parameters that have to be there, whatever else is."""
    return {*schema.get("required", ()), *(name for part in schema.get("allOf", ()) for name in _required(part))}


def _mark(node: Node, verb: str) -> Mark:
    return (node.get(verb) or node).mark


def _calls(rule: Rule, tools: Mapping[str, Tool]) -> Iterator[tuple[str, bool]]:
    """(method, whether it writes) of every call that the rule is for; where any method will do, POST stands for it."""
    for match in rule.select.matches or ():
        for method in match.pattern.methods or ("POST",):
            yield method, method not in READ_METHODS
    for name in sorted(rule.select.tools or ()):
        for match in tools[name].matches:
            for method in match.pattern.methods or ("POST",):
                yield (
                    method,
                    tools[name].effect == "write" or (tools[name].effect is None and method not in READ_METHODS),
                )


def _anywhere(match: Match) -> bool:
    return match.pattern.host == "**" and match.may_write
