"""JSON-RPC envelopes of answers. The client waits for the id of its own request, and drops every other: a replayed
answer is given the new one. And since every answer has another id, equal answers are known by what they are without it.

Only the id is put in; all else stays byte for byte. An answer in a stream of events (`text/event-stream`) is found in
their data. Whatever is not read here stays as it is.
"""

from __future__ import annotations

import msgspec

from rules.call import Call
from rules.protocols.mcp import read_message

type Members = dict[str, msgspec.Raw]

_encode = msgspec.json.Encoder(decimal_format="number").encode
_members = msgspec.json.Decoder(Members)
_NO_ID = msgspec.Raw(b"null")


def readdressed(body: bytes, call: Call) -> bytes:
    """`body`, the decoded answer to an earlier call, as an answer to `call`; unchanged where that is no JSON-RPC."""
    own_id = id_of(call)
    return body if own_id is None else _addressed(body, own_id)


def unaddressed(body: bytes) -> bytes:
    """`body`, a decoded answer, with no id; unchanged where it is no JSON-RPC."""
    return _addressed(body, _NO_ID)


def id_of(call: Call) -> msgspec.Raw | None:
    """The id under which the client waits for its answer; None where it speaks no JSON-RPC, or waits for none."""
    message = read_message(call)
    asked = call.body.json
    if message is None or not message.method or not isinstance(asked, dict) or asked.get("id") is None:
        return None
    return msgspec.Raw(_encode(asked["id"]))


def _addressed(body: bytes, own_id: msgspec.Raw) -> bytes:
    if body.lstrip()[:1] == b"{":
        return _with_id(body, own_id)
    lines = body.split(b"\n")
    return b"\n".join(_line(line, own_id) for line in lines)


def _line(line: bytes, own_id: msgspec.Raw) -> bytes:
    """A line of an event stream; an answer stands in one line of data."""
    field, colon, value = line.partition(b":")
    if field != b"data" or not colon:
        return line
    data = value.removeprefix(b" ")
    end = data[len(data.rstrip(b"\r")) :]
    written = _with_id(data.rstrip(b"\r"), own_id)
    return line if written is data else b"data: " + written + end


def _with_id(text: bytes, own_id: msgspec.Raw) -> bytes:
    """The JSON-RPC answer `text` with another id; anything else as it is."""
    try:
        members = _members.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text
    if "jsonrpc" not in members or "id" not in members or not members.keys() & {"result", "error"}:
        return text
    return _encode(members | {"id": own_id})
