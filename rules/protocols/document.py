"""GraphQL documents: the operations in one, and what their arguments are once the variables are put in.

Only what rules need is read: types, root fields and their arguments. graphql-core does the parsing; it takes a while to
load, so this is imported where a document is at hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Literal

import graphql as language
import msgspec
from graphql.language import ast

from rules.call import Json, read_decimal
from rules.canonical import canonical_json
from rules.fields import ABSENT, Absent, ConditionError

type OperationType = Literal["query", "mutation", "subscription"]

LENGTH_CAP = 200_000
TOKENS_CAP = 5_000
"""Longer documents are not read: they can not be told. While one is read, all calls wait (5,000 tokens: 30 ms)."""

USUAL_LENGTH = 4_000
"""Of documents up to this length many are kept as they were read."""

DIGITS_CAP = 400

REPEATED_CAP_BYTES = 1024 * 1024
"""A document that names a large variable again and again would unfold it into any size: up to this it is read."""


class Root(msgspec.Struct, frozen=True):
    """A root field and its arguments as they stand in the document. `repeated`: one that stands twice, or empty."""

    name: str
    arguments: Mapping[str, ast.ValueNode]
    repeated: str


class Operation(msgspec.Struct, frozen=True):
    """An operation of a document: its root fields (one at least), and what its variables are by default. `repeated`:
    what stands twice in it and may stand once, empty where nothing does."""

    name: str
    type: OperationType
    roots: tuple[Root, ...]
    defaults: Mapping[str, ast.ValueNode]
    repeated: str


class Asked(msgspec.Struct, frozen=True):
    """The operation that is asked for, with the variables that were sent."""

    operation: Operation
    variables: dict[str, Json]

    @property
    def type(self) -> OperationType:
        return self.operation.type

    @property
    def roots(self) -> tuple[Root, ...]:
        return self.operation.roots

    def arguments(self) -> list[Json]:
        """The arguments of each root field, with the variables put in. Raises `ConditionError` if that is too much."""
        self._check_size()
        return [_present({name: _value(node, self) for name, node in root.arguments.items()}) for root in self.roots]

    def _check_size(self) -> None:
        named = Counter(name for root in self.roots for node in root.arguments.values() for name in _variables(node))
        repeated = [(times, self.variable(name)) for name, times in named.items() if times > 1]
        sizes = [(times - 1) * len(canonical_json(value)) for times, value in repeated if not isinstance(value, Absent)]
        if sum(sizes) > REPEATED_CAP_BYTES:
            raise ConditionError("its document names large variables too often")

    def variable(self, name: str) -> Json | Absent:
        """What the variable `name` stands for; absent where it was not sent and has no default."""
        if name in self.variables:
            return self.variables[name]
        default = self.operation.defaults.get(name)
        return ABSENT if default is None else _value(default, self)


def ask(document: str, name: str, variables: dict[str, Json]) -> Asked | None:
    """The operation `name` (empty: the only one) of `document`; None where there is no such one, or several.

    Raises `ConditionError` where a name stands twice in it: servers take the first, the last, or refuse.
    """
    chosen = [one for one in _operations(document) if not name or one.name == name]
    if len(chosen) != 1:
        return None
    if chosen[0].repeated:
        raise ConditionError(f"its document says {chosen[0].repeated} twice")
    return Asked(chosen[0], variables)


def _operations(document: str) -> tuple[Operation, ...]:
    """The operations of `document`; nothing where it can not be read, or is too large to be."""
    if len(document) > LENGTH_CAP:
        return ()
    return _usual(document) if len(document) <= USUAL_LENGTH else _large(document)


@lru_cache(maxsize=512)
def _usual(document: str) -> tuple[Operation, ...]:
    return _read(document)


@lru_cache(maxsize=8)
def _large(document: str) -> tuple[Operation, ...]:
    """Several megabytes each when they are read, so only a few are kept."""
    return _read(document)


def _read(document: str) -> tuple[Operation, ...]:
    try:
        tree = language.parse(document, no_location=True, max_tokens=TOKENS_CAP)
    except (language.GraphQLError, RecursionError):
        return ()
    fragments = {one.name.value: one for one in tree.definitions if isinstance(one, ast.FragmentDefinitionNode)}
    found: list[Operation] = []
    for one in tree.definitions:
        if isinstance(one, ast.OperationDefinitionNode):
            roots = tuple(_roots(one.selection_set, fragments, set()))
            if not roots:
                return ()
            name = one.name.value if one.name else ""
            variables = one.variable_definitions or ()
            defaults = {
                each.variable.name.value: each.default_value for each in variables if each.default_value is not None
            }
            declared = _twice(each.variable.name.value for each in variables)
            repeated = [f"`${declared}`"] if declared else [f"`{root.repeated}`" for root in roots if root.repeated]
            found.append(Operation(name, one.operation.value, roots, defaults, "".join(repeated[:1])))
        elif not isinstance(one, ast.FragmentDefinitionNode):
            return ()
    return tuple(found)


def _roots(
    selected: ast.SelectionSetNode, fragments: Mapping[str, ast.FragmentDefinitionNode], entered: set[str]
) -> Iterator[Root]:
    """The fields at the root, those of fragments too; nothing for a fragment that is not there or holds itself.

    Each fragment is entered once, as servers do (GraphQL 6.3.2, CollectFields): some that hold one another twice would
    take for ever.
    """
    for one in selected.selections:
        if isinstance(one, ast.FieldNode):
            given = one.arguments or ()
            twice = _twice(each.name.value for each in given) or next(filter(None, map(_repeated, given)), "")
            yield Root(one.name.value, {each.name.value: each.value for each in given}, twice)
        elif isinstance(one, ast.InlineFragmentNode):
            yield from _roots(one.selection_set, fragments, entered)
        else:
            assert isinstance(one, ast.FragmentSpreadNode)
            name = one.name.value
            if name in fragments and name not in entered:
                entered.add(name)
                yield from _roots(fragments[name].selection_set, fragments, entered)


def _repeated(node: ast.ArgumentNode) -> str:
    """The name of a member that stands twice in one object of an argument, or empty."""
    values: list[ast.ValueNode] = [node.value]
    while values:
        value = values.pop()
        if isinstance(value, ast.ListValueNode):
            values += value.values
        elif isinstance(value, ast.ObjectValueNode):
            twice = _twice(field.name.value for field in value.fields)
            if twice:
                return twice
            values += [field.value for field in value.fields]
    return ""


def _twice(names: Iterable[str]) -> str:
    """The first of `names` that stands there a second time, or empty."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _variables(node: ast.ValueNode) -> Iterator[str]:
    """The variables that `node` names, each as often as it does."""
    if isinstance(node, ast.VariableNode):
        yield node.name.value
    elif isinstance(node, ast.ListValueNode):
        for item in node.values:
            yield from _variables(item)
    elif isinstance(node, ast.ObjectValueNode):
        for field in node.fields:
            yield from _variables(field.value)


