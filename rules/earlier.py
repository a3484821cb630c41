"""Earlier calls: what a rule asks of the past of a run, and the key under which a call that meets it is remembered.

    {after: charge.read, same: {body.charge: path.charge}}

Two values are the same when they are spelled the same: text as it is, a JSON number by its digits (`5` for 5 and for
5.0), `true` and `false` by their names. So `ch_1` in a path is `ch_1` in a form, and 42 in JSON is `42` in a query;
`042` is not, and neither is what has no one spelling: absent, several, null, an object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Protocol, runtime_checkable

import msgspec

from rules.call import Call
from rules.canonical import canonical_number, frame, text_bytes
from rules.fields import Field, Value
from rules.guard import Guard
from rules.where import Condition
from rules.yamltree import Node


class Earlier(msgspec.Struct, frozen=True, dict=True):
    """So many calls of one of `tools`, completed not longer than `within_ns` ago (0: at any time in this run).

    `after`: the names and globs as the file says them; `tools`: what they mean, and `made` how a call of each is made,
    for those who know URLs only. `same`: (field of the call that is asked about, field of the earlier one) pairs with
    equal values. `answer`: what the earlier one was answered.
    """

    after: tuple[str, ...]
    same: tuple[tuple[Field, Field], ...] = ()
    within_ns: int = 0
    count: int = 1
    answer: Condition | None = None
    tools: frozenset[str] = frozenset()
    made: tuple[tuple[str, str], ...] = ()

    @property
    def reads_body(self) -> bool:
        """Does it compare with the body of the earlier call?"""
        return any(there.needs_body for _, there in self.same)

    @property
    def reads_answer(self) -> bool:
        """Does it look into the body of the answer to the earlier call?"""
        return self.answer is not None and any(field.needs_body for field in self.answer.fields)

    @property
    def any_status(self) -> bool:
        """Does its condition say which status counts? Else only success does."""
        return self.answer is not None and any(field.place == "status" for field in self.answer.fields)

    @cached_property
    def what(self) -> bytes:
        """What is remembered of an earlier call for it. How many, how long ago, for which rule: no part of it."""
        answered = text_bytes(self.answer.describe()) if self.answer is not None else b""
        return frame(answered, *[text_bytes(there.text) for _, there in self.same])

    def key(self, call: Call, tool: str, values: Sequence[str]) -> str:
        """Under this (hex) a call of `tool` with these values of the earlier fields is remembered, by who made it."""
        who = _who(call.agent, call.run, tool)
        return sha256(who + frame(self.what, frame(*map(text_bytes, values)))).hexdigest()[:32]


REMEMBERED = 1_000


@lru_cache(REMEMBERED)
def _who(agent: str, run: str, tool: str) -> bytes:
    """Framed, how the bytes behind every key begin."""
    return frame(b"earlier", text_bytes(agent), text_bytes(run), text_bytes(tool))


@runtime_checkable
class AsksEarlier(Guard, Protocol):
    """A guard that asks about earlier calls: these are remembered for it."""

    earlier: tuple[Earlier, ...]

    def knowing(self, tools: Sequence[Mapping[str, str]]) -> Guard:
        """The same guard, where `tools` are those that the names under each `after` mean, and how a call is made."""


def parts(node: Node) -> tuple[Node, ...]:
    """What such a guard asks for, one by one, as a file says it."""
    return node.items if node.kind == "list" else (node,)


def spelled(value: Value) -> str | None:
    """How `value` is spelled; None when it has no one spelling."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return canonical_number(value)
    return str(value) if isinstance(value, str) else None
