"""From the `params:` of a tool to its contract.

Where JSON Schema would let something through in silence, the reader here asks: a keyword that says nothing about its
type, a bound without a type, an object that names no members.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Literal, cast

import msgspec

from rules.call import Json
from rules.checks import REGEX_LENGTH, search
from rules.fields import EACH, parse_field
from rules.params.contract import BODY_KINDS, Contract, PlaceName, place
from rules.params.keywords import BRANCHES, FORMATS, INT_BITS, KEYWORDS, MEANT, NO_HELP, NUMERIC, OF_TYPE, SPLITS, TYPES
from rules.params.telling import SPOKEN
from rules.params.typed import exact, flat
from rules.shape import Report
from rules.suggest import listing, suggest
from rules.where import fail_regex
from rules.yamltree import Node

WHOLE = "$body"
"""The body as a whole, where it is no object or more is to be said about it than its members."""

WHOLES: dict[str, PlaceName] = {WHOLE: "body", "$args": "args"}
"""The same of the arguments of a message."""

PLACED = re.compile(r"(path|query|body|args|header)(?=[.\[])")
_IN_BODY = frozenset({"POST", "PUT", "PATCH"})
_IN_QUERY = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class Calls(msgspec.Struct, frozen=True):
    """What is known of a tool's calls before its parameters are read: `methods`, empty where some match any; `names`
    that its patterns capture; the declared `body`, or None; `messages`: they are those of a protocol, and ask for an
    operation with arguments; `beside`: query parameters that are none."""

    methods: frozenset[str]
    names: tuple[str, ...]
    body: str | None
    messages: bool
    beside: frozenset[str]


def read_params(node: Node, calls: Calls, watched: bool, report: Report) -> Contract | None:
    """The contract that `node` says, or None when something is wrong with it, which is in the report."""
    before = len(report.problems)
    if node.kind != "map":
        report.wrong_type(node, "`params`", "a mapping from names to what they may be", "`params: {}` is none at all")
        return None
    home = _home(calls)
    found: dict[PlaceName, dict[str, dict[str, Any]]] = {"path": {}, "query": {}, "body": {}, "args": {}}
    required: dict[PlaceName, list[str]] = {"path": [], "query": [], "body": [], "args": []}
    whole: tuple[Node, dict[str, Any], bool] | None = None
    for key, value in node.entries:
        where = report.attempt(partial(_where, key, home, calls))
        schema = report.attempt(partial(_parameter, value, where))
        if where is None or schema is None:
            continue
        if key.scalar in WHOLES:
            whole = (key, *schema)
        elif where[1] in found[where[0]]:
            report.add("params", f"`{where[1]}` of {SPOKEN[where[0]]} is named twice", key, "name each parameter once")
        else:
            found[where[0]][where[1]] = schema[0]
            if schema[1]:
                required[where[0]].append(where[1])
    inside: PlaceName = "args" if calls.messages else "body"
    if whole is not None and found[inside]:
        mend = f"put them into the `properties` of `{whole[0].scalar}`"
        beside = "other arguments" if calls.messages else "parameters of the body"
        report.add("params", f"`{whole[0].scalar}` stands beside {beside}", whole[0], mend)
    if len(report.problems) > before:
        return None
    said = whole[1] if whole is not None else _object(found[inside], required[inside])
    body = {} if calls.messages else said  # the body is the message, which is read strictly anyway
    return Contract(
        path=place("path", _object(found["path"], required["path"])) if found["path"] else None,
        query=place("query", _object(found["query"], required["query"])),
        body=place("body", body, optional=whole is not None and not whole[2]),
        home=home or "",
        kinds=_kinds(calls.body, body),
        args=place("args", said) if calls.messages else None,
        beside=calls.beside,
        watched=watched,
    )


def _kinds(body: str | None, schema: Mapping[str, Any]) -> tuple[str, ...]:
    """How bodies may read; nothing where any body will do."""
    if body == "text" or not schema:
        return ()
    return (body,) if body in BODY_KINDS else BODY_KINDS


def _object(properties: dict[str, dict[str, Any]], required: Sequence[str]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def _home(calls: Calls) -> PlaceName | None:
    """Where bare names stand: among the arguments if the tool's calls are messages, in the body if it has one, else in
    the query; None where that is not known."""
    if calls.messages:
        return "args"
    if calls.body is not None:
        return "query" if calls.body in ("none", "text") else "body"
    if calls.methods and calls.methods <= _IN_BODY:
        return "body"
    return "query" if calls.methods and calls.methods <= _IN_QUERY else None


def _where(key: Node, home: PlaceName | None, calls: Calls) -> tuple[PlaceName, str]:
    """The place and the name of the parameter that `key` says."""
    text = str(key.scalar)
    named: PlaceName = home or "body"
    name = text
    placed = PLACED.match(text)
    if text in WHOLES:
        named = WHOLES[text]
    elif placed:
        field = parse_field(text, key)
        if field.place == "header":
            key.fail("params", f"`{text}` is a header, which is no parameter", "limit it by the `where` of a rule")
        if field.steps[:1] == (EACH,):
            key.fail("params", f"`{text}` is no parameter", f"write `${field.place}: {{type: array, items: ...}}`")
        if len(field.steps) != 1:
            mend = f'write `{field.steps[0]}: {{properties: {{...}}}}`, or quote the name: `{field.place}["a.b"]`'
            key.fail("params", f"`{text}` is a member of a parameter", mend)
        named, name = cast(PlaceName, field.place), str(field.steps[0])
    elif home is None:
        mend = f"write `query.{text}` or `body.{text}`, or say `body: json` or `body: none` for the tool"
        key.fail("params", f"`{text}` does not say where it stands: not all methods here have a body", mend)
    if named == "path" and name not in calls.names:
        captured = listing((f"{{{each}}}" for each in calls.names), "and") if calls.names else "no name"
        message = f"`path.{name}` is never set: the pattern captures {captured}"
        key.fail("unknown-path-name", message, suggest(name, calls.names))
    if named == "body" and calls.messages:
        mend = f"write `{'$args' if text == WHOLE else f'args.{name}'}`"
        key.fail("params", f"`{text}` is in the body, which is a message here: its arguments are parameters", mend)
    if named == "args" and not calls.messages:
        mend = "only a tool whose every match says `mcp` (not `session`) or `graphql` has arguments"
        key.fail("params", f"`{text}` is never set: the calls of this tool have no arguments", mend)
    if named == "body" and calls.body in ("none", "text"):
        mend = "say `body: json`, `body: form` or `body: multipart`"
        key.fail("params", f"`{text}` is in the body, and the tool says `body: {calls.body}`", mend)
    return named, name


def _parameter(node: Node, where: tuple[PlaceName, str] | None) -> tuple[dict[str, Any], bool]:
    """A parameter's schema, and whether it is required."""
    schema = _schema(node, "own", frozenset())
    if where is not None and where[0] == "path" and "object" in _types(schema):
        node.fail("params", "a part of the path is no object", "say what its text is: `{type: string, pattern: ...}`")
    return schema, _is_required(node)


