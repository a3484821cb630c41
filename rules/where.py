"""Conditions: what `where` says about the fields of a call.

    {body.amount: {gte: 100, lte: 5000}}        every operator of a field holds
    {path.owner: {eq: acme}, agent: {ne: ci}}   every field holds; `agent: release` is short for `{eq: release}`
    {any: [COND, COND]}  {all: [...]}  {not: COND}
    {status: 2xx, body.ok: true}                of answers (`rules.answers`)

Three-valued: a test of an absent field, or of a value of another type than its limit, decides nothing. What then counts
depends on the side that asks, and always on the safe side (`exists` apart, which is never in doubt):

    allow, unless   the test fails, and so does its negation; of many values every one must pass
    deny, guard     bounds, `ne` and `not_in` hold, in any negation the same; the others do not, but their negations do;
                    of many values one that passes is enough

Negation goes down to the tests: `not: {x: {eq: 1}}` is `x: {ne: 1}`, `not: {x: {lt: 1}}` is `x: {gte: 1}`.

Values: a bound is compared with JSON numbers, and with text from the wire that spells a decimal (`-?digits[.digits]`,
no leading zero); never with `"5"` in JSON, nor with `true`. Wire text also equals `true` and `false` so spelled.
Numbers are compared exactly, whatever their size. `matches` wants the whole value, in Rust's regex dialect, where
`\\d` and `\\w` are ASCII. Comparing never rounds, folds case or normalises.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from operator import ge, gt, le, lt
from typing import Any, Final, Literal, NoReturn

import msgspec

from rules import checks
from rules.call import Json
from rules.fields import Absent, ConditionError, Field, Many, Value, parse_field
from rules.problems import Problem, RuleFileError
from rules.suggest import nearest
from rules.yamltree import Node, Scalar

__all__ = ["OPERATORS", "Condition", "ConditionError", "Miss", "Read", "Side", "parse_where"]

type Side = Literal["allow", "deny", "guard", "unless"]
type Read = Callable[[Field], Value]


class Miss(msgspec.Struct, frozen=True):
    """One test that did not hold: the field, its value as shown to people, and the limit, such as `lte 5000`."""

    field: str
    actual: str
    limit: str


class Test(msgspec.Struct, frozen=True):
    """One operator on one field. `check` is the compiled limit."""

    field: Field
    operator: str
    limit: Json
    check: checks.Check

    def holds(self, read: Read, side: Side, affirmed: bool) -> bool:
        value = read(self.field)
        strict = side in ("allow", "unless")
        if isinstance(value, Many):
            if value.ambiguous and strict:
                return False
            values: tuple[Json | Absent, ...] = value.values
        elif isinstance(value, list) and not strict:
            values = tuple(value) or (value,)  # many APIs take a list where they expect one value
        else:
            return self._passes(value, strict, affirmed)
        each = (self._passes(one, strict, affirmed) for one in values)
        return all(each) if strict else any(each)

    def _passes(self, value: Json | Absent, strict: bool, affirmed: bool) -> bool:
        verdict = self.check(value)
        if verdict is not None:
            return verdict is affirmed
        if strict:
            return False
        return self.operator in BOUNDS or affirmed is (self.operator in _REFUSING)

    def means(self, affirmed: bool) -> str:
        """The operator, or its opposite where the test shall not hold."""
        return self.operator if affirmed else _OPPOSITES.get(self.operator, f"not {self.operator}")

    def describe(self, affirmed: bool = True) -> str:
        return f"{self.means(affirmed)} {_show(self.limit)}"


class AllOf(msgspec.Struct, frozen=True):
    parts: tuple[Part, ...]


class AnyOf(msgspec.Struct, frozen=True):
    parts: tuple[Part, ...]


class NotOf(msgspec.Struct, frozen=True):
    part: Part


type Part = Test | AllOf | AnyOf | NotOf


class Condition(msgspec.Struct, frozen=True):
    """A parsed condition. `fields`: what it reads, each once."""

    root: Part
    fields: tuple[Field, ...]

    def holds(self, read: Read, side: Side) -> bool:
        """Whether it holds for the call behind `read`, asked by `side`. Raises `ConditionError`: then refuse."""
        return _holds(self.root, read, side, True)

    def verdict(self, read: Read) -> bool | None:
        """Whether it holds, as strictly as in an allow; None where what decides it can not be read."""
        return _verdict(self.root, read, True)

    def misses(self, read: Read, side: Side) -> tuple[Miss, ...]:
        """The tests because of which it does not hold; nothing where it does."""
        return tuple(dict.fromkeys(_misses(self.root, read, side, True)))

    def describe(self) -> str:
        """The condition in one line, as a rule file would say it."""
        return _describe(self.root)


def _holds(part: Part, read: Read, side: Side, affirmed: bool) -> bool:
    if isinstance(part, Test):
        return part.holds(read, side, affirmed)
    if isinstance(part, NotOf):
        return _holds(part.part, read, side, not affirmed)
    each = (_holds(one, read, side, affirmed) for one in part.parts)
    return all(each) if isinstance(part, AllOf) is affirmed else any(each)


def _verdict(part: Part, read: Read, affirmed: bool) -> bool | None:
    """As `_holds` of an allow, in three values: what can not be read counts only where nothing else decides."""
    if isinstance(part, Test):
        try:
            return part.holds(read, "allow", affirmed)
        except ConditionError:
            return None
    if isinstance(part, NotOf):
        return _verdict(part.part, read, not affirmed)
    each = [_verdict(one, read, affirmed) for one in part.parts]
    decisive = isinstance(part, AnyOf) is affirmed
    return decisive if decisive in each else None if None in each else not decisive


def _misses(part: Part, read: Read, side: Side, affirmed: bool) -> Iterator[Miss]:
    if _holds(part, read, side, affirmed):
        return
    if isinstance(part, Test):
        yield Miss(part.field.text, _show(read(part.field)), part.describe(affirmed))
    elif isinstance(part, NotOf):
        yield from _misses(part.part, read, side, not affirmed)
    else:
        for one in part.parts:
            yield from _misses(one, read, side, affirmed)


def _describe(part: Part) -> str:
    if isinstance(part, Test):
        return f"{part.field} {part.describe()}"
    if isinstance(part, NotOf):
        return f"not ({_describe(part.part)})"
    inner = [f"({_describe(one)})" if isinstance(one, AllOf | AnyOf) else _describe(one) for one in part.parts]
    return (" and " if isinstance(part, AllOf) else " or ").join(inner)


SHOWN: Final = 100
"""Longer values are cut when they are shown."""


def _show(value: Value) -> str:
    if isinstance(value, Absent):
        return "absent"
    if isinstance(value, Many):
        shown = ", ".join(map(_show, value.values))
        text = f"ambiguous: {shown}" if value.ambiguous else f"[{shown}]"
    elif isinstance(value, Decimal):
        text = str(value)
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > SHOWN:
        text = f"{text[: SHOWN - 3]}..."
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text)


BOUNDS: Final = ("lt", "lte", "gt", "gte")
_REFUSING: Final = ("ne", "not_in")
_PAIRS: Final = (("eq", "ne"), ("in", "not_in"), ("lt", "gte"), ("gt", "lte"))
_OPPOSITES: Final = dict(_PAIRS) | {other: one for one, other in _PAIRS}

OPERATORS: Final = {
    "eq": "scalar",
    "ne": "scalar",
    "in": "scalars",
    "not_in": "scalars",
    "lt": "number",
    "lte": "number",
    "gt": "number",
    "gte": "number",
    "matches": "regex",
    "prefix": "text",
    "glob": "text",
    "exists": "bool",
    "cidr": "networks",
}
"""Every operator, and what its limit is."""

_WORDS: Final = ("all", "any", "not")


type ParseField = Callable[[str, Node], Field]
"""From a text to the field that it names; the node that holds it is for messages."""


def parse_where(node: Node, parse: ParseField = parse_field) -> Condition:
    """The condition that `node` says, on fields as `parse` knows them.

    Raises `RuleFileError` with everything that is wrong with it.
    """
    root = _parse(node, parse)
    fields: dict[str, Field] = {}
    for test in _tests(root):
        fields.setdefault(test.field.text, test.field)
    return Condition(root, tuple(fields.values()))


def _tests(part: Part) -> Iterator[Test]:
    if isinstance(part, Test):
        yield part
    else:
        for one in (part.part,) if isinstance(part, NotOf) else part.parts:
            yield from _tests(one)


def _parse(node: Node, parse: ParseField) -> Part:
    if node.kind != "map":
        node.fail("where", "a condition is a mapping of fields", "write it like this: `{body.amount: {lte: 5000}}`")
    if not node.entries:
        node.fail("where", "the condition is empty", "name a field, or leave `where` out")
    parts = _each(lambda entry: _entry(*entry, parse), node.entries)
    return parts[0] if len(parts) == 1 else AllOf(parts)


def _entry(key: Node, value: Node, parse: ParseField) -> Part:
    word = str(key.scalar)
    if word == "not":
        return NotOf(_parse(value, parse))
    if word in _WORDS:
        if value.kind != "list" or not value.items:
            value.fail("where", f"`{word}` takes a list of conditions", f"write `{word}: [{{...}}, {{...}}]`")
        parts = _each(lambda item: _parse(item, parse), value.items)
        return AllOf(parts) if word == "all" else AnyOf(parts)
    if word in OPERATORS:
        key.fail("where", f"the operator `{word}` stands without a field", f"write `{{FIELD: {{{word}: ...}}}}`")
    if word in _INSTEAD:
        key.fail("where", f"`{word}` is not a word of conditions", f"did you mean `{_INSTEAD[word]}`?")
    field = parse(word, key)
    if value.kind == "list":
        value.fail("where", f"`{word}` is compared with a list", "write `{in: [...]}`")
    if value.kind == "scalar":
        if value.scalar is None:
            value.fail("where", f"nothing follows `{word}`", "write `{exists: false}`, or `{eq: null}` for JSON's null")
        sign = _COMPARISON.match(value.scalar) if isinstance(value.scalar, str) else None
        if sign:
            operator = _SPELLINGS[sign[1]]
            help = f"write `{{{operator}: {sign[2]}}}`, or `{{eq: ...}}` if this is the text"  # noqa: A001 -- as in Problem
            value.fail("where", f"`{value.scalar}` would be compared as a text", help)
        group = _STATUSES.fullmatch(str(value.scalar)) if field.place == "status" else None
        if group:
            first = int(group[1]) * 100
            bounds = (("gte", first), ("lte", first + 99))
            return AllOf(tuple(Test(field, word, limit, _CHECKS[word](limit)) for word, limit in bounds))
        return _test(field, "eq", value)
    if not value.entries:
        value.fail("where", f"nothing is said about `{word}`", "write `{OPERATOR: LIMIT}`")
    tests = _each(lambda entry: _operator(field, *entry), value.entries)
    return tests[0] if len(tests) == 1 else AllOf(tests)


def _operator(field: Field, key: Node, value: Node) -> Test:
    operator = str(key.scalar)
    if operator not in OPERATORS:
        word = operator.lower()
        near = nearest(_SPELLINGS.get(word, word), OPERATORS)
        known = "known are " + ", ".join(f"`{name}`" for name in OPERATORS)
        help = f"did you mean `{near}`?" if near else _SAID_AS.get(word, known)  # noqa: A001 -- as in Problem
        key.fail("where", f"`{operator}` is not an operator", help)
    return _test(field, operator, value)


_ALIASES: Final = {
    "eq": "= == is equals",
    "ne": "!= not neq",
    "in": "one_of",
    "not_in": "nin notin",
    "lt": "< less less_than below",
    "lte": "<= le max at_most",
    "gt": "> greater greater_than more above",
    "gte": ">= ge min at_least",
    "matches": "regex pattern",
    "prefix": "startswith starts_with",
    "glob": "like",
    "exists": "present",
}
_SPELLINGS: Final = {alias: operator for operator, aliases in _ALIASES.items() for alias in aliases.split()}
_INSTEAD: Final = {"or": "any", "and": "all", "none": "not"}
_SAID_AS: Final = {
    "contains": 'write `{glob: "*text*"}`',
    "includes": 'write `{glob: "*text*"}`',
    "endswith": 'write `{glob: "*text"}`',
    "between": "write `{gte: 1, lte: 5}`",
    "range": "write `{gte: 1, lte: 5}`",
}
_STATUSES = re.compile("([1-5])xx")
_COMPARISON = re.compile(r"(<=|>=|==|!=|<|>)\s*(.+)", re.DOTALL)


def _test(field: Field, operator: str, node: Node) -> Test:
    limit: Any = _LIMITS[OPERATORS[operator]](field, operator, node)
    try:
        check = _CHECKS[operator](limit)
    except ValueError:
        fail_regex(node)
    shown = [str(one) if operator == "cidr" else one for one in limit] if isinstance(limit, tuple) else limit
    return Test(field, operator, shown, check)


def _scalar(field: Field, operator: str, node: Node) -> Scalar:
    limit = node.scalar
    if node.kind != "scalar":
        node.fail("where", f"`{operator}` compares with one value, not with a {node.kind}")
    if field.place == "status" and type(limit) is not int:
        node.fail("where", f"`{_show(limit)}` is no status", "write a number such as `201`, or `2xx`")
    if field.place in _TEXTS:
        if not isinstance(limit, str):
            node.fail("where", f"`{field}` is always text", f'write `"{_show(limit)}"`')
        proper = limit.upper() if field.place == "method" else limit.lower()
        if field.place in ("host", "method") and limit != proper:
            node.fail("where", f"`{field}` is never `{limit}`", f"write `{proper}`")
    return limit


_TEXTS: Final = ("agent", "run", "tool", "host", "method", "credential")


def _scalars(field: Field, operator: str, node: Node) -> tuple[Scalar, ...]:
    if not node.items:
        node.fail("where", f"`{operator}` takes a list of values", f"write `{operator}: [a, b]`")
    return _each(lambda item: _scalar(field, operator, item), node.items)


def _number(field: Field, operator: str, node: Node) -> int | Decimal:
    if isinstance(node.scalar, bool) or not isinstance(node.scalar, int | Decimal):
        text = node.scalar if isinstance(node.scalar, str) else ""
        plain = re.sub(r"(?<=[0-9])[,_ '](?=[0-9]{3})", "", text)
        number = f"write digits alone: `{operator}: {plain}`" if checks.TEXT_NUMBER.fullmatch(plain) else ""
        mend = "leave out the quotes" if text == plain and number else number
        node.fail("where", f"`{operator}` takes a number", mend or f"write such as `{operator}: 5000`")
    if field.place in _TEXTS:
        node.fail("where", f"`{field}` is text: `{operator}` never holds", "use `eq`, `in`, `glob` or `matches`")
    return node.scalar


def _text(field: Field, operator: str, node: Node) -> str:
    if not isinstance(node.scalar, str) or not node.scalar:
        node.fail("where", f"`{operator}` takes a text", "quote it" if node.kind == "scalar" else "")
    if operator != "prefix" and len(node.scalar) > checks.REGEX_LENGTH:
        node.fail("regex", f"`{operator}` takes at most {checks.REGEX_LENGTH} characters")
    return node.scalar


def _bool(field: Field, operator: str, node: Node) -> bool:
    if not isinstance(node.scalar, bool):
        node.fail("where", f"`{operator}` takes `true` or `false`")
    return node.scalar


def _networks(field: Field, operator: str, node: Node) -> tuple[checks.Network, ...]:
    return _each(_network, node.items or (node,))


def _network(node: Node) -> checks.Network:
    if not isinstance(node.scalar, str):
        node.fail("where", "`cidr` takes a network or a list of them", "write `10.0.0.0/8`")
    try:
        return ipaddress.ip_network(node.scalar)
    except ValueError:
        try:
            meant = ipaddress.ip_network(node.scalar, strict=False)
        except ValueError:
            node.fail("where", f"`{node.scalar}` is not a network", "write for example `10.0.0.0/8` or `fd00::/8`")
        node.fail("where", f"`{node.scalar}` has bits behind its prefix", f"did you mean `{meant}`?")


def fail_regex(node: Node) -> NoReturn:
    """Say why the text of `node` is no regular expression of ours."""
    text = str(node.scalar)
    culprit = _UNSUPPORTED.search(text)
    if not culprit:
        message = f"`{text}` is not a regular expression, or too large a one"
        node.fail("regex", message, "the dialect is that of Rust's regex crate")
    what = "a backreference" if culprit[0].startswith("\\") else "look-around"
    instead = "it can not be matched in linear time; say it with `all`, `any` and `not`"
    raise RuleFileError((Problem("regex", f"`{culprit[0]}` is {what}", node.at(culprit.start()), instead),))


_UNSUPPORTED = re.compile(r"\(\?<?[=!]|\\[1-9]|\\k[<{']")

_LIMITS: Final[Mapping[str, Callable[[Field, str, Node], object]]] = {
    "scalar": _scalar,
    "scalars": _scalars,
    "number": _number,
    "regex": _text,
    "text": _text,
    "bool": _bool,
    "networks": _networks,
}
_CHECKS: Final[Mapping[str, Callable[[Any], checks.Check]]] = {
    "eq": checks.eq,
    "ne": checks.ne,
    "in": checks.within,
    "not_in": checks.not_within,
    "lt": partial(checks.bound, lt),
    "lte": partial(checks.bound, le),
    "gt": partial(checks.bound, gt),
    "gte": partial(checks.bound, ge),
    "matches": checks.matches,
    "prefix": checks.prefix,
    "glob": checks.glob,
    "exists": checks.exists,
    "cidr": checks.cidr,
}


def _each[T, R](parse: Callable[[T], R], items: Iterable[T]) -> tuple[R, ...]:
    """`parse` of every item, or one error with all that is wrong in any of them."""
    parsed: list[R] = []
    problems: list[Problem] = []
    for item in items:
        try:
            parsed.append(parse(item))
        except RuleFileError as error:
            problems.extend(error.problems)
    if problems:
        raise RuleFileError(tuple(problems))
    return tuple(parsed)
