"""Comparing a call with the contract of its tool.

A body that nobody can read in one way (trailing data, a byte order mark, text that is not UTF-8, a key twice, an
unknown content-coding), or whose media type the contract does not name, does not fit. Of a message of a protocol the
arguments are looked at: those of each root field, where a GraphQL document has several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from rules.call import Body, Call
from rules.decision import Plain, Violation
from rules.fields import Absent, ConditionError, WireText, fact, part_value, plain, spell
from rules.forms import tree
from rules.params.contract import Contract, Place
from rules.params.legal import actual, legal, one_of
from rules.params.telling import SPOKEN, Telling, violation
from rules.params.typed import Schema, Steps, Typing, exact, flat, types
from rules.protocols import arguments

_SHOWN_KINDS = {
    "json": "JSON (application/json)",
    "form": "a form (application/x-www-form-urlencoded)",
    "multipart": "a form (multipart/form-data)",
}


class Checked(msgspec.Struct, frozen=True):
    """What came of a check: everything that is wrong, and every parameter that the call has, by its field."""

    violations: tuple[Violation, ...]
    facts: dict[str, Plain]


def check(contract: Contract, call: Call, bindings: Mapping[str, str]) -> Checked:
    """Compare `call` with `contract`. `bindings`: what the tool's pattern captured. The body has to be decoded."""
    found: list[Violation] = []
    facts: dict[str, Plain] = {}
    if contract.path is not None:
        captured: dict[str, object] = {
            name: WireText(bindings[name]) for name in contract.path.names if name in bindings
        }
        found += _check(contract, contract.path, captured, facts)
    pairs = [(name, value) for name, value in call.query if name not in contract.beside]
    found += _check(contract, contract.query, _tree(contract.query, _texts(pairs)), facts)
    if contract.args is not None:
        found += _check_arguments(contract, contract.args, call, facts)
    else:
        found += _check_body(contract, call.body, facts)
    return Checked(tuple(found), facts)


def _texts(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, object]]:
    return [(name, WireText(value)) for name, value in pairs]


def _tree(where: Place, pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """The object that the names of `pairs` spell; those that the contract itself spells with brackets are left so."""
    found = tree([pair for pair in pairs if pair[0] not in where.literal], None)
    for name in where.literal:
        found.update(tree([pair for pair in pairs if pair[0] == name], name))
    return found


def _check_arguments(contract: Contract, where: Place, call: Call, facts: dict[str, Plain]) -> list[Violation]:
    try:
        given = arguments(call)
    except ConditionError as error:
        return [violation("args", f"the arguments cannot be read: {error}", "", "arguments that can be read")]
    assert not isinstance(given, Absent), "a message that names the tool asks for an operation"
    if not isinstance(given, list):
        return _check(contract, where, given, facts, typed=True)
    found: list[Violation] = []
    for n, one in enumerate(given):
        found += _check(contract, where, one, facts, typed=True, nth=n)
    return found


def _check_body(contract: Contract, body: Body, facts: dict[str, Plain]) -> list[Violation]:
    where = contract.body
    if not contract.kinds:
        return []
    if body.kind in ("undecodable", "unread"):
        problem = body.problem or "it is streamed"
        return [violation("body", f"the body cannot be read: {problem}", "", "a body that can be read")]
    if body.kind == "none":
        if where.optional:
            return []
        if not _is_object(where.schema):
            return [violation("body", f"the body is missing: it has to be {legal(where.schema)}", "absent", "")]
        return _check(contract, where, {}, facts)
    if body.kind not in contract.kinds:
        sent = body.media_type or "without a media type"
        if not where.names and not where.open:
            return [violation("body", f"it takes no body, and this one is {sent}", sent, "no body")]
        wanted = one_of([_SHOWN_KINDS[kind] for kind in contract.kinds])
        return [violation("body", f"the body has to be {wanted}, and it is {sent}", sent, wanted)]
    if body.kind == "json":
        return _check(contract, where, body.json, facts, typed=True)
    pairs = _texts(body.fields) if body.kind == "form" else [(part.name, part_value(part)) for part in body.parts]
    return _check(contract, where, _tree(where, pairs), facts)


def _is_object(schema: Schema) -> bool:
    return "object" in types([schema]) or any("properties" in part for part in flat(schema))


FACTS = 200
"""A place with more parameters than this is put on record as a whole, which is to say by its digest."""


def _check(
    contract: Contract,
    where: Place,
    value: Any,
    facts: dict[str, Plain],
    *,
    typed: bool = False,
    nth: int | None = None,
) -> list[Violation]:
    """What is wrong in one place. `typed`: its values have types, as in JSON. `nth`: of several such places."""
    if value == {} and where.empty:
        return []
    here = where.name if nth is None else f"{where.name}[{nth}]"
    if isinstance(value, dict) and len(value) <= FACTS:
        shape = plain if typed else fact
        facts.update([(spell(here, (name,)), shape(each)) for name, each in value.items()])
    else:
        facts[here] = fact(value)
    first: Any = exact(value) if typed else None
    unclear: list[Steps] = []
    for as_text in () if typed else (False, True):
        reading = Typing(as_text=as_text)
        read = reading.read(value, [where.schema])
        unclear = reading.unclear
        if not unclear and where.validator.is_valid(read):
            return []
        first = read if first is None else first
        if not reading.doubtful:
            break
    if typed and where.validator.is_valid(first):
        return []
    telling = Telling(contract, where, here)
    found = [telling.unclear(steps) for steps in unclear]
    found += telling.errors(where.validator.iter_errors(first), unclear)
    wanted = legal(where.schema)
    detail = f"{SPOKEN[where.name]} as a whole does not fit: it has to be {wanted}"
    return sorted(dict.fromkeys(found), key=_place_and_words) or [violation(here, detail, actual(first), wanted)]


def _place_and_words(violation: Violation) -> tuple[str, str]:
    return violation.field, violation.detail
