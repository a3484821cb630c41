"""Rule files as trees that remember where each value stands, so that every error can point at it.

The syntax comes from libyaml, as events; what a plain scalar means is decided here, by the YAML 1.2 core schema
(https://yaml.org/spec/1.2.2/#103-core-schema): `NO`, `on` and `12:30` are text. Stricter than YAML: keys are text and
stand once, one document, no tags, no anchors and aliases, no invisible characters that hide what a rule says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NoReturn

import msgspec
import yaml

from rules.problems import LINE_BREAK, Mark, Problem, RuleFileError

type Events = Callable[[], Any]
"""Gives libyaml's next event. Its stubs do not say what events hold, hence `Any`."""

type Scalar = bool | int | Decimal | str | None

DEPTH = 64
"""Values may be nested this deep: beyond what any rule needs, far below what recursion bears."""

NUMBER_LENGTH = 100
EXPONENT = 400
"""Longer numbers, or with larger exponents, are refused: comparing with them could cost any amount of memory."""


class Node(msgspec.Struct, frozen=True):
    """One YAML value. Exactly one of the three holds it: `scalar`, `items` or `entries`, as `kind` says.

    `kind`: "scalar", "list" or "map". `entries` are (key, value) in file order; keys are scalar nodes holding text.
    `inset`: for a text that stands in the file letter by letter, how far behind `mark` it starts (its quote); else -1.
    """

    kind: str
    mark: Mark
    scalar: Scalar = None
    items: tuple[Node, ...] = ()
    entries: tuple[tuple[Node, Node], ...] = ()
    inset: int = -1

    def at(self, offset: int) -> Mark:
        """The place of the text's letter at `offset`; the text's own place where escapes or lines hide it."""
        if self.inset < 0:
            return self.mark
        return Mark(self.mark.file, self.mark.line, self.mark.col + self.inset + offset)

    def get(self, key: str) -> Node | None:
        """The value under `key` of a map, or None when it is not there."""
        for name, value in self.entries:
            if name.scalar == key:
                return value
        return None

    def plain(self) -> Scalar | list[object] | dict[str, object]:
        """The value as ordinary Python lists, dicts and scalars, without marks."""
        if self.kind == "list":
            return [item.plain() for item in self.items]
        if self.kind == "map":
            return {str(name.scalar): value.plain() for name, value in self.entries}
        return self.scalar

    def fail(self, code: str, message: str, help: str = "") -> NoReturn:
        """Raise the `RuleFileError` that points at this node."""
        raise RuleFileError((Problem(code, message, self.mark, help),))


def parse(text: str, file: str) -> Node:
    """The one document in `text`. Raises `RuleFileError` with everything that is wrong with it as YAML."""
    node, problems = read(text, file)
    if node is None or problems:
        raise RuleFileError(problems)
    return node


def read(text: str, file: str) -> tuple[Node | None, tuple[Problem, ...]]:
    """The tree as far as it can be read, and what is wrong. No tree: the syntax is broken, or there is no document.

    Where a value is refused, a null stands in its place, so that the rest of the file can still be checked.
    """
    hidden = HIDDEN.search(text, 1 if text.startswith(_BOM) else 0)
    if hidden:
        before = text[: hidden.start()].removeprefix(_BOM)
        lines = LINE_BREAK.split(before)
        mark = Mark(file, len(lines), len(lines[-1]) + 1)
        message = f"the character `U+{ord(hidden[0]):04X}` is not allowed: it is invisible"
        escape = f"\\u{ord(hidden[0]):04x}" if ord(hidden[0]) <= 0xFFFF else f"\\U{ord(hidden[0]):08x}"
        return None, (Problem("yaml-character", message, mark, f'remove it, or write it as an escape: "{escape}"'),)
    reader = _Reader(file)
    try:
        root = reader.document(text.removeprefix(_BOM))
    except yaml.MarkedYAMLError as error:
        reader.problems.append(_syntax(error, file, text.removeprefix(_BOM), reader.open))
        root = None
    except _TooDeep as error:
        reader.report("yaml-depth", f"nested deeper than {DEPTH} levels", error.mark)
        root = None
    return root, tuple(reader.problems)


_BOM = "\ufeff"
# Outside YAML's printable set (1.2.2 section 5.1); line breaks of YAML 1.1 only; and what reorders or hides text.
HIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
    "|[\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class _TooDeep(Exception):
    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self.mark = mark