def _is_required(node: Node) -> bool:
    said = node.get("required")
    return said is not None and said.scalar is True


type _Position = Literal["own", "branch"]
"""A schema in a branch is a part of the one that it belongs to, which is closed as a whole."""


def _schema(node: Node, position: _Position, outer: frozenset[str]) -> dict[str, Any]:
    """The closed schema that `node` says. `outer`: the types of the schema that a branch belongs to."""
    if node.kind == "list":
        return {"enum": _values(node)}
    if node.kind == "scalar":
        if node.scalar is None and position == "own":
            node.fail("params", "nothing is said about this parameter", "write its type; `{}` is anything")
        return _closed(node, {"type": _type(node)}, position, outer)
    said: dict[str, Node] = {}
    for key, value in node.entries:
        name = str(key.scalar)
        if name not in KEYWORDS:
            known = MEANT.get(name, name)
            mend = NO_HELP.get(name) or suggest(known, KEYWORDS) or f"its keys are {', '.join(KEYWORDS)}"
            key.fail("unknown-key", f"`{name}` is not a key of a parameter", mend)
        said[name] = value
    schema: dict[str, Any] = {}
    if "type" in said:
        schema["type"] = _type_or_types(said["type"])
    types = _types(schema) or outer
    for key, _ in node.entries:
        name = str(key.scalar)
        if name in OF_TYPE and types and not types & OF_TYPE[name]:
            mend = f"it speaks of {listing(sorted(OF_TYPE[name]), 'and')}; remove it, or change the type"
            key.fail("params", f"`{name}` says nothing about {listing(sorted(types), 'and')}", mend)
        if name in NUMERIC and not types:
            key.fail(
                "params", f"`{name}` stands without a type: any text would pass", "add `type: integer` or `number`"
            )
    implied = [name for name in said if name in OF_TYPE and len(OF_TYPE[name]) == 1]
    if implied and not types:
        schema["type"] = next(iter(OF_TYPE[implied[0]]))
        if any(OF_TYPE[name] != OF_TYPE[implied[0]] for name in implied):
            node.fail("params", "the keys here speak of different types", "say the `type`, or use `anyOf`")
        types = _types(schema)
    for name, value in said.items():
        _keyword(schema, name, value, position, types)
    _add_required(schema, node, said, position)
    return _closed(node, schema, position, outer)


