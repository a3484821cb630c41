"""From the answer of an MCP server to `tools/list` to tools: one for each of its own, one for the rest of the protocol.

https://modelcontextprotocol.io/specification (server features, tools). An answer is taken as it was saved: with or
without the envelope of JSON-RPC, or as the server-sent event in which a server wrapped it. It does not say where the
server is, so that has to be told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rules.openapi.document import Plain, Refs, mapping
from rules.openapi.notes import LEFT_OUT, Note
from rules.openapi.operations import TOO_LARGE, Entry, key, unique
from rules.openapi.schemas import DEPTH, Schemas, TooLarge, Written
from rules.params.read import WHOLES
from rules.protocols.mcp import SESSION

_EVENT = re.compile(r"\s*(?:event|id|retry|data)\s*:|\s*:")
ARGUMENTS = next(name for name, place in WHOLES.items() if place == "args")


def unwrapped(text: str) -> str:
    """`text` without the framing of server-sent events, in which many servers answer: the data of the last one."""
    if not _EVENT.match(text) or "data:" not in text:
        return text
    events = [event for event in re.split(r"\r?\n\r?\n", text) if "data:" in event]
    lines = [line.removeprefix("data:") for line in events[-1].splitlines() if line.startswith("data:")]
    return "\n".join(lines)


def listed(root: Plain) -> Sequence[Plain] | None:
    """The tools in an answer to `tools/list`, or None where `root` is none."""
    if isinstance(root, list):
        return root if root and all("inputSchema" in mapping(one) for one in root) else None
    tools = mapping(mapping(root).get("result", root)).get("tools")
    return tools if isinstance(tools, list) and "paths" not in root else None


def goes_on(root: Plain) -> bool:
    """Does the answer name a next page?"""
    return bool(mapping(mapping(root).get("result", root)).get("nextCursor")) if isinstance(root, dict) else False


def named(tools: Sequence[Plain], prefix: str) -> list[tuple[Mapping[str, Plain], str]]:
    """Each tool with the name that it gets here."""
    found = [mapping(one) for one in tools]
    names = unique([SESSION, *(str(one.get("name")) for one in found)], prefix)
    return list(zip(found, names[1:], strict=True))


def session(server: str, prefix: str) -> Entry:
    """The tool for all that is not the call of a tool."""
    summary = "Everything else of the protocol: opening, listing, reading, notes. It only reads."
    return Entry(unique([SESSION], prefix)[0], "", summary, (server,), (), "", "", None, (), mcp=SESSION)


def entry(tool: Mapping[str, Plain], name: str, server: str, with_params: bool) -> Entry | Note:
    """The tool for `tool`, or why there is none."""
    said = tool.get("name")
    if not isinstance(said, str) or not said:
        return Note(LEFT_OUT, "it has no name")
    if said == SESSION or "*" in said:
        return Note(LEFT_OUT, f"`mcp: {said}` would mean other messages, too")
    params: dict[str, Written] | None = None
    notes: set[Note] = set()
    if with_params:
        refs = Refs(_closed(mapping(tool.get("inputSchema"))), beside=True)
        for depth in range(DEPTH, 0, -1):
            schemas = Schemas(refs, depth)
            try:
                params = _params(schemas.write(refs.root, "args"))
            except TooLarge:
                continue
            notes = schemas.notes
            break
        else:
            return Note(LEFT_OUT, TOO_LARGE)
    remark = _hint(mapping(tool.get("annotations")))
    told = tuple(sorted(notes))
    return Entry(name, "", _summary(tool), (f"POST {server}",), (), "", "", params, told, mcp=said, remark=remark)


def _closed(schema: Mapping[str, Plain]) -> Mapping[str, Plain]:
    """`schema`; where it says that there are no arguments, as most servers say it, so that it means it."""
    none = schema.get("properties") == {} and "additionalProperties" not in schema
    return {**schema, "additionalProperties": False} if none else schema


def _params(written: Written) -> dict[str, Written]:
    if set(written) <= {"type", "properties"} and written.get("type") == "object":
        return {key(name, "args", False): value for name, value in written.get("properties", {}).items()}
    return {ARGUMENTS: written}


def _summary(tool: Mapping[str, Plain]) -> str:
    text = str(tool.get("description") or tool.get("title") or "").strip()
    return " ".join(text.split("\n\n")[0].split())


def _hint(annotations: Mapping[str, Any]) -> str:
    """What a server says of the effect of its tool: nothing to rely on, since it may say anything."""
    if annotations.get("readOnlyHint") is True:
        return "only reads, says its server"
    if annotations.get("destructiveHint") is True:
        return "may destroy, says its server"
    return ""