class _Reader:
    """Builds the tree of one file from libyaml's events, and collects what is wrong with it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.open: list[Mark] = []  # where the brackets begin that are not closed yet

    def report(self, code: str, message: str, mark: Mark, help: str = "") -> None:
        self.problems.append(Problem(code, message, mark, help))

    def at(self, mark: Any) -> Mark:
        return Mark(self.file, mark.line + 1, mark.column + 1)

    def document(self, text: str) -> Node | None:
        loader = yaml.CSafeLoader(text)
        try:
            return self.only(loader.get_event)
        finally:
            loader.dispose()

    def only(self, take: Events) -> Node | None:
        """The one document of the stream whose events `take` gives."""
        take()  # the stream's start
        start = take()
        if isinstance(start, yaml.StreamEndEvent):
            self.report("empty-file", "the file is empty", Mark(self.file, 1, 1), _EMPTY_HELP)
            return None
        if start.tags or start.version not in (None, (1, 2)):
            self.report("yaml-tag", "directives are not allowed", Mark(self.file, 1, 1), "remove the `%` lines")
        root = self.node(take, take(), 0)
        take()  # the document's end
        rest = take()
        if not isinstance(rest, yaml.StreamEndEvent):
            self.report("yaml-documents", _DOCUMENTS, self.at(rest.start_mark), _DOCUMENTS_HELP)
        if root.kind == "scalar" and root.scalar is None and not self.problems:
            self.report("empty-file", "the file is empty", Mark(self.file, 1, 1), _EMPTY_HELP)
            return None
        return root

    def node(self, take: Events, event: Any, depth: int) -> Node:
        mark = self.at(event.start_mark)
        if depth > DEPTH:
            raise _TooDeep(mark)
        if isinstance(event, yaml.AliasEvent):
            message = f"`*{event.anchor}` is an alias: rule files have none"
            self.report("yaml-alias", message, mark, _STAR_HELP.format(text=f"*{event.anchor}"))
            return Node("scalar", mark)
        if event.anchor:
            message = f"`&{event.anchor}` is an anchor: rule files have none"
            self.report("yaml-alias", message, mark, "write the value out where it is used")
        if event.tag:
            message = f"the tag `{event.tag.replace('tag:yaml.org,2002:', '!!')}` is not allowed"
            self.report("yaml-tag", message, mark, "remove it; quote a value that is meant as text")
        if isinstance(event, yaml.ScalarEvent):
            value = event.value if event.style else self.resolve(event.value, mark)
            return Node("scalar", mark, value, inset=_inset(event))
        if event.flow_style:
            self.open.append(mark)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(item := take(), yaml.SequenceEndEvent):
                items.append(self.node(take, item, depth + 1))
            node = Node("list", mark, items=tuple(items))
        else:
            node = Node("map", mark, entries=self.entries(take, depth))
        if event.flow_style:
            self.open.pop()
        return node

    def entries(self, take: Events, depth: int) -> tuple[tuple[Node, Node], ...]:
        entries: list[tuple[Node, Node]] = []
        first: dict[str, int] = {}
        while not isinstance(event := take(), yaml.MappingEndEvent):
            before = len(self.problems)
            key = self.node(take, event, depth + 1)
            refused = len(self.problems) > before
            value = self.node(take, take(), depth + 1)
            if not isinstance(key.scalar, str):
                if not refused:
                    self.report("key-not-text", *_odd_key(key))
            elif key.scalar in first:
                message = f"`{key.scalar}` stands twice in this mapping"
                again = f"it stands first in line {first[key.scalar]}; remove one of the two"
                self.report("duplicate-key", message, key.mark, again)
            else:
                first[key.scalar] = key.mark.line
                entries.append((key, value))
        return tuple(entries)

    def resolve(self, value: str, mark: Mark) -> Scalar:
        """What the plain scalar `value` means: YAML 1.2 core schema, numbers exact."""
        if value in _NULL:
            return None
        if value in _BOOL:
            return _BOOL[value]
        if value[0] not in "0123456789+-.":
            return value
        if _NOT_FINITE.fullmatch(value):
            self.report("yaml-number", f"`{value}` is not a finite number", mark, "quote it if it is meant as text")
            return None
        whole = _INT.fullmatch(value)
        if not whole and not _FLOAT.fullmatch(value):
            return value
        exponent = re.split("[eE]", value)[-1] if not whole and "e" in value.lower() else "0"
        if len(value) > NUMBER_LENGTH or len(exponent) > 5 or abs(int(exponent)) > EXPONENT:
            self.report("yaml-number", "this number is out of range", mark, "quote it if it is meant as text")
            return None
        if not whole:
            return Decimal(value)
        return int(value, {"0o": 8, "0x": 16}.get(value[:2], 10))


def _inset(event: Any) -> int:
    inset = 1 if event.style else 0
    width = event.end_mark.column - event.start_mark.column
    return inset if event.start_mark.line == event.end_mark.line and width == len(event.value) + 2 * inset else -1


def _odd_key(key: Node) -> tuple[str, Mark, str]:
    if key.kind != "scalar":
        return f"a {key.kind} can not be a key", key.mark, "quote it if it is meant as text"
    shown = "null" if key.scalar is None else str(key.scalar).lower() if isinstance(key.scalar, bool) else key.scalar
    return f"the key `{shown}` is not text", key.mark, f'quote it: `"{shown}":`'


_DOCUMENTS = "a second document starts here: a rule file is one document"
_DOCUMENTS_HELP = "put it into a file of its own"
_EMPTY_HELP = "a rule file starts with `version: 1`"
_STAR_HELP = 'quote it if it is meant as text: `"{text}"`; else write the value out where it is used'
# libyaml's words -> code, our words, and how to mend it. The first that is found in its message counts.
_SYNTAX: tuple[tuple[str, str, str, str], ...] = (
    (
        "mapping values are not allowed",
        "yaml-syntax",
        "a `:` is not expected here",
        "quote a text that holds `: `; check the indentation of the line",
    ),
    (
        "block sequence entries are not allowed",
        "yaml-syntax",
        "a `-` is not expected here",
        "start the list on its own line, indented below its key",
    ),
    (
        "did not find expected alphabetic or numeric character",
        "yaml-syntax",
        "a value that starts with `*` or `&` has to be quoted",
        'put quotes around it: `"*"`',
    ),
    ("could not find expected ':'", "yaml-syntax", "a `:` is missing after this key", "write `key: value`"),
    (
        "did not find expected ',' or",
        "yaml-syntax",
        "a `,` or the closing bracket is missing here",
        "inside `{...}` and `[...]`, quote a text that holds `{`, `}`, `[`, `]`, `,` or `: `",
    ),
    (
        "did not find expected '-' indicator",
        "yaml-syntax",
        "this line does not belong to the list above it",
        "check its indentation, or start it with `-`",
    ),
    (
        "did not find expected key",
        "yaml-syntax",
        "this does not fit the mapping that it stands in",
        "check the indentation, and the quotes and brackets before it",
    ),
    (
        "unknown escape character",
        "yaml-syntax",
        "this escape is not known in a text in double quotes",
        "write `\\\\` for a backslash, or use single quotes",
    ),
    ("found a tab character", "yaml-tab", "a tab is used for indentation", "indent with spaces"),
    ("expected <document start>", "yaml-documents", _DOCUMENTS, _DOCUMENTS_HELP),
    ("tag", "yaml-tag", "tags are not allowed", "quote a value that starts with `!`"),
    ("expected '>'", "yaml-tag", "tags are not allowed", "quote a value that starts with `!`"),
)
_AT_CONTEXT = ("did not find expected alphabetic or numeric character", "could not find expected ':'")
"""Here libyaml points behind the culprit; where it began to read is the better place."""


def _syntax(error: yaml.MarkedYAMLError, file: str, text: str, brackets: list[Mark]) -> Problem:
    """libyaml's syntax error in our words. Where the file ends too early, it points at what is never closed."""
    problem, place, context = str(error.problem), _spot(error.problem_mark), _spot(error.context_mark)
    lines = LINE_BREAK.split(text)
    rest = "".join([lines[place[0]][place[1] :], *lines[place[0] + 1 :]]) if place[0] < len(lines) else ""
    if not rest.strip():
        opened = [Mark(file, context[0] + 1, context[1] + 1)] if "quoted scalar" in str(error.context) else brackets
        for mark in opened[-1:]:
            sign = lines[mark.line - 1][mark.col - 1]
            return Problem("yaml-syntax", f"this `{sign}` is never closed", mark, "close it; is the file complete?")
    if context and problem.startswith(_AT_CONTEXT):
        place = context
    mark = Mark(file, place[0] + 1, place[1] + 1)
    if "cannot start any token" in problem:
        char = rest[:1]
        if char == "\t":
            return Problem("yaml-tab", "a tab is used for indentation", mark, "indent with spaces")
        return Problem("yaml-syntax", f"a value can not start with ` {char} `", mark, "put quotes around it")
    for words, code, message, mend in _SYNTAX:
        if words in problem:
            return Problem(code, message, mark, mend)
    return Problem("yaml-syntax", problem, mark, "check the quotes, brackets and indentation before it")


def _spot(mark: Any) -> tuple[int, ...]:
    """Line and column from 0; empty where libyaml gives none, which it does for the context only."""
    return (mark.line, mark.column) if mark is not None else ()