def _keyword(schema: dict[str, Any], name: str, value: Node, position: _Position, types: frozenset[str]) -> None:
    """Add to `schema` what the keyword `name` says."""
    if name in ("type", "required"):
        return
    if name == "enum":
        schema[name] = _values(value)
    elif name == "const":
        schema[name] = exact(cast(Json, value.plain()))
    elif name == "description":
        _text(value, name)
    elif name in NUMERIC:
        _bound(schema, name, value)
    elif name == "pattern":
        schema[name] = _pattern(value)
    elif name == "format":
        _format(schema, value, types)
    elif name == "split":
        schema[name] = _choice(value, name, SPLITS)
    elif name == "uniqueItems":
        schema[name] = _bool(value, name)
    elif name == "additionalProperties" and isinstance(value.scalar, bool):
        schema[name] = value.scalar
    elif name in ("items", "additionalProperties", "propertyNames"):
        schema[name] = _schema(value, "own", frozenset())
    elif name == "not":
        schema[name] = _schema(value, "branch", types)
    elif name == "properties":
        schema[name] = _properties(value)
    elif name in BRANCHES:
        if not value.items:
            value.fail("params", f"`{name}` takes a list", f"write `{name}: [{{...}}, {{...}}]`")
        schema[name] = [*schema.get(name, ()), *(_schema(item, "branch", types) for item in value.items)]
    else:
        schema[name] = _count(value, name)


def _properties(node: Node) -> dict[str, Any]:
    if node.kind != "map":
        node.fail("wrong-type", "`properties` has to be a mapping", "write `properties: {name: {type: string}}`")
    return {str(key.scalar): _schema(value, "own", frozenset()) for key, value in node.entries}


def _add_required(schema: dict[str, Any], node: Node, said: Mapping[str, Node], position: _Position) -> None:
    """The members that have to be there: those that say `required: true`, or that a list names."""
    properties = said.get("properties")
    required = [str(key.scalar) for key, value in properties.entries if _is_required(value)] if properties else []
    listed = said.get("required")
    if listed is not None and listed.kind == "list":
        for item in listed.items:
            name = _text(item, "required")
            if _complete(said, position) and name not in schema["properties"]:
                mend = suggest(name, schema["properties"]) or "name it under `properties`"
                item.fail("params", f"`{name}` is required, and no such member is permitted", mend)
            if name not in required:
                required.append(name)
    elif listed is not None and not isinstance(listed.scalar, bool):
        listed.fail("params", "`required` is neither `true` nor a list of members", "write `required: true`")
    elif listed is not None and position == "branch":
        listed.fail("params", "`required: true` stands at a parameter or member", "name the members: `required: [a]`")
    if required:
        schema["required"] = required


def _complete(said: Mapping[str, Node], position: _Position) -> bool:
    """Whether `properties` name all members that there may be."""
    return position == "own" and "properties" in said and not {*BRANCHES, "additionalProperties"} & said.keys()


def _closed(node: Node, schema: dict[str, Any], position: _Position, outer: frozenset[str]) -> dict[str, Any]:
    """`schema` with what it does not name refused: once, at the outermost object, since branches see only a part."""
    composed = any(word in schema for word in BRANCHES)
    types = _types(schema)
    bare = "object" in types and not composed and not {"properties", "additionalProperties"} & schema.keys()
    if bare and not (position == "branch" and ("object" in outer or "required" in schema)):
        mend = "name them under `properties`, or say `additionalProperties: true` if any will do"
        node.fail("params", "an object, and nothing about its members", mend)
    if position == "branch":
        return schema
    if not composed:
        return {**schema, "additionalProperties": False, **schema} if "properties" in schema else schema
    if any({"properties", "required"} & part.keys() or "object" in _types(part) for part in flat(schema)):
        rest = schema.pop("additionalProperties", False)
        if rest is not True:
            schema["unevaluatedProperties"] = rest
    return schema


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    said = schema.get("type", ())
    return frozenset({said} if isinstance(said, str) else said)


