"""Fields: the names by which rules read a call, and what stands behind them.

    path.NAME          what `{NAME}` in the pattern captured, in the path or in the host
    query.NAME         a query parameter
    header.NAME        a header, by any case
    body.a.b           a member of a JSON object; in forms, `a[b]` is the same
    body.to[].email    of every element
    body["odd.name"]   quotes for names that hold other signs than letters, digits, `_` and `-`
    args.a.b           an argument of the tool that an MCP message calls, or of a GraphQL root field
    agent run tool host method credential

Text from paths, queries, headers, forms and multipart bodies is `WireText`: it may spell a number, JSON text may not.
What can be read in two ways is never guessed: a parameter or header that stands twice, `a` beside `a[b]`, one value
where `[]` expects a list. It reads as `Many` with `ambiguous` set, which no allow accepts and every deny looks into.
"""

from __future__ import annotations

import difflib
import enum
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, Literal, NoReturn, cast

import msgspec

from rules.call import Body, Call, Json, Part
from rules.decision import Plain
from rules.forms import Either, Indexed, tree
from rules.problems import Problem, RuleFileError
from rules.suggest import LIKENESS
from rules.yamltree import Node


class Absent(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""The call has no such field. Not the same as JSON's null, which is a value."""


class Many(msgspec.Struct, frozen=True):
    """Several values behind one field. `ambiguous`: they are readings of one value, and nobody knows which counts."""

    values: tuple[Json | Absent, ...]
    ambiguous: bool = False


type Value = Json | Many | Absent


class WireText(str):
    """Text that came without a type, from path, query, header, form or multipart: `"5"` here may be a number."""

    __slots__ = ()


class ConditionError(Exception):
    """A field can not be read or compared. Deciding ends here, with a refusal."""


EACH: Final = 0
"""The step `[]`: into every element of a list. Other steps are the names of members."""

type Step = str | Literal[0]
type Place = Literal[
    "path", "query", "header", "body", "args", "agent", "run", "tool", "host", "method", "credential", "status"
]  # fmt: skip
"""`status` is of answers only (`rules.answers`)."""


class Field(msgspec.Struct, frozen=True, cache_hash=True):
    """A parsed field name. `text` is its normal spelling: equal fields have equal texts."""

    text: str
    place: Place
    steps: tuple[Step, ...] = ()

    @property
    def needs_body(self) -> bool:
        return self.place in ("body", "args")

    def __str__(self) -> str:
        return self.text


_NAMED: Final = ("path", "query", "header", "body", "args")
_ALONE: Final = ("agent", "run", "tool", "host", "method", "credential")
_STEP = re.compile(r"\.([A-Za-z0-9_$@-]+)|(\[\])|\[(\"(?:[^\"\\]|\\.)*\")\]")
_WORD = re.compile(r"[A-Za-z0-9_$@-]+")
_ELEMENT = re.compile(r"\[(?:[0-9]+|\*)\]|\.\*")


def parse_field(text: str, node: Node) -> Field:
    """The field that `text` names. Raises `RuleFileError` pointing into `node`, whose text it is (or whose part)."""
    offset = max(node.scalar.find(text), 0) if isinstance(node.scalar, str) else 0

    def fail(at: int, message: str, help: str, code: str = "field") -> NoReturn:
        raise RuleFileError((Problem(code, message, node.at(offset + at), help),))

    head = _WORD.match(text)
    place = head[0] if head else ""
    if place not in _NAMED and place not in _ALONE:
        near = difflib.get_close_matches(place, (*_NAMED, *_ALONE), 1, LIKENESS)
        if near:
            fail(0, f"`{text}` is not a field", f"did you mean `{near[0]}{text[len(place) :]}`?")
        if place:
            where = " or ".join(f"`{named}.{text}`" for named in ("body", "query", "path"))
            fail(0, f"`{text}` is not a field", f"say where it stands: {where}")
        fail(0, f"`{text}` is not a field", f"fields start with {_list(_NAMED)}, or are {_list(_ALONE)}")
    steps: list[Step] = []
    at = len(place)
    while at < len(text):
        found = _STEP.match(text, at)
        if not found:
            one = _ELEMENT.match(text, at)
            every = f"every element is `{text[:at]}[]{text[one.end() :]}`" if one else ""
            fail(at, f"`{text[at:]}` in `{text}` can not be read", every or f'quote odd names: `{place}["odd.name"]`')
        name, each, quoted = found.groups()
        if quoted:
            try:
                name = json.loads(quoted)
            except ValueError:
                fail(at, f"`{quoted}` is not a quoted name", 'escape only `\\"` and `\\\\`, as in JSON')
        steps.append(EACH if each else name.lower() if place == "header" else name)
        at = found.end()
    if place in _ALONE and steps:
        fail(len(place), f"`{place}` has no members", f"write `{place}` alone")
    if place in _WHAT:
        if not steps or steps[0] == EACH:
            fail(len(place), f"`{text}` names no {_WHAT[place]}", f"write `{place}.NAME`")
        if len(steps) > (1 if place == "path" or steps[-1] != EACH else 2):
            fail(len(place), f"a {_WHAT[place]} has no members", f'quote a name with signs in it: `{place}["a.b"]`')
    return Field(spell(place, steps), cast(Place, place), tuple(steps))


_WHAT: Final = {"path": "part of the path", "query": "query parameter", "header": "header"}


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def spell(place: str, steps: Iterable[Step]) -> str:
    """The normal spelling of a field."""
    return place + "".join(map(_spell, steps))


def _spell(step: Step) -> str:
    if step == EACH:
        return "[]"
    return f".{step}" if _WORD.fullmatch(step) else f"[{json.dumps(step, ensure_ascii=False)}]"


def read_field(call: Call, bindings: Mapping[str, str], field: Field, tool: str = "") -> Value:
    """What `call` has behind `field`, but for `args`. `bindings`: what its pattern captured; `tool`: what names it.

    Raises `ConditionError` where the body is needed but was not read, or can not be decoded.
    """
    place = field.place
    if place == "body":
        return read_in_body(call.body, field.steps)
    if place == "path":
        captured = bindings.get(cast(str, field.steps[0]))
        return ABSENT if captured is None else WireText(captured)
    if place in ("query", "header"):
        return read_named(call.query if place == "query" else call.headers, field.steps)
    alone: str = tool if place == "tool" else getattr(call, place)
    return alone or ABSENT


def plain(value: Value) -> Plain:
    """`value` as the ledger keeps it: decimals as text, `{"absent": true}`, `{"many": [...], "ambiguous": ...}`."""
    if type(value) is str or type(value) is int:
        return value
    if isinstance(value, Absent):
        return {"absent": True}
    if isinstance(value, Many):
        return {"many": [plain(each) for each in value.values], "ambiguous": value.ambiguous}
    if isinstance(value, str | Decimal):
        return str(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def fact(value: object) -> Plain:
    """As `plain`, of a place in a decoded form: what a field that names it would read."""
    if isinstance(value, Either):
        return plain(Many(tuple(_json(reading) for reading in value.readings), ambiguous=True))
    read = _json(value)
    return plain(Many((read,), ambiguous=True) if _undecided(value) else read)


def read_named(pairs: Iterable[tuple[str, str]], steps: tuple[Step, ...]) -> Value:
    """What stands in `pairs` (of names and values) under the name that is the first of `steps`; `[]` may follow it."""
    found = [WireText(value) for name, value in pairs if name == steps[0]]
    if len(steps) == 2:
        return Many(tuple(found)) if found else ABSENT
    if len(found) > 1:
        return Many(tuple(found), ambiguous=True)
    return found[0] if found else ABSENT


def read_in_body(body: Body, steps: tuple[Step, ...]) -> Value:
    """What `body` has behind `steps`. Raises `ConditionError` where it was not read, or can not be decoded."""
    if body.kind in ("unread", "undecodable"):
        raise ConditionError(f"the body is needed but {body.problem or 'was not read'}")
    wanted = steps[0] if steps and steps[0] != EACH else None
    if body.kind == "json":
        root: object = body.json
    elif body.kind == "form":
        root = tree([(name, WireText(value)) for name, value in body.fields if name.startswith(wanted or "")], wanted)
    elif body.kind == "multipart":
        root = tree(((part.name, part_value(part)) for part in body.parts), wanted)
    else:
        return ABSENT
    return read_in_value(root, steps)


def read_in_value(root: object, steps: tuple[Step, ...]) -> Value:
    """What a decoded value has behind `steps`."""
    value = root
    for step in steps:
        if type(value) is not dict or step not in value:
            break
        value = value[step]
    else:
        if type(value) in _SCALARS:  # the usual case: plain members lead to plain data
            return cast(Json, value)
    found: list[Json | Absent] = []
    ambiguous = _walk(root, steps, 0, found)
    if found.count(ABSENT) == len(found):
        return ABSENT
    if ambiguous or EACH in steps:
        return Many(tuple(found), ambiguous)
    return found[0]


_SCALARS: Final = frozenset({str, WireText, int, bool, Decimal, type(None)})


def _walk(value: object, steps: tuple[Step, ...], at: int, found: list[Json | Absent]) -> bool:
    """Collects what stands behind `steps[at:]` in `value`. True: it could also be read in another way."""
    if isinstance(value, Either):
        for reading in value.readings:
            _walk(reading, steps, at, found)
        return True
    if at == len(steps):
        found.append(_json(value))
        return _undecided(value)
    step = steps[at]
    elements = _elements(value)
    if step == EACH:
        if elements is None:  # one value where a list is expected: many APIs take either
            _walk(value, steps, at + 1, found)
            return True
        if not elements:
            found.append(ABSENT)
            return False
        return sum(_walk(element, steps, at + 1, found) for element in elements) > 0
    if isinstance(value, dict):
        if step in value:
            return _walk(value[step], steps, at + 1, found)
    elif elements:  # a list where one object is expected
        for element in elements:
            _walk(element, steps, at, found)
        return True
    found.append(ABSENT)
    return False


def _elements(value: object) -> list[object] | None:
    if isinstance(value, Indexed):
        return [value[key] for key in sorted(value, key=int)]
    return value if isinstance(value, list) else None


def _json(value: object) -> Json:
    if isinstance(value, Either):
        return [_json(reading) for reading in value.readings]
    elements = _elements(value)
    if elements is not None:
        return [_json(element) for element in elements]
    if isinstance(value, dict):
        return {name: _json(member) for name, member in value.items()}
    return cast(Json, value)


def _undecided(value: object) -> bool:
    """Whether a decoded form holds, anywhere in `value`, what can be read in two ways."""
    if isinstance(value, dict):
        return any(map(_undecided, value.values()))
    if isinstance(value, list):
        return any(map(_undecided, value))
    return isinstance(value, Either)


_NO_BYTES: Final = hashlib.sha256(b"").digest()


class File(dict[str, object]):
    """In a decoded multipart body: a part that is a file, or not text; what is known about it."""


def part_value(part: Part) -> object:
    """A part's text; for files, and for parts that are not text, what is known about them."""
    if not part.filename and (part.text or part.sha256 in (b"", _NO_BYTES)):
        return WireText(part.text)
    named = {"filename": part.filename, "media_type": part.media_type}
    return File({**{key: WireText(value) for key, value in named.items()}, "sha256": part.sha256.hex()})
