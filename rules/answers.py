"""Fields of answers: the names by which rules read what an upstream said, and what stands behind them.

    status          the status, a number; in conditions `2xx` is any of 200 to 299
    header.NAME     a header of the answer, by any case; or, as with gRPC's status, a trailer
    body.a.b        a member of its JSON

A condition on an answer is written like any other: `{status: 2xx, body.ok: true}`.
"""

from __future__ import annotations

import re

from rules.decision import Answer
from rules.fields import ABSENT, Field, Value, parse_field, read_in_body, read_named
from rules.where import Condition, parse_where
from rules.yamltree import Node

STATUS = Field("status", "status")

_OF_ANSWERS = re.compile(r"(?:header|body)\b")


def parse_answer_field(text: str, node: Node) -> Field:
    """The field of an answer that `text` names. Raises `RuleFileError` pointing into `node`, which holds it."""
    if text == "status":
        return STATUS
    if not _OF_ANSWERS.match(text):
        node.fail("field", f"`{text}` is not a field of an answer", "they are `status`, `header.NAME` and `body.NAME`")
    return parse_field(text, node)


def parse_answer_where(node: Node) -> Condition:
    """The condition on answers that `node` says. Raises `RuleFileError` with everything that is wrong with it."""
    return parse_where(node, parse_answer_field)


def read_answer(answer: Answer, field: Field) -> Value:
    """What `answer` has behind `field`. Without any answer every field is absent.

    Raises `ConditionError` where the body is needed but was not kept, or can not be decoded.
    """
    if not answer.status:
        return ABSENT
    if field.place == "status":
        return answer.status
    if field.place == "header":
        return read_named(answer.headers + answer.trailers, field.steps)
    return read_in_body(answer.body, field.steps)