def _type_or_types(node: Node) -> str | list[str]:
    if node.kind != "list":
        return _type(node)
    if not node.items:
        node.fail("params", "the list of types is empty", "name one at least")
    found = [_type(item) for item in node.items]
    return found if len(found) > 1 else found[0]


def _type(node: Node) -> str:
    if node.kind == "scalar" and node.scalar is None:
        return "null"
    text = node.scalar
    if text not in TYPES:
        meant = {"int": "integer", "float": "number", "str": "string", "text": "string", "bool": "boolean"}
        meant |= {"list": "array", "dict": "object", "map": "object", "decimal": "number"}
        shown = f"`{text}`" if isinstance(text, str) else "this"
        mend = suggest(meant.get(str(text), str(text)), TYPES) or f"types are {listing(TYPES, 'and')}"
        node.fail("params", f"{shown} is no type of a parameter", mend)
    return str(text)


def _values(node: Node) -> list[Json]:
    if node.kind != "list" or not node.items:
        node.fail("params", "`enum` takes a list of values", "write `enum: [a, b]`")
    values = [exact(cast(Json, item.plain())) for item in node.items]
    for place_, value in enumerate(values):
        if any(value == one and type(value) is type(one) for one in values[:place_]):
            node.items[place_].fail("repeated", "this value stands twice", "name each value once")
    return values


def _bound(schema: dict[str, Any], name: str, node: Node) -> None:
    number = node.scalar
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        node.fail("params", f"`{name}` takes a number", "leave out the quotes" if isinstance(number, str) else "")
    found = exact(number)
    assert isinstance(found, int | Decimal)
    schema[name] = found
    if name == "multipleOf":
        if found <= 0:
            node.fail("params", "`multipleOf` takes a number above 0")
        if isinstance(found, int):  # the validator takes large fractions for multiples of whole numbers
            whole = {"anyOf": [{"type": "integer"}, {"not": {"type": "number"}}]}
            schema["allOf"] = [*schema.get("allOf", ()), whole]


def _count(node: Node, name: str) -> int:
    if type(node.scalar) is not int or node.scalar < 0:
        node.fail("params", f"`{name}` takes a whole number", "write how many")
    return node.scalar


def _pattern(node: Node) -> str:
    text = _text(node, "pattern")
    if len(text) > REGEX_LENGTH:
        node.fail("regex", f"`pattern` takes at most {REGEX_LENGTH} characters")
    try:
        search(text)
    except ValueError:
        fail_regex(node)
    return text


def _format(schema: dict[str, Any], node: Node, types: frozenset[str]) -> None:
    text = _choice(node, "format", FORMATS)
    bits = INT_BITS.get(text)
    if (bits is None) == ("string" not in types and bool(types)):
        kind = "texts" if bits is None else "whole numbers"
        node.fail("params", f"`{text}` is a format of {kind}", "change it, or the type")
    schema["format"] = text
    if bits is not None:
        bounds = {"minimum": -(1 << bits), "maximum": (1 << bits) - 1}
        schema["allOf"] = [*schema.get("allOf", ()), bounds]


def _choice(node: Node, name: str, allowed: Sequence[str]) -> str:
    text = _text(node, name)
    if text not in allowed:
        mend = suggest(text, allowed) or f"write {listing(allowed)}"
        node.fail("choice", f"`{text}` is not a value of `{name}`", mend)
    return text


def _bool(node: Node, name: str) -> bool:
    if not isinstance(node.scalar, bool):
        node.fail("params", f"`{name}` takes `true` or `false`")
    return node.scalar


def _text(node: Node, name: str) -> str:
    if not isinstance(node.scalar, str) or not node.scalar:
        node.fail("params", f"`{name}` takes a text", "quote it" if node.kind == "scalar" else "")
    return node.scalar
