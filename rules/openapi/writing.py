"""Writing a file of tools that a person wants to keep: short forms, one line where one is enough, and comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rules.openapi.operations import Entry
from rules.yamltree import HIDDEN

WIDTH = 118

_PLAIN = re.compile(r"[A-Za-z_/$][A-Za-z0-9_./@$+-]*(?: [A-Za-z0-9_./@$+-]+)*")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def lines(entry: Entry) -> Iterator[str]:
    """The lines of one tool, below `tools:`."""
    if entry.summary:
        yield comment(f"  # {entry.summary}")
    if entry.remark:
        yield comment(f"  # {entry.remark}")
    for note in entry.notes:
        yield comment(f"  # {note.kind}: {f'{note.where}: ' if note.where else ''}{note.what}")
    more: dict[str, Any] = {"mcp": entry.mcp} if entry.mcp else {}
    if entry.fixed:
        more["where"] = {_condition(name): value for name, value in entry.fixed}
    matches = [{"request": pattern, **more} if more else pattern for pattern in entry.patterns]
    said: dict[str, Any] = {"match": matches[0] if len(matches) == 1 else matches}
    said |= {"body": entry.body} if entry.body else {}
    said |= {"credential": entry.credential} if entry.credential else {}
    if entry.params is not None:
        said["params"] = {name: _short(value) for name, value in entry.params.items()}
    short = set(said) == {"match"} and not isinstance(said["match"], Mapping)
    yield from _block(_scalar(entry.name), said["match"] if short else said, 2)


def _condition(name: str) -> str:
    return f"query.{name}" if re.fullmatch(r"[A-Za-z0-9_$@-]+", name) else f'query["{name}"]'


def comment(text: str) -> str:
    """A line of comment: what cannot be seen is left out, what is long is cut."""
    shown = HIDDEN.sub("", " ".join(text.split("\n")))
    indent = len(shown) - len(shown.lstrip())
    shown = " " * indent + " ".join(shown.split())
    return shown if len(shown) <= WIDTH else f"{shown[: WIDTH - 3].rstrip()}..."


def _short(value: Any) -> Any:
    """A schema in its short form, where it has one."""
    if not isinstance(value, dict):
        return value
    if set(value) == {"type"} and isinstance(value["type"], str):
        return value["type"]
    if set(value) == {"enum"}:
        return list(value["enum"])
    found = dict(value)
    implied = {"properties": "object", "items": "array", "pattern": "string"}
    if any(found.get("type") == kind and word in found for word, kind in implied.items()):
        del found["type"]
    for word in ("items", "additionalProperties", "propertyNames", "not"):
        if word in found:
            found[word] = _short(found[word])
    if "properties" in found:
        found["properties"] = {name: _short(each) for name, each in found["properties"].items()}
    for word in ("allOf", "anyOf"):
        if word in found:
            found[word] = [_short(each) for each in found[word]]
    order = [name for name in _ORDER if name in found]
    return {name: found[name] for name in (*order, *(name for name in found if name not in _ORDER))}


_ORDER = ("type", "enum", "const", "required", "format")
"""The keys that come first."""


def _block(key: str, value: Any, indent: int) -> Iterator[str]:
    """`key: value`, in one line if it fits, else below it."""
    line = f"{' ' * indent}{key}:"
    if _in_line(value, WIDTH - len(line) - 1):
        yield f"{line} {_inline(value)}"
    else:
        yield line
        yield from _below(value, indent + 2)


def _item(value: Any, indent: int) -> Iterator[str]:
    """`- value`, the same way."""
    if _in_line(value, WIDTH - indent - 2):
        yield f"{' ' * indent}- {_inline(value)}"
    else:
        first, *others = _below(value, indent + 2)
        yield f"{' ' * indent}- {first[indent + 2 :]}"
        yield from others


def _below(value: Any, indent: int) -> Iterator[str]:
    """The lines of a mapping or list."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _block(_scalar(name), each, indent)
    elif any(isinstance(each, Mapping | list) for each in value) or _are_patterns(value):
        for each in value:
            yield from _item(each, indent)
    else:
        yield from _wrapped([_flow(each) for each in value], indent)


def _in_line(value: Any, room: int) -> bool:
    """Whether it stands in one line: it is short, or can not be broken. Several patterns stand below each other."""
    if not value or not isinstance(value, Mapping | list):
        return True
    if _are_patterns(value) or (isinstance(value, Mapping) and isinstance(value.get("match"), list)):
        return False
    return len(_flow(value)) <= room


def _inline(value: Any) -> str:
    """Patterns stand without quotes where nothing else is in their line."""
    return value if isinstance(value, str) and _PATTERN.fullmatch(value) else _flow(value)


def _are_patterns(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and _PATTERN.fullmatch(each) for each in value)


_PATTERN = re.compile(r"(?:[A-Z]+ )?https?://[!-~]+(?<![:,])")


def _wrapped(words: Sequence[str], indent: int) -> Iterator[str]:
    """A list of scalars over several lines."""
    space = " " * indent
    line = f"{space}["
    for place, word in enumerate(words):
        piece = word + ("," if place + 1 < len(words) else "]")
        if len(line) + 1 + len(piece) > WIDTH and line.strip() != "[":
            yield line.rstrip()
            line = f"{space} "
        line += piece + " "
    yield line.rstrip()


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(name)}: {_flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | Decimal):
        return str(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if HIDDEN.search(text) or "\n" in text or "\t" in text or "\r" in text:
        return '"' + "".join(_escaped(sign) for sign in text) + '"'
    if '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def _escaped(sign: str) -> str:
    if sign in '"\\':
        return f"\\{sign}"
    if sign.isprintable() and not HIDDEN.match(sign):
        return sign
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
