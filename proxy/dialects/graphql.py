"""GraphQL: 200 with `errors`, https://spec.graphql.org/October2021/#sec-Errors: its clients read nothing else."""

from __future__ import annotations

import msgspec

from proxy.dialects import plain
from proxy.dialects.plain import body
from proxy.reply import Reply, Told
from rules.batch import MOST
from rules.call import Call, Json


def spoken_in(call: Call) -> bool:
    """A path that says so, and a body that holds an operation or several; one that was not read may."""
    if not call.segments or call.segments[-1] != "graphql":
        return False
    if call.body.kind == "unread":
        return call.method == "POST"
    if call.body.kind != "json":
        return False
    content = call.body.json
    return all(map(_is_operation, content)) if isinstance(content, list) and content else _is_operation(content)


def _is_operation(value: Json) -> bool:
    return isinstance(value, dict) and (isinstance(value.get("query"), str) or "extensions" in value)


def write(told: Told) -> Reply:
    """One error; for a batch, one answer to each of its operations, if it is not too large."""
    answer = {"data": None, "errors": [{"message": told.message, "extensions": told.problem}]}
    content = told.call.body.json if told.call is not None else None
    if isinstance(content, list) and len(content) > MOST:
        return plain.write(told)
    said = [answer] * len(content) if isinstance(content, list) else answer
    return body(told, 200, "application/json", msgspec.json.encode(said) + b"\n")
