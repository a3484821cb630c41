"""An OpenAPI document, or what else describes an API, as plain data: JSON or YAML, and what its `$ref`s point at.

Published documents are what they are: YAML is read with its aliases and merges, keys that stand twice count once, and
a part that is not of the shape that the standard says is as good as absent. Only numbers are exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import yaml

from rules.call import read_decimal

type Plain = Any
"""JSON of an unknown shape: nothing of it can be relied on."""


class OpenApiError(Exception):
    """The text is nothing that can be imported. The message is one line."""


class Refs:
    """What the `$ref`s in `root` lead to. `beside`: what stands beside one counts, as in JSON Schema since 2019."""

    def __init__(self, root: Mapping[str, Plain], beside: bool) -> None:
        self.root = root
        self.beside = beside

    def follow(self, value: Plain) -> tuple[Mapping[str, Plain], str]:
        """`value` or what its `$ref`s lead to, and the last of these; empty when it leads nowhere."""
        last = ""
        for _ in range(_LINKS):
            found = mapping(value)
            ref = found.get("$ref")
            if not isinstance(ref, str):
                return found, last
            last, value = ref, self._at(ref)
        return {}, last

    def _at(self, ref: str) -> Plain:
        if not ref.startswith("#/"):
            return None
        value: Plain = self.root
        for part in ref[2:].split("/"):
            name = _unescaped(part)
            if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                value = value[int(name)]
            else:
                value = mapping(value).get(name)
        return value


_LINKS = 20
"""So many references may stand in a row; in a circle there are more."""


class Document(Refs):
    """A document. `version`: 2 (Swagger) or 3. `title`, `release`: its own name and version, as far as it has them."""

    def __init__(self, root: Mapping[str, Plain]) -> None:
        said = str(root.get("openapi") or root.get("swagger") or "")
        if not re.match(r"3\.[0-9]|2\.0", said) or not isinstance(root.get("paths"), dict):
            raise OpenApiError(
                "this is no OpenAPI document, which has `openapi: 3.x` or `swagger: 2.0`, and `paths`; nor the answer "
                "of an MCP server to `tools/list`, which has `tools`"
            )
        super().__init__(root, beside=said.startswith("3.1"))
        self.said = said
        self.version = int(said[0])
        info = mapping(root.get("info"))
        self.title = str(info.get("title", "")).strip()
        self.release = str(info.get("version", "")).strip()


def _unescaped(part: str) -> str:
    """A part of a JSON pointer in a URI fragment (RFC 6901)."""
    decoded = re.sub(r"%([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), part)
    return decoded.replace("~1", "/").replace("~0", "~")


def read(text: str) -> Document:
    """The OpenAPI document in `text`. Raises `OpenApiError`."""
    return Document(mapping(data(text)))


def data(text: str) -> Plain:
    """What `text` holds: a mapping or a list. Raises `OpenApiError`."""
    text = text.removeprefix("\ufeff")
    try:
        root = _JSON.decode(text) if text.lstrip().startswith(("{", "[")) else _yaml(text)
    except (ValueError, ArithmeticError, yaml.YAMLError) as error:
        raise OpenApiError(f"this is neither JSON nor YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise OpenApiError("this is nested too deep") from None
    return root


def _no_constant(said: str) -> NoReturn:
    raise ValueError(f"{said} is no number")


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError("a number out of range")
    return int(text)


DIGITS = 400
"""Of a whole number."""

_JSON = json.JSONDecoder(parse_int=_whole, parse_float=read_decimal, parse_constant=_no_constant)

NESTING = 200
"""libyaml's reader recurses: much deeper documents would end the process."""

UNFOLDED = 10_000_000
"""With its aliases written out, a document may have so many values: a few lines could stand for any number."""


def _yaml(text: str) -> Plain:
    loader = yaml.CSafeLoader(text)
    try:
        _check(iter(loader.get_event, None))
    finally:
        loader.dispose()
    return yaml.load(text, _Loader)


def _check(events: Iterable[yaml.Event]) -> None:
    """Raise unless the document is no deeper and no larger than can be read."""
    sizes: dict[str, int] = {}
    inside: list[tuple[str, int]] = [("", 0)]  # the anchors of what is open, and what was there before each
    count = 0
    for event in events:
        count += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append((event.anchor or "", count))
            if len(inside) > NESTING:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = inside.pop()
            sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor or ""] = 1
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in inside):
                raise RecursionError
            count += sizes.get(event.anchor or "", 0)
        if count > UNFOLDED:
            raise ValueError("its aliases stand for too much")


def mapping(value: Plain) -> Mapping[str, Plain]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: Plain) -> Sequence[Plain]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else ()


class _Loader(yaml.CSafeLoader):
    """YAML 1.2's core schema: `no` and `2026-01-31` are text, fractions are exact."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- as in its parent


_CORE = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", r"<<", "<"),
)
for _tag, _regex, _first in _CORE:
    _signs = ["" if sign == "\0" else sign for sign in _first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_regex})$"), _signs)
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: read_decimal(node.value))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: _whole(node.value))
