"""MCP over HTTP: an answer of the tool, with `isError`, so that the model reads it; of other methods, an error.

https://modelcontextprotocol.io/specification/2025-06-18/server/tools#error-handling. JSON-RPC 2.0 wants the id of the
request back; a notification has none and gets no answer but a status. Since 2026-07-28 a result has to say
`resultType`; clients of earlier versions do not read it.
"""

from __future__ import annotations

import msgspec

from proxy.dialects import plain
from proxy.reply import Reply, Told
from rules.batch import MOST
from rules.call import Call, Json

_encode = msgspec.json.Encoder(decimal_format="number").encode

SERVER_ERROR = -32000
"""JSON-RPC 2.0, section 5.1: the first of those that servers define themselves."""


def spoken_in(call: Call) -> bool:
    """The protocol's headers, or the body of a tool call."""
    if call.header("mcp-session-id") is not None or call.header("mcp-protocol-version") is not None:
        return True
    return any(_is_request(one) and str(one["method"]).startswith("tools/") for one in _messages(call))


def write(told: Told) -> Reply:
    """An answer to each request in the body; without one (a GET, a note), or with too many, the plain form."""
    asked = [one for one in _messages(told.call) if _is_request(one)]
    if not 0 < len(asked) <= MOST:
        return plain.write(told)
    answers = [_answer(one, told) for one in asked]
    assert told.call is not None
    said = answers if isinstance(told.call.body.json, list) else answers[0]
    return plain.body(told, 200, "application/json", _encode(said) + b"\n")


def _messages(call: Call | None) -> list[dict[str, Json]]:
    content = call.body.json if call is not None and call.body.kind == "json" else None
    found = content if isinstance(content, list) else [content]
    return [one for one in found if isinstance(one, dict) and one.get("jsonrpc") == "2.0"]


def _is_request(message: dict[str, Json]) -> bool:
    return isinstance(message.get("method"), str) and message.get("id") is not None


def _answer(message: dict[str, Json], told: Told) -> dict[str, object]:
    head = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "tools/call":
        said = [{"type": "text", "text": told.message}]
        return {**head, "result": {"resultType": "complete", "content": said, "isError": True}}
    return {**head, "error": {"code": SERVER_ERROR, "message": told.message, "data": told.problem}}
