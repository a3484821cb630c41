"""require: first this, then that. A call is refused until its run has completed certain others.

    require: {after: stripe.charge.read, same: {body.charge: path.charge}, within: 30m}

What counts is what this run (and agent) has done, on record: calls that were completed with success, or whose answer
fits `answer`. When an earlier call comes to its end, it is remembered for the rules of that moment (`rules.remember`);
what is not remembered any more has to be done again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from rules.answers import parse_answer_where
from rules.call import Call
from rules.decision import Change
from rules.earlier import Earlier, parts, spelled
from rules.fields import Field, parse_field
from rules.guard import Pass, Refuse, Settled, Verdict, View
from rules.guards.history import TIMES_OF_ONE, past_of
from rules.guards.reading import DURATION_SCHEMA, read_duration, read_map
from rules.state import State
from rules.suggest import listing
from rules.units import show_duration
from rules.yamltree import Node

KEYS = ("after", "same", "within", "count", "answer")
SHOWN = 3
"""Of the tools that would do, so many are named in a refusal."""

SHOWN_LENGTH = 200
"""A longer way to make a call is cut in a refusal."""

SHOWN_SIGNS = 100
"""Longer values are cut in a refusal."""

_TEXTS: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_ONE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "after": {**_TEXTS, "description": "What has to be called first: a tool, a glob, or a list: one of these."},
        "same": {
            "description": "Fields of this call, each with the field of the earlier call that has to be equal.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": "string"},
        },
        "within": {**DURATION_SCHEMA, "description": "How long an earlier call counts. Default: as long as the run."},
        "count": {
            "description": "So many earlier calls. Default: 1.",
            "type": "integer",
            "minimum": 1,
            "maximum": TIMES_OF_ONE,
        },
        "answer": {
            "description": "A condition on the answer to the earlier call, such as {body.paid: true}. Default: 2xx.",
            "type": "object",
            "minProperties": 1,
        },
    },
    "required": ["after"],
}


class Require(msgspec.Struct, frozen=True):
    """The guard: every one of `earlier` has to have come before."""

    verb: ClassVar[str] = "require"
    stage: ClassVar[int] = 4
    SCHEMA: ClassVar[dict[str, Any]] = {
        "description": "What this run has to have done before: a tool, a mapping with `after`, or a list: all of them.",
        "anyOf": [
            {"type": "string"},
            _ONE,
            {"type": "array", "items": {"anyOf": [{"type": "string"}, _ONE]}, "minItems": 1},
        ],
    }

    rule: str
    earlier: tuple[Earlier, ...]

    @classmethod
    def parse(cls, node: Node, rule_id: str) -> Require:
        """A tool, the long form, or a list of these. What the tools are is not known here (`knowing`)."""
        if node.kind == "list" and not node.items:
            node.fail("empty", "`require` asks for nothing", "name the tool that has to be called first")
        return cls(rule_id, tuple(map(_earlier, parts(node))))

    def knowing(self, tools: Sequence[Mapping[str, str]]) -> Require:
        """The same, with what the names under each `after` mean."""
        known = [
            msgspec.structs.replace(one, tools=frozenset(made), made=tuple(sorted(made.items())))
            for one, made in zip(self.earlier, tools, strict=True)
        ]
        return Require(self.rule, tuple(known))

    def needs_body(self, call: Call, writes: bool) -> bool:
        return any(here.needs_body for earlier in self.earlier for here, _ in earlier.same)

    def claims(self, method: str, writes: bool) -> bool:
        return False

    def needs_answer(self, messages: bool) -> bool:
        """Not that of the calls that it guards: for the earlier ones see `RuleSet.earlier`."""
        return False

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        past = past_of(state, view.call.run, view.call_id)
        steps: list[str] = []
        first: Refuse | None = None
        for earlier in self.earlier:
            values = [spelled(view.read(here)) for here, _ in earlier.same]
            known = [value for value in values if value is not None]
            if len(known) < len(values):
                field = earlier.same[values.index(None)][0]
                first = first or _unreadable(field)
                steps.append(f"Give `{field}` one plain value.")
                continue
            times = past.met([earlier.key(view.call, tool, known) for tool in earlier.tools])
            fresh = [at_ns for at_ns in times if not earlier.within_ns or now_ns < at_ns + earlier.within_ns]
            if len(fresh) < earlier.count:
                first = first or _missing(earlier, known, len(fresh), len(times))
                steps.append(_step(earlier, known, earlier.count - len(fresh)))
        if first is None:
            return Pass()
        return msgspec.structs.replace(first, next=(*steps, "Then repeat this call."))

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        return ()


def _earlier(node: Node) -> Earlier:
    if node.kind != "map":
        return Earlier(_after(node))
    entries = read_map(node, "require", KEYS)
    if "after" not in entries:
        node.fail("missing-key", "`require` does not say after what", "add `after: TOOL`, what has to be called first")
    given: dict[str, Any] = {}
    if "same" in entries:
        given["same"] = _same(entries["same"])
    if "within" in entries:
        given["within_ns"] = read_duration(entries["within"], "within")
    if "count" in entries:
        count = entries["count"].scalar
        if type(count) is not int or not 0 < count <= TIMES_OF_ONE:
            entries["count"].fail(
                "require", f"`count` is no whole number from 1 to {TIMES_OF_ONE}", "write such as `2`"
            )
        given["count"] = count
    if "answer" in entries:
        given["answer"] = parse_answer_where(entries["answer"])
    return Earlier(_after(entries["after"]), **given)


def _after(node: Node) -> tuple[str, ...]:
    items = node.items if node.kind == "list" else (node,)
    if not items:
        node.fail("empty", "`after` names no tool", "name the tool that has to be called first")
    for item in items:
        if not isinstance(item.scalar, str) or not item.scalar.strip():
            item.fail("wrong-type", "`after` names tools", "write the name of a tool, or a glob such as `stripe.*`")
    return tuple(str(item.scalar) for item in items)


def _same(node: Node) -> tuple[tuple[Field, Field], ...]:
    if node.kind != "map" or not node.entries:
        node.fail("require", "`same` pairs fields", "write `{FIELD OF THIS CALL: FIELD OF THE EARLIER ONE}`")
    pairs: list[tuple[Field, Field]] = []
    for here, there in node.entries:
        if not isinstance(there.scalar, str):
            there.fail("require", f"`{here.scalar}` is paired with no field", "write a field such as `path.charge`")
        pairs.append((parse_field(str(here.scalar), here), parse_field(there.scalar, there)))
    return tuple(pairs)


def _missing(earlier: Earlier, values: list[str], fresh: int, ever: int) -> Refuse:
    what = _call(earlier, values)
    if fresh:
        detail = f"This has to come after {earlier.count} completed calls of {what}, and there are {fresh}."
    elif ever:
        limit = show_duration(earlier.within_ns)
        detail = f"This has to come within {limit} after a completed call of {what}, and the last one is older."
    else:
        detail = f"This has to come after a completed call of {what}, and this run has made none."
    field = earlier.same[0][0].text if earlier.same else ""
    return Refuse(
        "prerequisite-missing", f"{detail} Nothing was executed.", field=field, limit=f"after {_tools(earlier)}"
    )


def _unreadable(field: Field) -> Refuse:
    return Refuse(
        "prerequisite-missing",
        f"Which earlier call has to come before this is told by `{field}`, and it has no one value. "
        "Nothing was executed.",
        field=field.text,
    )


def _step(earlier: Earlier, values: list[str], count: int) -> str:
    often = f" {count} times" if count > 1 else ""
    answered = f"; its answer has to be: {earlier.answer.describe()}" if earlier.answer is not None else ""
    return f"First call {_call(earlier, values)}{often}{answered}."


def _call(earlier: Earlier, values: list[str]) -> str:
    """What has to be called, by name and by URL, and the values that have to be equal."""
    pairs = list(zip((there for _, there in earlier.same), values, strict=True))
    made = [f"`{name}` ({_made(how, pairs)})" if how else f"`{name}`" for name, how in earlier.made]
    what = " or ".join(made) if len(made) <= SHOWN else f"{_tools(earlier)}, such as {made[0]}"
    equal = " and ".join(f"{there} {_shown(value)}" for there, value in pairs)
    return f"{what} with {equal}" if equal else what


def _made(how: str, pairs: Sequence[tuple[Field, str]]) -> str:
    """How such a call is made, with the values in its path that are known."""
    for there, value in pairs:
        if there.place == "path" and _PLAIN.fullmatch(value):
            how = how.replace(f"{{{there.steps[0]}}}", value)
    return how if len(how) <= SHOWN_LENGTH else f"{how[: SHOWN_LENGTH - 3]}..."


_PLAIN = re.compile(r"[A-Za-z0-9._~-]{1,100}")
"""What stands in a path as it is."""


def _tools(earlier: Earlier) -> str:
    names = sorted(earlier.tools)
    if len(names) > SHOWN:
        return " or ".join(f"`{text}`" for text in earlier.after)
    return listing(names)


def _shown(value: str) -> str:
    text = json.dumps(value, ensure_ascii=False)
    text = f"{text[: SHOWN_SIGNS - 3]}..." if len(text) > SHOWN_SIGNS else text
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text)
