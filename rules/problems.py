"""What can be wrong with a rule file: problems that point at their place, each with a code that can be explained."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

import msgspec

from rules.explanations import EXPLANATIONS as EXPLANATIONS


class Mark(msgspec.Struct, frozen=True):
    """A place in a rule file; `line` and `col` count from 1."""

    file: str
    line: int
    col: int


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `message` is lower case with the input in backticks; `help` says how to mend it."""

    code: str
    message: str
    mark: Mark
    help: str = ""


class RuleFileError(Exception):
    """The rule files cannot be used. Nothing of them is in force."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


LINE_BREAK = re.compile(r"\r\n|\n|\r")
"""The line breaks of YAML 1.2."""

SHOWN = 120
"""Of a longer line, only the part around the caret is shown."""


def render(problem: Problem, text: str, level: Literal["error", "warning"] = "error") -> str:
    """`problem` for a terminal: message, place, the line of `text` (the file's content) with a caret, and help.

    The result holds no control characters, whatever the file holds, and does not end with a line break.
    """
    mark = problem.mark
    lines = _lines(text.removeprefix("\ufeff"))
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    start = max(0, mark.col - SHOWN * 2 // 3) if len(line) > SHOWN else 0
    shown = _visible(line[start : start + SHOWN])
    shown = ("..." if start else "") + shown + ("..." if len(line) > start + SHOWN else "")
    before = shown[: mark.col - 1 - start + (3 if start else 0)]
    gutter = len(str(mark.line))
    out = [
        f"{level}[{problem.code}]: {_visible(problem.message)}",
        f"{' ' * gutter}--> {_visible(mark.file)}:{mark.line}:{mark.col}",
        f"{' ' * gutter} |",
        f"{mark.line} | {shown}".rstrip(),
        f"{' ' * gutter} | {' ' * _width(before)}^",
    ]
    if problem.help:
        out += [f"{' ' * gutter} |", f"help: {_visible(problem.help)}"]
    return "\n".join(out)


@lru_cache(maxsize=8)
def _lines(text: str) -> list[str]:
    return LINE_BREAK.split(text)


def _visible(text: str) -> str:
    """`text` on one line, with everything that a terminal would not show as itself replaced."""
    return "".join(" " if c in "\t\n\r" else c if unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)


def _width(text: str) -> int:
    """The columns that `text` takes: East Asian wide characters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
