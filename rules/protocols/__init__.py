"""Protocols inside HTTP: which operation a message asks for, and with what arguments. One file each.

A pattern tells calls apart by method, host and path. Where a protocol sends everything to one path, a match says more:
`mcp: "delete_*"`, `graphql: mutation createIssue`. Messages are read strictly: what is not in every detail a message of
the protocol is none, so that no body can be read as two of them.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rules import grpc
from rules.call import Body, Call, Json
from rules.canonical import canonical_json
from rules.decision import Answer
from rules.fields import ABSENT, Absent, ConditionError
from rules.protocols import graphql, mcp
from rules.protocols.says import Says
from rules.yamltree import Node

PARSERS: dict[str, Callable[[Node], Says]] = {"mcp": mcp.parse, "graphql": graphql.parse}
"""Word in a match -> what reads it."""


def arguments(call: Call) -> Json | Absent:
    """The arguments of the operation that `call` asks for: the fields `args.*`.

    Raises `ConditionError` where the body was not read, or can not be decoded.
    """
    if call.body.kind in ("unread", "undecodable"):
        raise ConditionError(f"the arguments are needed but {call.body.problem or 'the body was not read'}")
    message = mcp.read_message(call)
    if message is not None:
        return ABSENT if message.arguments is None else message.arguments
    return graphql.arguments(call)


def failure(call: Call, answer: Answer) -> str:
    """What the protocol of `call` says in `answer` of having failed, in a few words; empty where it says no such thing,
    or where the body was not kept. HTTP's status is 200 all the same.
    """
    return grpc.failure(call, answer) or mcp.failure(call, answer.body) or graphql.failure(call, answer.body)


def shown_message(call: Call) -> str:
    """What the message of `call` asks for, for people: `tools/call send_report`, `mutation createIssue`."""
    message = mcp.read_message(call)
    if message is not None:
        return f"{message.method or 'an answer'} {message.tool}".rstrip()
    return graphql.shown(call)


def parts(call: Call, most: int) -> tuple[Call, ...]:
    """The calls of a batch, each as if it had been sent by itself, and no more than `most`; nothing where the body is
    no list."""
    batch = call.body.json if call.body.kind == "json" else None
    return tuple(_alone(call, one) for one in batch[:most]) if isinstance(batch, list) else ()


def _alone(call: Call, message: Json) -> Call:
    encoded = canonical_json(message)
    body = Body("json", call.body.media_type, json=message, size_bytes=len(encoded))
    return msgspec.structs.replace(call, body=body)
