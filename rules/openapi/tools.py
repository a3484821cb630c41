"""The whole import: the text of a document -> the text of a file of tools, and what it does not say.

What kind of document it is shows in what it holds: an OpenAPI document, or the tools of an MCP server.

The same document and options give the same text, and the loader takes it: a tool that it does not take is left out,
with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from rules.globs import glob_fits
from rules.openapi import mcp
from rules.openapi.document import Document, OpenApiError, Plain, data, mapping
from rules.openapi.notes import LEFT_OUT, Note
from rules.openapi.operations import Entry, entry, names, operations
from rules.openapi.writing import comment, lines
from rules.problems import RuleFileError
from rules.read_tools import read_tool
from rules.shape import Report
from rules.yamltree import parse

__all__ = ["Imported", "OpenApiError", "Options", "tools_of"]

type Tell = Callable[[int, int], None]


class Options(msgspec.Struct, frozen=True):
    """`prefix`: of every name. `only`: globs of the names that are wanted, all where there is none. `server`: where the
    API is, whatever the document says. `params`: whether contracts are wanted."""

    prefix: str = ""
    only: tuple[str, ...] = ()
    server: str = ""
    params: bool = True

    def wants(self, name: str) -> bool:
        return not self.only or any(glob_fits(glob, name) for glob in self.only)


class Imported(msgspec.Struct, frozen=True):
    """`text`: the file. `notes`: (operation or tool, note) in the order of the document. `wanted`: so many operations
    were to be imported. `unit`: what an operation is called there."""

    text: str
    title: str
    tools: int
    wanted: int
    notes: tuple[tuple[str, Note], ...]
    unit: str = "operation"


def tools_of(text: str, source: str, options: Options, tell: Tell) -> Imported:
    """Import the document `text`, which comes from `source` (a file's name, for its header). Raises `OpenApiError`."""
    root = data(mcp.unwrapped(text))
    tools = mcp.listed(root)
    if tools is not None:
        return _of_mcp(root, tools, source, options, tell)
    document = Document(mapping(root))
    found = operations(document)
    named = [(one, name) for one, name in zip(found, names(found, options.prefix), strict=True) if options.wants(name)]
    made = ((one.at, name, entry(document, one, name, options.server, options.params)) for one, name in named)
    entries, notes = _kept(made, len(named), tell)
    if not entries:
        raise OpenApiError("nothing is left to import" if named else "no operation has such a name")
    called = f"{document.title} {document.release}".strip() or "an API"
    header = _header(f"{len(entries)} operations of {called}", f"OpenAPI {document.said}", source, entries, options)
    return Imported(_file(header, entries), document.title, len(entries), len(named), notes)


def _of_mcp(root: Plain, tools: Sequence[Plain], source: str, options: Options, tell: Tell) -> Imported:
    """Import the tools of an MCP server, and one for the rest of the protocol, without which a client cannot start."""
    if not options.server:
        raise OpenApiError("a list of tools does not say where its server is: add `--server https://HOST/PATH`")
    named = [(one, name) for one, name in mcp.named(tools, options.prefix) if options.wants(name)]
    made = ((str(one.get("name")), name, mcp.entry(one, name, options.server, options.params)) for one, name in named)
    entries, notes = _kept(made, len(named), tell)
    if not entries:
        raise OpenApiError("nothing is left to import" if named else "no tool has such a name")
    if mcp.goes_on(root):
        notes += (("nextCursor", Note(LEFT_OUT, "the list goes on at another page, which is a file of its own")),)
    session = mcp.session(options.server, options.prefix)
    header = _header("tools of an MCP server", "tools/list", source, entries, options)
    return Imported(_file(header, [session, *entries]), "", len(entries) + 1, len(named), notes, "MCP tool")


def _kept(
    made: Iterable[tuple[str, str, Entry | Note]], count: int, tell: Tell
) -> tuple[list[Entry], tuple[tuple[str, Note], ...]]:
    """What is written of `made`, (its place in the document, its name, what it came to), and what there is to note."""
    entries: list[Entry] = []
    notes: list[tuple[str, Note]] = []
    rivals: dict[object, str] = {}
    for place, (at, name, one) in enumerate(made):
        tell(place, count)
        if isinstance(one, Entry):
            why = _refused(one, rivals)
            one = Note(LEFT_OUT, why) if why else one
        if isinstance(one, Note):
            notes.append((at, one))
        else:
            entries.append(one)
            notes += [(name, note) for note in one.notes]
    return entries, tuple(notes)


def _file(header: Sequence[str], entries: Sequence[Entry]) -> str:
    return "\n".join([*header, "version: 1", "", "tools:", *_tools(entries)]) + "\n"


def _refused(made: Entry, rivals: dict[object, str]) -> str:
    """Why the loader would not take this tool, or empty. `rivals`: what is taken already, by the shape of its calls."""
    report = Report()
    try:
        ((key, value),) = parse("\n".join(lines(made)), made.name).entries
    except RuleFileError as error:  # a key that is longer than one may be, say
        return f"it cannot be written: {error.problems[0].message}"
    tool = read_tool(key, value, report)
    if tool is None:
        return report.problems[0].message
    shapes = [
        (match.pattern.shape, made.fixed, made.mcp, method)
        for match in tool.matches
        for method in match.pattern.methods
    ]
    taken = next((rivals[shape] for shape in shapes if shape in rivals), "")
    if taken:
        return f"`{taken}` is the same calls"
    rivals.update(dict.fromkeys(shapes, made.name))
    return ""


def _header(what: str, kind: str, source: str, entries: Sequence[Entry], options: Options) -> list[str]:
    said = f"--prefix {options.prefix} " if options.prefix else ""
    said += f"--server {options.server} " if options.server else ""
    glob = f"{options.prefix}.*" if options.prefix else entries[0].name
    texts = [
        f"# The {what},",
        f"# written by `borderpost rules import {said}{source}` ({kind}).",
        "#",
        "# These are tools: they say what a call is and may say. Nothing here allows a call: rules do that, in",
        "# another file, so that this one can be written again when the API changes:",
        "#",
        f'# - {{id: some, tool: "{glob}", allow: true, throttle: 60/min}}',
        "#",
        "# `wider` above a tool: it lets through what the document does not describe. `narrower`: it refuses what the",
        "# document describes. To try a contract on real traffic, add `params_mode: monitor` to its tool.",
    ]
    if any(each.remark for each in entries):
        texts += [
            "#",
            "# What a server says of its own tools need not be true. So all of them count as writes: where you know",
            "# that one only reads, add `effect: read`.",
        ]
    return [comment(text) for text in texts]


def _tools(entries: Sequence[Entry]) -> list[str]:
    """The tools, under the headings of their groups, in the order in which these first occur."""
    groups: dict[str, list[Entry]] = {}
    for each in entries:
        groups.setdefault(each.group, []).append(each)
    written: list[str] = []
    for group, members in groups.items():
        if len(groups) > 1 or group:
            written += ["", comment(f"  # --- {group or 'others'} ---")]
        for each in members:
            written += ["", *lines(each)] if len(written) else lines(each)
    return written