def _value(node: ast.ValueNode, asked: Asked) -> Json | Absent:
    """What `node` stands for."""
    if isinstance(node, ast.VariableNode):
        return asked.variable(node.name.value)
    if isinstance(node, ast.ListValueNode):
        values = [_value(item, asked) for item in node.values]
        return [None if isinstance(value, Absent) else value for value in values]
    if isinstance(node, ast.ObjectValueNode):
        return _present({field.name.value: _value(field.value, asked) for field in node.fields})
    if isinstance(node, ast.NullValueNode):
        return None
    if isinstance(node, ast.BooleanValueNode):
        return node.value
    if isinstance(node, ast.IntValueNode | ast.FloatValueNode):
        if len(node.value) > DIGITS_CAP:
            raise ConditionError("a number in the document is too long to be read")
        return int(node.value) if isinstance(node, ast.IntValueNode) else _decimal(node)
    assert isinstance(node, ast.StringValueNode | ast.EnumValueNode)
    return node.value


def _decimal(node: ast.FloatValueNode) -> Json:
    try:
        return read_decimal(node.value)
    except ValueError as error:
        raise ConditionError(f"the document has {error}") from None


def _present(values: dict[str, Json | Absent]) -> dict[str, Json]:
    return {name: value for name, value in values.items() if not isinstance(value, Absent)}
