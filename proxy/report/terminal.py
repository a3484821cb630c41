"""The terminal: how wide it is, whether it has colour, and text that can do it no harm."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Literal, TextIO

import msgspec

NARROW = 80
"""The width of what is written for people where nobody looks: pipes and files."""

WIDE = 1000
"""The width of tables there: whoever reads a pipe wants what is in the cells, not what fits on a screen."""

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}

type Style = Literal["bold", "dim", "red", "green", "yellow", "blue", "cyan", ""]

OF_DECISION: dict[str, Style] = {
    "allow": "green",
    "deny": "red",
    "throttle": "yellow",
    "replay": "cyan",
    "hold": "blue",
}


class Column(msgspec.Struct, frozen=True):
    """A column of a table: numbers stand `right`; one that `gives` is narrowed first, none below its `least`."""

    title: str
    least: int = 4
    right: bool = False
    gives: bool = False


class Cell(msgspec.Struct, frozen=True):
    """What stands in a table."""

    text: str
    style: Style = ""


def coloured(stream: TextIO) -> bool:
    """Whether `stream` shows colour: a terminal that can, and nobody said NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width(stream: TextIO) -> int:
    """The columns of the terminal; COLUMNS or 80 where `stream` is none."""
    return _columns(stream, NARROW)


def table_width(stream: TextIO) -> int:
    """The columns that a table may take: as `width`, but `WIDE` where `stream` is no terminal."""
    return _columns(stream, WIDE)


def _columns(stream: TextIO, elsewhere: int) -> int:
    if stream.isatty():
        return max(40, shutil.get_terminal_size((NARROW, 24)).columns)
    given = os.environ.get("COLUMNS", "")
    return max(40, int(given)) if given.isascii() and given.isdigit() else elsewhere


def paint(text: str, style: Style, colour: bool) -> str:
    """`text` in `style` where there is colour."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if colour and style else text


def visible(text: str) -> str:
    """`text` on one line without what a terminal would obey: agents choose paths, upstreams choose errors."""
    return "".join(" " if c in "\t\n\r" else c if unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)


def columns_of(text: str) -> int:
    """The columns that `text` takes: East Asian wide characters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def clip(text: str, room: int) -> str:
    """`text` cut to `room` columns, with an ellipsis where something is missing."""
    if columns_of(text) <= room:
        return text
    while text and columns_of(text) > room - 1:
        text = text[:-1]
    return text + "…"


def wrap(text: str, room: int) -> list[str]:
    """`text` broken at blanks to fit `room`; a word that does not fit stands whole. At least one line."""
    return textwrap.wrap(text, max(room, 20), break_long_words=False, break_on_hyphens=False) or [""]


def hung(head: str, text: str, room: int) -> list[str]:
    """`text` after `head`, broken to fit `room`, further lines under the first."""
    indent = " " * columns_of(head)
    lines = wrap(visible(text), room - columns_of(head))
    return [head + lines[0], *(indent + line for line in lines[1:])]


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], room: int, colour: bool) -> list[str]:
    """The lines of a table within `room` columns, if the least widths permit."""
    shown = [[Cell(visible(cell.text), cell.style) for cell in row] for row in rows]
    widths = [
        max([columns_of(column.title), *(columns_of(row[index].text) for row in shown)])
        for index, column in enumerate(columns)
    ]
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    while excess > 0:
        slack = [widths[index] - column.least for index, column in enumerate(columns)]
        widest = max(range(len(widths)), key=lambda index: (slack[index] > 0 and columns[index].gives, slack[index]))
        if slack[widest] <= 0:
            break
        widths[widest] -= 1
        excess -= 1
    titles = [Cell(column.title, "dim") for column in columns]
    return [_line(columns, row, widths, colour) for row in [titles, *shown]]


def _line(columns: Sequence[Column], row: Sequence[Cell], widths: Sequence[int], colour: bool) -> str:
    parts = []
    for index, (column, cell, room) in enumerate(zip(columns, row, widths, strict=True)):
        text = clip(cell.text, room)
        padding = " " * (room - columns_of(text))
        painted = paint(text, cell.style, colour)
        last = index == len(row) - 1
        parts.append(padding + painted if column.right else painted if last else painted + padding)
    return "  ".join(parts).rstrip()


def out(lines: str | Sequence[str], stream: TextIO | None = None) -> None:
    """Write lines to `stream`, by default standard output."""
    stream = stream or sys.stdout
    text = lines if isinstance(lines, str) else "\n".join(lines)
    if text:
        stream.write(text + "\n")
