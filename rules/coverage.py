"""Coverage: which sides of each rule the tests in rule files have seen.

A rule has up to two sides. It lets a call through: an allow holds and a guard agrees, and the call goes out; a deny is
not for this call, though the call is one of its tool or pattern. It refuses: a deny applies, a guard refuses, holds the
call for a person or answers in the API's place, an allow does not hold for a call of its tool or pattern. A rule that
only watches refuses where it would.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from rules.cases import Case, Played, play
from rules.explain import explain
from rules.ruleset import Rule, RuleSet


class Seen(msgspec.Struct, frozen=True):
    """How many calls of the tests a rule has let through and refused; None for a side that it does not have."""

    rule: str
    source: str
    lets: int | None
    refuses: int | None

    @property
    def complete(self) -> bool:
        """Has every side that it has been seen?"""
        return self.lets != 0 and self.refuses != 0

    @property
    def never(self) -> bool:
        """Was no call ever about it?"""
        return not self.lets and not self.refuses


def seen(ruleset: RuleSet, cases: Iterable[Case]) -> tuple[Seen, ...]:
    """What `cases` have seen of every rule, in the order of their ids."""
    lets = dict.fromkeys(ruleset.by_id, 0)
    refuses = dict.fromkeys(ruleset.by_id, 0)
    for case in cases:
        for played in play(ruleset, case):
            _count(ruleset, played, lets, refuses)
    return tuple(
        Seen(
            rule.id,
            rule.source,
            lets[rule.id] if rule.deny is None or _narrowed(rule) else None,
            refuses[rule.id] if rule.deny is not None or rule.guards or _narrowed(rule) else None,
        )
        for rule in ruleset.rules
    )


def _count(ruleset: RuleSet, played: Played, lets: dict[str, int], refuses: dict[str, int]) -> None:
    """The sides of every rule that one call shows."""
    decision = played.decision
    told = {violation.rule for violation in (*decision.violations, *decision.would)}
    if decision.action in ("replay", "hold"):
        told.update(decision.rules)
    for each in explain(ruleset, played.state, played.call, played.at_ns).rules:
        rule = ruleset.by_id[each.id]
        if not each.near:
            continue
        if rule.deny is not None:
            (refuses if each.applies else lets)[rule.id] += 1
        elif rule.id in told or (rule.allow and not each.applies):
            refuses[rule.id] += 1
        elif each.applies and decision.action == "allow":
            lets[rule.id] += 1


def _narrowed(rule: Rule) -> bool:
    """Is it for some calls of its tool or pattern only?"""
    select = rule.select
    parts = (select.agents, select.runs, select.where, select.during, select.after, rule.unless)
    return any(part is not None for part in parts)
