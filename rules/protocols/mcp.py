"""MCP over HTTP: JSON-RPC messages, https://modelcontextprotocol.io/specification (transports, tools).

    mcp: send_report    calls of this tool (`tools/call` by name); a glob such as "delete_*", or "*" for all
    mcp: session        everything else of the protocol: opening, listing, reading, notes, answers, streams

Where a client repeats method and name in headers (`Mcp-Method`, `Mcp-Name`), they have to agree with the body: servers
and gateways may act on either.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from rules.call import Body, Call, Json
from rules.fields import ConditionError
from rules.globs import glob_fits
from rules.protocols.says import Asking, rank_of
from rules.yamltree import Node

SESSION = "session"
TOOL_CALL = "tools/call"

NAMED_BY = {TOOL_CALL: "name", "prompts/get": "name", "resources/read": "uri"}
"""Method -> the parameter that `Mcp-Name` repeats."""

_MEMBERS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_CALLED = frozenset({"name", "arguments"})
"""The members of the `params` of a tool call that say what is called."""

_TOOL = re.compile(r"[A-Za-z0-9_.*/-]{1,128}")
_ENCODED = re.compile(r"=\?base64\?(.*)\?=")


class Message(msgspec.Struct, frozen=True):
    """One JSON-RPC message. `method` is empty for an answer; `tool` and `arguments` are set for a call of a tool."""

    method: str
    tool: str = ""
    arguments: dict[str, Json] | None = None


class Mcp(msgspec.Struct, frozen=True):
    """`mcp: session`, or `mcp:` with the name of a tool or a glob."""

    tool: str

    @property
    def text(self) -> str:
        return f"mcp: {self.tool}"

    @property
    def rank(self) -> tuple[int, int]:
        return rank_of(self.tool)

    @property
    def reads_only(self) -> bool:
        return self.tool == SESSION

    @property
    def has_arguments(self) -> bool:
        return self.tool != SESSION

    @property
    def in_query(self) -> frozenset[str]:
        return frozenset()

    def fits(self, asking: Asking) -> bool | None:
        if asking.call.method != "POST":
            return self.tool == SESSION and asking.call.method in ("GET", "DELETE")
        message = asking.read(_read_checked)
        if message is None:
            return None
        if self.tool == SESSION:
            return message.method != TOOL_CALL
        return message.method == TOOL_CALL and glob_fits(self.tool, message.tool)


def parse(node: Node) -> Mcp:
    """What `node` says."""
    name = node.scalar
    if not isinstance(name, str) or not _TOOL.fullmatch(name):
        node.fail("mcp", "`mcp` names no tool", 'write a tool such as `send_report`, a glob, `"*"`, or `session`')
    return Mcp(name)


def read_message(call: Call) -> Message | None:
    """The message in the body, or None where it is not in every detail one of the protocol."""
    content = call.body.json if call.body.kind == "json" else None
    if not isinstance(content, dict) or content.get("jsonrpc") != "2.0" or not _MEMBERS.issuperset(content):
        return None
    if "method" not in content:
        return Message("") if ("result" in content) is not ("error" in content) and "params" not in content else None
    method, params = content["method"], content.get("params")
    if not isinstance(method, str) or "result" in content or "error" in content:
        return None
    if method != TOOL_CALL:
        # a server may fold case, or cut off white space; nothing that comes near a tool call passes for another method
        return None if method.strip().casefold() == TOOL_CALL else Message(method)
    if not isinstance(params, dict) or any(key not in _CALLED and key.casefold() in _CALLED for key in params):
        return None  # many servers fold the case of members, and take the last of two
    name, arguments = params.get("name"), params.get("arguments")
    if not isinstance(name, str) or not (arguments is None or isinstance(arguments, dict)):
        return None
    return Message(method, name, arguments or {})


def failure(call: Call, body: Body) -> str:
    """What an answer to a message says of having failed; `body` is JSON, or a stream of events that holds it."""
    if body.kind not in ("json", "text") or read_message(call) is None:
        return ""
    for answer in _events(body.text) if body.kind == "text" else [body.json]:
        if isinstance(answer, dict):
            result, error = answer.get("result"), answer.get("error")
            if isinstance(error, dict):
                code = error.get("code")
                return f"JSON-RPC error {code}" if type(code) is int else "a JSON-RPC error"
            if isinstance(result, dict) and result.get("isError") is True:
                return "isError: true"
    return ""


def _events(text: str) -> Iterator[Json]:
    """The messages in a stream of events, as far as they can be read."""
    for event in re.split(r"\r?\n\r?\n", text):
        lines = [line.removeprefix("data:") for line in event.splitlines() if line.startswith("data:")]
        with contextlib.suppress(ValueError, RecursionError):
            yield json.loads("\n".join(lines))


def _read_checked(call: Call) -> Message | None:
    """The message in the body, as `read_message` has it. Raises `ConditionError` where the headers say another."""
    message = read_message(call)
    if message is None:
        return None
    for header, value in call.headers:
        if header == "mcp-method" and value != message.method:
            raise ConditionError(f"`Mcp-Method` says `{value[:80]}` and the body `{message.method[:80]}`")
        if header == "mcp-name":
            content = call.body.json
            params = content.get("params") if isinstance(content, dict) else None
            named = params.get(NAMED_BY.get(message.method, "")) if isinstance(params, dict) else None
            if _decoded(value) != named:
                raise ConditionError("`Mcp-Name` says another name than the body")
    return message


@lru_cache(maxsize=1024)
def _decoded(value: str) -> str | None:
    """A header's value; names that do not fit in one are written `=?base64?...?=`."""
    found = _ENCODED.fullmatch(value)
    if found is None:
        return value
    try:
        return base64.b64decode(found[1], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
