"""expect: what success looks like, said by a tool, since many APIs answer 200 and mean a failure.

    expect: {status: 2xx, body.ok: true}
    expect: {body.errors: {exists: false}, otherwise: not_executed, show_as: 422}
    expect: {body.ok: true, not_executed_if: {body.error: {not_in: [internal_error]}}}

An answer is `met`, `failed`, or `unclear` where a field that decides it can not be read: then it is called neither. A
2xx or 3xx that is not `met` says nothing about the effect, unless the file says what it says: `otherwise`, and
`not_executed_if` for those failures by which the API promises that nothing was done. What other statuses say about the
effect (`rules.guards.claims`) stays what it is.
"""

from __future__ import annotations

from typing import cast

import msgspec

from rules.answers import parse_answer_where, read_answer
from rules.decision import Answer, Expected, OutcomeKind
from rules.fields import ConditionError, Field, Value
from rules.suggest import listing, suggest
from rules.vocabulary import SUCCESS
from rules.where import Condition
from rules.yamltree import Node

OTHERWISE: tuple[OutcomeKind, ...] = ("done", "not_executed", "unknown")
READABLE = frozenset({"json", "form", "multipart"})
"""The kinds of bodies that have fields."""


class Expect(msgspec.Struct, frozen=True):
    """What success is. `otherwise`: what became of the effect when it is none and the status does not say.

    `not_executed_if`: the failures that prove that nothing was done, whatever `otherwise` says of the rest.
    `show_as`: the status that the agent is given in place of that of a failed answer; 0 to hand it on as it is.
    """

    where: Condition
    otherwise: OutcomeKind = "unknown"
    not_executed_if: Condition | None = None
    show_as: int = 0

    @property
    def needs_body(self) -> bool:
        """Is the body of the answer read?"""
        fields = self.where.fields + (self.not_executed_if.fields if self.not_executed_if is not None else ())
        return any(field.needs_body for field in fields)


def parse_expect(node: Node) -> Expect:
    """The value of a tool's `expect`. Raises `RuleFileError`."""
    otherwise, proof, show_as = node.get("otherwise"), node.get("not_executed_if"), node.get("show_as")
    kind: OutcomeKind = "unknown"
    if otherwise is not None:
        if otherwise.scalar not in OTHERWISE:
            mend = suggest(str(otherwise.scalar), OTHERWISE) or "write what a failed answer says about the effect"
            otherwise.fail("choice", f"`otherwise` has to be {listing(OTHERWISE)}", mend)
        kind = cast(OutcomeKind, otherwise.scalar)
    if proof is not None and kind == "not_executed":
        proof.fail("choice", "`not_executed_if` adds nothing to `otherwise: not_executed`", "leave one of the two out")
    if show_as is not None and not (type(show_as.scalar) is int and 400 <= show_as.scalar <= 599):
        mend = "write `422`, which no client retries by itself"
        show_as.fail("choice", "`show_as` is no status of an error, 400 to 599", mend)
    fields = tuple(entry for entry in node.entries if entry[0].scalar not in SUCCESS)
    if not fields:
        node.fail("empty", "`expect` names no field of the answer", "write `expect: {status: 2xx, body.ok: true}`")
    condition = parse_answer_where(msgspec.structs.replace(node, entries=fields))
    proved = parse_answer_where(proof) if proof is not None else None
    return Expect(condition, kind, proved, cast(int, show_as.scalar) if show_as is not None else 0)


def judge(expect: Expect, answer: Answer) -> tuple[Expected, str]:
    """Whether `answer` is what is expected, and if not, why not: one line, without anything that the answer holds."""
    if answer.withdrawn:
        return "", ""
    if not answer.complete:
        return "unclear", answer.error
    verdict = expect.where.verdict(lambda field: _read(answer, field))
    if verdict is None:
        return "unclear", f"nobody can tell whether the answer is as expected: {_unreadable(answer)}"
    if verdict:
        return "met", ""
    missed = expect.where.misses(lambda field: _absent(answer, field), "allow")
    return "failed", f"not as expected: {' and '.join(f'{miss.field} {miss.limit}' for miss in missed)}"


def effect(expect: Expect, answer: Answer, expected: Expected, kind: OutcomeKind) -> OutcomeKind:
    """What became of the effect, when `answer` is `expected` and its status alone says `kind`."""
    if kind != "done" or expected == "met":
        return kind
    proof = expect.not_executed_if if expected == "failed" else None
    if proof is not None and proof.verdict(lambda field: _read(answer, field)):
        return "not_executed"
    return expect.otherwise if expected == "failed" or expect.otherwise == "done" else "unknown"


def _read(answer: Answer, field: Field) -> Value:
    if field.needs_body and answer.body.kind not in READABLE:
        raise ConditionError(_unreadable(answer))
    return read_answer(answer, field)


def _absent(answer: Answer, field: Field) -> Value:
    """As `_read`, where a miss is only to be described."""
    readable = not field.needs_body or answer.body.kind in READABLE
    return read_answer(answer, field if readable else _NO_FIELD)


_NO_FIELD = Field("header.", "header", ("",))


def _unreadable(answer: Answer) -> str:
    body = answer.body
    if body.kind == "undecodable":
        return body.problem
    return "its body was not kept" if body.kind == "unread" else "its body has no fields"
