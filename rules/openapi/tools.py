"""The whole import: the text of a document -> the text of a file of tools, and what it does not say.

The same document and options give the same text, and the loader takes it: a tool that it does not take is left out,
with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from rules.globs import glob_fits
from rules.openapi.document import Document, OpenApiError, read
from rules.openapi.notes import LEFT_OUT, Note
from rules.openapi.operations import Entry, entry, names, operations
from rules.openapi.writing import comment, lines
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


class Imported(msgspec.Struct, frozen=True):
    """`text`: the file. `notes`: (operation or tool, note) in the order of the document. `wanted`: so many operations
    were to be imported."""

    text: str
    title: str
    tools: int
    wanted: int
    notes: tuple[tuple[str, Note], ...]


def tools_of(text: str, source: str, options: Options, tell: Tell) -> Imported:
    """Import the document `text`, which comes from `source` (a file's name, for its header). Raises `OpenApiError`."""
    document = read(text)
    found = operations(document)
    named = list(zip(found, names(found, options.prefix), strict=True))
    if options.only:
        named = [(one, name) for one, name in named if any(glob_fits(glob, name) for glob in options.only)]
    entries: list[Entry] = []
    notes: list[tuple[str, Note]] = []
    rivals: dict[object, str] = {}
    for place, (operation, name) in enumerate(named):
        tell(place, len(named))
        made = entry(document, operation, name, options.server, options.params)
        if isinstance(made, Entry):
            why = _refused(made, rivals)
            made = Note(LEFT_OUT, why) if why else made
        if isinstance(made, Note):
            notes.append((operation.at, made))
        else:
            entries.append(made)
            notes += [(name, note) for note in made.notes]
    if not entries:
        raise OpenApiError("nothing is left to import" if named else "no operation has such a name")
    written = "\n".join([*_header(document, source, entries, options), "version: 1", "", "tools:", *_tools(entries)])
    return Imported(f"{written}\n", document.title, len(entries), len(named), tuple(notes))


def _refused(made: Entry, rivals: dict[object, str]) -> str:
    """Why the loader would not take this tool, or empty. `rivals`: what is taken already, by the shape of its calls."""
    report = Report()
    ((key, value),) = parse("\n".join(lines(made)), made.name).entries
    tool = read_tool(key, value, report)
    if tool is None:
        return report.problems[0].message
    shapes = [(match.pattern.shape, made.fixed, method) for match in tool.matches for method in match.pattern.methods]
    taken = next((rivals[shape] for shape in shapes if shape in rivals), "")
    if taken:
        return f"`{taken}` is the same calls"
    rivals.update(dict.fromkeys(shapes, made.name))
    return ""


def _header(document: Document, source: str, entries: Sequence[Entry], options: Options) -> list[str]:
    said = f"--prefix {options.prefix} " if options.prefix else ""
    called = f"{document.title} {document.release}".strip() or "an API"
    glob = f"{options.prefix}.*" if options.prefix else entries[0].name
    texts = [
        f"# The {len(entries)} operations of {called},",
        f"# written by `borderpost rules import {said}{source}` (OpenAPI {document.said}).",
        "#",
        "# These are tools: they say what a call is and may say. Nothing here allows a call: rules do that, in",
        "# another file, so that this one can be written again when the API changes:",
        "#",
        f'# - {{id: some, tool: "{glob}", allow: true, throttle: 60/min}}',
        "#",
        "# `wider` above a tool: it lets through what the document does not describe. `narrower`: it refuses what the",
        "# document describes. To try a contract on real traffic, add `params_mode: monitor` to its tool.",
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
