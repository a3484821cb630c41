"""From a schema of the document to what stands under `params`.

A contract is a tree that a person can read, so references are written out: as deep as it takes, but never more than
`NODES` values for one operation. What lies deeper is left open, with a note. A list or object in a branch is a part of
the whole that it belongs to, which the reader of rule files closes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from rules.checks import REGEX_LENGTH, search
from rules.openapi.document import Refs, mapping, sequence
from rules.openapi.notes import NARROWER, WIDER, Note
from rules.params.keywords import FORMATS, INT_BITS, NUMERIC, OF_TYPE, TYPES
from rules.params.typed import exact, type_of, types

type Spec = Mapping[str, Any]
type Written = dict[str, Any]
"""A schema in the words of rule files."""

DEPTH = 8
NODES = 300
"""Values may be nested so deep, and there may be so many of them in the contract of one operation."""

AGAIN = 2
"""A schema that holds itself is written out so many times."""

ENUM = 500
"""Of a longer list of values only the type is kept, and so of one that holds more than `NODES` besides."""

_DROPPED = (
    "patternProperties",
    "prefixItems",
    "contains",
    "if",
    "dependentRequired",
    "dependentSchemas",
    "$dynamicRef",
)
_ANNOTATIONS = frozenset({"byte", "password", "float", "double", "binary"})


class TooLarge(Exception):
    """There are more than `NODES` values."""


class Schemas:
    """Writes the schemas of one operation. `notes` collects what was lost on the way."""

    def __init__(self, refs: Refs, depth: int) -> None:
        self.refs = refs
        self.depth = depth
        self.notes: set[Note] = set()
        self._left = NODES
        self._inside: list[str] = []

    def note(self, kind: str, what: str, where: str) -> None:
        self.notes.add(Note(kind, what, where))

    def write(self, value: Any, where: str, depth: int = 0, branch: bool = False, outer: bool = False) -> Written:
        """The schema `value`, which stands at the field `where`. `outer`: the whole of a branch is an object."""
        self._left -= 1
        if self._left < 0:
            raise TooLarge
        if value is False:
            self.note(NARROWER, "nothing may stand there, says the document", where)
            return {"not": {}}
        if not isinstance(value, dict):
            return {}
        spec, ref = self._spec(value, where)
        self._inside.append(ref)
        written = self._write(spec, where, depth, branch, outer)
        self._inside.pop()
        return written

    def _write(self, spec: Spec, where: str, depth: int, branch: bool, outer: bool) -> Written:
        kinds = self._types(spec)
        written: Written = {}
        self._values(written, spec, kinds, where)
        composed = any(sequence(spec.get(word)) for word in ("allOf", "anyOf", "oneOf"))
        if "const" not in written and "enum" not in written:
            if kinds:
                written["type"] = kinds[0] if len(kinds) == 1 else kinds
            self._scalars(written, spec, set(kinds), where)
            if "array" in kinds:
                self._list(written, spec, where, depth)
            if "object" in kinds or (not kinds and (outer or composed) and {"properties", "required"} & spec.keys()):
                self._object(written, spec, where, depth, outer, composed)
        if composed:
            self._compose(written, spec, where, depth, outer or "object" in kinds or "properties" in spec)
        if "not" in spec:
            self._negate(written, spec["not"], where, depth)
        for word in _DROPPED:
            if word in spec:
                self.note(WIDER, f"`{word}` cannot be said", where)
        if spec.get("nullable") is True:
            written = _nullable(written)
        closed = "properties" in written and not {"allOf", "anyOf", "additionalProperties"} & written.keys()
        if "required" in written and closed and not branch:
            self.note(WIDER, "it requires what it does not define", where)
            del written["required"]
        return written

    # -- what a schema says

    def _spec(self, value: Spec, where: str) -> tuple[Spec, str]:
        """`value` with its references followed, and the last one; in 3.1, what stands beside one counts too."""
        found, ref = self.refs.follow(value)
        if ref and not found:
            self.note(WIDER, "a reference leads nowhere, or out of the document", where)
        beside = {name: each for name, each in value.items() if name not in ("$ref", "description", "summary")}
        return ({**found, **beside} if ref and self.refs.beside else found), ref

    def _too_deep(self, depth: int) -> bool:
        """Whether what is inside the present schema is left open."""
        ref = self._inside[-1]
        return depth >= self.depth or (bool(ref) and self._inside.count(ref) > AGAIN)

    def _types(self, spec: Spec) -> list[str]:
        """The types that it says or means; `null` among them where it is nullable."""
        said = spec.get("type")
        found = [one for one in (said if isinstance(said, list) else [said]) if one in TYPES]
        if said == "file":
            found = ["string"]
        if not found and not any(word in spec for word in ("enum", "const", "allOf", "anyOf", "oneOf")):
            implied = {kind for word in OF_TYPE if word in spec and word != "format" for kind in OF_TYPE[word]}
            found = [kind for kind in ("object", "array", "string", "number") if kind in implied][:1]
        if found and spec.get("nullable") is True and "null" not in found:
            found.append("null")
        return found

    def _values(self, written: Written, spec: Spec, types: list[str], where: str) -> None:
        if "const" in spec and not _small(spec["const"]):
            self.note(WIDER, "a value as large as this is not written out", where)
        elif "const" in spec:
            written["const"] = exact(spec["const"])
        listed = sequence(spec.get("enum"))
        if len(listed) > ENUM or not _small(listed):
            self.note(WIDER, f"a list of more than {ENUM} values is not written out", where)
        elif listed:
            text_only = set(types) <= {"string", "null"} and types
            values: list[Any] = []
            for value in listed:
                one = exact(value)
                if text_only and one is not None and not isinstance(one, str):
                    one = str(one).lower() if isinstance(one, bool) else str(one)
                if not any(one == each and type_of(one) == type_of(each) for each in values):
                    values.append(one)
            written["enum"] = values

    def _scalars(self, written: Written, spec: Spec, kinds: set[str], where: str) -> None:
        for word in (*NUMERIC_IN_ORDER, "minLength", "maxLength"):
            value = spec.get(word)
            if (
                word in spec
                and kinds & OF_TYPE[word]
                and isinstance(value, int | Decimal)
                and not isinstance(value, bool)
            ):
                written[word] = exact(value)
        for word, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if spec.get(exclusive) is True and word in written:
                written[exclusive] = written.pop(word)
        if written.get("multipleOf", 1) <= 0:
            del written["multipleOf"]
        for word in ("minLength", "maxLength"):
            if word in written and (not isinstance(written[word], int) or written[word] < 0):
                del written[word]
        pattern = spec.get("pattern")
        if isinstance(pattern, str) and pattern and "string" in kinds:
            if usable(pattern):
                written["pattern"] = pattern
            else:
                self.note(WIDER, "a regular expression that cannot be used here", where)
        form = "binary" if spec.get("type") == "file" else spec.get("format")
        numeric = form in INT_BITS and kinds & {"integer", "number"}
        if numeric or (form in FORMATS and form not in INT_BITS and "string" in kinds):
            written["format"] = form
        elif isinstance(form, str) and form not in _ANNOTATIONS and form not in INT_BITS:
            self.note(WIDER, f"the format `{form[:40]}` is not looked at", where)

    def _list(self, written: Written, spec: Spec, where: str, depth: int) -> None:
        if "items" in spec and not self._too_deep(depth):
            items = self.write(spec["items"], f"{where}[]", depth + 1)
            if items:
                written["items"] = items
        elif "items" in spec:
            self.note(WIDER, "nested too deep: anything passes", f"{where}[]")
        for word in ("minItems", "maxItems"):
            if type(spec.get(word)) is int and spec[word] >= 0:
                written[word] = spec[word]
        if spec.get("uniqueItems") is True:
            written["uniqueItems"] = True

    def _object(self, written: Written, spec: Spec, where: str, depth: int, outer: bool, composed: bool) -> None:
        properties = mapping(spec.get("properties"))
        rest = spec.get("additionalProperties")
        if self._too_deep(depth) and (properties or isinstance(rest, dict)):
            self.note(WIDER, "nested too deep: anything passes", where)
            written["additionalProperties"] = True
            return
        members: dict[str, Written] = {}
        for name, value in properties.items():
            if self.refs.follow(value)[0].get("readOnly") is True or mapping(value).get("readOnly") is True:
                continue
            members[str(name)] = self.write(value, f"{where}.{name}" if where else str(name), depth + 1)
        open_ended = rest is True or rest == {} or "patternProperties" in spec
        if isinstance(rest, dict) and rest:
            written["additionalProperties"] = self.write(rest, f"{where}.*", depth + 1) or True
        elif open_ended or (rest is None and not properties and not outer and not composed):
            self.note(WIDER, "an object of any members", where)
            written["additionalProperties"] = True
        required = [str(name) for name in sequence(spec.get("required"))]
        if properties or rest is False:
            written["properties"] = members
        for name in required:
            if name in members:
                members[name] = {**members[name], "required": True}
        others = [name for name in required if name not in properties]
        self._left -= len(others)
        if self._left < 0:
            raise TooLarge
        if others:
            written["required"] = list(dict.fromkeys(others))
        for word in ("minProperties", "maxProperties"):
            if type(spec.get(word)) is int and spec[word] >= 0:
                written[word] = spec[word]
        if "propertyNames" in spec:
            names = self.write(spec["propertyNames"], where, depth + 1)
            if names and names.get("type", "string") == "string":
                written["propertyNames"] = names

    # -- composition

    def _compose(self, written: Written, spec: Spec, where: str, depth: int, outer: bool) -> None:
        listed = sequence(spec.get("allOf"))
        whole = outer or len(listed) > 1
        parts = [self.write(each, where, depth, branch=True, outer=whole) for each in listed]
        for part in (part for part in parts if part and part != {"type": "object"}):
            if not _merge(written, part):
                written.setdefault("allOf", []).append(part)
        for word in ("anyOf", "oneOf"):
            branches = [self.write(each, where, depth, branch=True, outer=outer) for each in sequence(spec.get(word))]
            if not branches:
                continue
            if word == "oneOf" and not _apart(branches):
                self.note(WIDER, "`oneOf` is read as `anyOf`", where)
            distinct = [each for place, each in enumerate(branches) if each not in branches[:place]]
            if {} in distinct:
                self.note(WIDER, "one of several forms is anything", where)
            elif len(distinct) > 1 or not _merge(written, distinct[0]):
                self._branches(written, distinct, where)

    def _branches(self, written: Written, branches: list[Written], where: str) -> None:
        """One of `branches`; where they are lists of values or plain types, in one list."""
        if not written and all(set(each) == {"enum"} for each in branches):
            values = [value for each in branches for value in each["enum"]]
            written["enum"] = [value for place, value in enumerate(values) if value not in values[:place]]
        elif not written and all(set(each) == {"type"} and isinstance(each["type"], str) for each in branches):
            written["type"] = [each["type"] for each in branches]
        elif "anyOf" in written:
            written.setdefault("allOf", []).append({"anyOf": branches})
        else:
            written["anyOf"] = branches

    def _negate(self, written: Written, value: Any, where: str, depth: int) -> None:
        before = set(self.notes)
        denied = self.write(value, where, depth, branch=True)
        lost = [note for note in self.notes - before if note.kind == WIDER]
        self.notes = before
        if denied and not lost:
            written["not"] = denied
        else:
            self.note(WIDER, "`not` cannot be said", where)


NUMERIC_IN_ORDER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
assert set(NUMERIC_IN_ORDER) == NUMERIC


def usable(pattern: str) -> bool:
    """Whether `pattern` is a regular expression of ours."""
    if len(pattern) > REGEX_LENGTH:
        return False
    try:
        search(pattern)
    except ValueError:
        return False
    return True


def _small(value: Any) -> bool:
    """Whether `value` is not nested deeper than a schema may be, and there is not too much in it."""
    level, left = [value], ENUM + NODES
    for _ in range(DEPTH):
        left -= len(level)
        level = [each for one in level for each in (one.values() if isinstance(one, dict) else sequence(one))]
        if not level or left < 0:
            break
    return left >= 0 and not level


def _apart(branches: Sequence[Written]) -> bool:
    """Whether no value can be two of `branches`, since their types differ."""
    seen: set[str] = set()
    for branch in branches:
        own = types([branch])
        own |= {"integer"} if "number" in own else set()
        if not own or own & seen:
            return False
        seen |= own
    return True


def _nullable(written: Written) -> Written:
    """`written`, or `null`."""
    if "enum" in written:
        return written if None in written["enum"] else {**written, "enum": [*written["enum"], None]}
    if "type" in written:
        types = written["type"] if isinstance(written["type"], list) else [written["type"]]
        return written if "null" in types else {**written, "type": [*types, "null"]}
    if set(written) == {"anyOf"}:
        null = {"type": "null"}
        return written if null in written["anyOf"] else {"anyOf": [*written["anyOf"], null]}
    return {"anyOf": [written, {"type": "null"}]} if written else written


def _merge(written: Written, part: Written) -> bool:
    """Take `part` into `written`, if nothing that they say is about the same. Whether it was done."""
    if not written:
        written.update(part)
        return True
    alike = set(written) & set(part)
    if alike - {"type", "properties", "required"} or ("type" in alike and written["type"] != part["type"]):
        return False
    if "additionalProperties" in written or "additionalProperties" in part:
        return False
    ours, its = written.get("properties", {}), part.get("properties", {})
    if set(ours) & set(its):
        return False
    if set(part) <= {"type", "properties", "required"}:
        required = [*written.get("required", ()), *part.get("required", ())]
        for name in required:
            for members in (ours, its):
                if name in members:
                    members[name] = {**members[name], "required": True}
        written.update({**part, **({"properties": {**ours, **its}} if ours or its else {})})
        left = [name for name in dict.fromkeys(required) if name not in written.get("properties", {})]
        written.pop("required", None)
        if left:
            written["required"] = left
        return True
    return False
