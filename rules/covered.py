"""Which calls some rules are about, as far as that can be told without a call.

Calls are known by the tool or the host that a rule names, and by its agents and runs. A rule that a condition, the
time, the past or an exception narrows further is about fewer calls than can be told, so it counts for none.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import product

import msgspec

from rules.ruleset import Match, Rule


class _Calls(msgspec.Struct):
    """Tools by name, other calls by their host, or everything."""

    everything: bool = False
    tools: set[str] = msgspec.field(default_factory=set)
    hosts: set[str] = msgspec.field(default_factory=set)


class Covered:
    """The calls that rules are about, by what kind of thing they say of them."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Calls] = {}

    def put(self, kind: Hashable, rule: Rule) -> None:
        """`rule` says something of `kind`."""
        select = rule.select
        if any(each is not None for each in (select.where, select.during, select.after, rule.unless)):
            return
        calls = self._calls.setdefault((kind, select.agents, select.runs), _Calls())
        calls.everything |= select.tools is None and select.matches is None
        calls.tools |= select.tools or set()
        calls.hosts |= {match.pattern.host for match in select.matches or ()}

    def tool(self, kind: Hashable, rule: Rule, name: str, matches: tuple[Match, ...]) -> bool:
        """Is of `kind` what is said of every call of the tool `name` that `rule` is about?"""
        here = self._here(kind, rule)
        named = any(calls.everything or name in calls.tools for calls in here)
        return named or all(self.match(kind, rule, match) for match in matches)

    def match(self, kind: Hashable, rule: Rule, match: Match) -> bool:
        """The same of the calls that `match` matches, told by their host alone."""
        return any(
            calls.everything or match.pattern.host in calls.hosts or "**" in calls.hosts
            for calls in self._here(kind, rule)
        )

    def everything(self, kind: Hashable, rule: Rule) -> bool:
        """The same of all calls."""
        return any(calls.everything for calls in self._here(kind, rule))

    def _here(self, kind: Hashable, rule: Rule) -> list[_Calls]:
        """What rules say that are about the agents and runs of `rule`, or about all."""
        who = product({None, rule.select.agents}, {None, rule.select.runs})
        return [self._calls[key] for agents, runs in who if (key := (kind, agents, runs)) in self._calls]
