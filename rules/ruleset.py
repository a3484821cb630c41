"""The rule set: what rule files mean after loading. Frozen; `rules.load` makes it, `rules.decide` reads it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import msgspec

from rules.during import During
from rules.earlier import AsksEarlier, Earlier
from rules.expect import Expect
from rules.guard import Guard
from rules.index import Index
from rules.params.contract import Contract
from rules.pattern import PLAIN, Pattern
from rules.protocols.says import PLAIN_RANK, Says
from rules.upstream_key import UpstreamKey
from rules.where import Condition

type Mode = Literal["enforce", "monitor"]
type Effect = Literal["read", "write"]
type DeclaredBody = Literal["json", "form", "multipart", "text", "none"]

BODY_CAP_BYTES = 16 * 1024 * 1024
"""A body that a decision needs is buffered up to this size unless its tool says `cap`."""

READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Calls by these methods only read, unless their tool says otherwise. All others write."""


class Match(msgspec.Struct, frozen=True):
    """One way for a call to match: a pattern, perhaps what its message says, and a condition on query, header or body.

    `telling`: the headers that the condition reads, as far as they may say what a call is. `narrows`: there is more to
    it than the pattern.
    """

    pattern: Pattern
    where: Condition | None = None
    says: Says | None = None
    telling: tuple[str, ...] = ()

    @property
    def narrows(self) -> bool:
        return self.where is not None or self.says is not None

    @property
    def shown(self) -> str:
        """How a call that matches is made, as a rule file says it."""
        says = f" ({self.says.text})" if self.says is not None else ""
        return f"{self.pattern}{says}{f' where {self.where.describe()}' if self.where is not None else ''}"

    @property
    def rank(self) -> tuple[object, ...]:
        """Of two whose patterns are equally specific, the one with the lesser value names a call."""
        return (self.says.rank if self.says is not None else PLAIN_RANK, self.where is None)

    @property
    def may_write(self) -> bool:
        """Whether some method of its pattern writes, or it is one of WebSockets."""
        pattern = self.pattern
        return not pattern.methods or pattern.scheme in PLAIN or not READ_METHODS.issuperset(pattern.methods)


class Tool(msgspec.Struct, frozen=True):
    """What an API operation is. `effect` and `body` are None where the file leaves them to the call.

    `credential`: the field that holds the secret, such as `header.x-api-key`; empty for the usual places.
    `refusal`: the dialect that its clients want refusals in; empty where the call tells.
    `upstream_key`: the field by which the API itself knows a repetition, or None.
    `expect`: what an answer is that means success, or None. `polling`: it is there to be asked again and again.
    `params`: what its calls may say, or None where that is left open. `source`: "file:line" for messages.
    """

    name: str
    matches: tuple[Match, ...]
    effect: Effect | None = None
    body: DeclaredBody | None = None
    credential: str = ""
    cap_bytes: int = BODY_CAP_BYTES
    refusal: str = ""
    upstream_key: UpstreamKey | None = None
    expect: Expect | None = None
    polling: bool = False
    params: Contract | None = None
    source: str = ""

    @property
    def shown(self) -> str:
        """How a call of it is made, as its file says it; of many ways the first two."""
        return " or ".join([match.shown for match in self.matches[:2]] + ["..."] * (len(self.matches) > 2))

    @property
    def keyed_in_body(self) -> bool:
        """Whether its upstream key has to be put into the body."""
        return self.upstream_key is not None and self.upstream_key.place == "body"

    @property
    def may_write(self) -> bool:
        """Whether some call of it writes."""
        return self.effect == "write" or (self.effect is None and any(match.may_write for match in self.matches))


class Selector(msgspec.Struct, frozen=True):
    """Which calls. Every part that is given must hold. `tools` and `after` hold resolved names (globs are
    expanded at load).
    """

    tools: frozenset[str] | None = None
    matches: tuple[Match, ...] | None = None
    agents: tuple[str, ...] | None = None
    runs: tuple[str, ...] | None = None
    where: Condition | None = None
    during: During | None = None
    after: frozenset[str] | None = None


class Rule(msgspec.Struct, frozen=True):
    """What may happen to the calls that its selector picks. `deny` is the reason given, or None.

    `unrecorded`: calls that it allows and that only read may be let out while nothing can be recorded.
    """

    id: str
    select: Selector
    unless: Selector | None = None
    allow: bool = False
    deny: str | None = None
    guards: tuple[Guard, ...] = ()
    mode: Mode = "enforce"
    source: str = ""
    unrecorded: bool = False


class Bounds(msgspec.Struct, frozen=True):
    """What the ledger may hold: `max_bytes` in all, and for `keep_ns` what calls were decided by. 0: all there is."""

    max_bytes: int = 0
    keep_ns: int = 0


class RuleSet(msgspec.Struct, frozen=True, dict=True):
    """Everything in force at one moment.

    `digest`: SHA-256 (hex) over the texts of all files that it was made from, and our version.
    `index`: finds the tools and the rules' own patterns that a call matches. Rules are sorted by id.
    """

    digest: str
    tools: dict[str, Tool]
    rules: tuple[Rule, ...]
    index: Index
    mode: Mode = "enforce"
    ledger: Bounds = Bounds()

    @cached_property
    def by_id(self) -> dict[str, Rule]:
        """Every rule by its id."""
        return {rule.id: rule for rule in self.rules}

    @cached_property
    def in_force(self) -> frozenset[str]:
        """The ids of the rules that stop calls: none in monitor mode."""
        return frozenset(rule.id for rule in self.rules if self.mode == rule.mode == "enforce")

    @cached_property
    def unrecorded(self) -> frozenset[str]:
        """The ids of the rules whose reads may go out while nothing can be recorded."""
        return frozenset(rule.id for rule in self.rules if rule.unrecorded)

    @cached_property
    def asked_after(self) -> frozenset[str]:
        """The tools that some `after` asks for: whether the run has called one of them before."""
        selects = [select for rule in self.rules for select in (rule.select, rule.unless) if select is not None]
        return frozenset[str]().union(*(select.after or () for select in selects))

    @cached_property
    def by_tool(self) -> dict[str, tuple[Rule, ...]]:
        """The rules that select a tool, by its name."""
        found: dict[str, list[Rule]] = {}
        for rule in self.rules:
            for name in rule.select.tools or ():
                found.setdefault(name, []).append(rule)
        return {name: tuple(rules) for name, rules in found.items()}

    @cached_property
    def earlier(self) -> dict[str, tuple[Earlier, ...]]:
        """What guards ask about earlier calls of a tool, by its name."""
        found: dict[str, dict[bytes, Earlier]] = {}
        for guard in [guard for rule in self.rules for guard in rule.guards]:
            for earlier in guard.earlier if isinstance(guard, AsksEarlier) else ():
                for name in earlier.tools:
                    found.setdefault(name, {})[earlier.what] = earlier
        return {name: tuple(asked.values()) for name, asked in found.items()}

    @cached_property
    def plans(self) -> dict[tuple[str, ...], Any]:
        """In which order guards are asked, by the rules that apply: kept here by `rules.deciding`."""
        return {}

    @cached_property
    def everywhere(self) -> tuple[Rule, ...]:
        """The rules with neither tool nor match: every call is in question."""
        return tuple(rule for rule in self.rules if rule.select.tools is None and rule.select.matches is None)
