"""JSON-RPC envelopes of replayed answers: the client waits for the id of its own request, and drops every other.

Only the id is put in; all else stays byte for byte. An answer in a stream of events (`text/event-stream`) is found in
their data. Whatever is not read here goes out as it was stored.
"""

from __future__ import annotations

import msgspec

from rules.call import Call
from rules.protocols.mcp import read_message

type Members = dict[str, msgspec.Raw]

_encode = msgspec.json.Encoder(decimal_format="number").encode
_members = msgspec.json.Decoder(Members)


def readdressed(body: bytes, call: Call) -> bytes:
    """`body`, the decoded answer to an earlier call, as an answer to `call`; unchanged where that is no JSON-RPC."""
    message = read_message(call)
    asked = call.body.json
    if message is None or not message.method or not isinstance(asked, dict) or asked.get("id") is None:
        return body
    own_id = msgspec.Raw(_encode(asked["id"]))
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
    except msgspec.MsgspecError:
        return text
    if "jsonrpc" not in members or "id" not in members or not members.keys() & {"result", "error"}:
        return text
    return _encode(members | {"id": own_id})
