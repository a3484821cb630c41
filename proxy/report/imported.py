"""What `rules import` says beside the file: what it did not take over, by what is lost and of which operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proxy.report.checked import counted
from proxy.report.terminal import Style, hung, paint, visible
from rules.openapi.notes import LEFT_OUT, NARROWER, WIDER
from rules.openapi.tools import Imported

SHOWN = 5
"""Of the operations that one thing is said of, so many are named."""

_HEADS: dict[str, tuple[str, Style]] = {
    LEFT_OUT: ("left out, so that no tool names them:", "red"),
    NARROWER: ("narrower than the document: these refuse calls that it describes", "yellow"),
    WIDER: ("wider than the document: these let calls through that it does not describe", "yellow"),
}


def show(found: Imported, verbose: bool, room: int, colour: bool) -> list[str]:
    """The notes, under a head for each kind, and one line that sums up."""
    lines: list[str] = []
    for kind, (head, style) in _HEADS.items():
        by_what: dict[str, dict[str, list[str]]] = {}
        for operation, note in found.notes:
            if note.kind == kind:
                by_what.setdefault(note.what, {}).setdefault(operation, []).append(note.where)
        if by_what:
            lines.append(paint(head, style, colour))
        for what, places in sorted(by_what.items(), key=lambda each: (-len(each[1]), each[0])):
            lines += hung("  ", f"{counted(len(places), 'operation')}: {what}", room)
            lines += hung("    ", _listed(places, verbose), room)
    return [*lines, f"borderpost: {_sum(found)}"]


def _listed(places: Mapping[str, Sequence[str]], verbose: bool) -> str:
    """The operations; with `verbose` all of them, and the fields."""
    if verbose:
        return ", ".join(f"{name} ({where})" if where else name for name, fields in places.items() for where in fields)
    rest = len(places) - SHOWN
    return ", ".join(list(places)[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _sum(found: Imported) -> str:
    of = f" of {visible(found.title)}" if found.title else ""
    text = f"{counted(found.tools, 'tool')} from {counted(found.wanted, found.unit)}{of}"
    changed = {operation for operation, note in found.notes if note.kind != LEFT_OUT}
    return f"{text}, {len(changed)} of them not just as the document says" if changed else text
