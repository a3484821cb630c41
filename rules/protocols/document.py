"""GraphQL documents: the operations in one, and what their arguments are once the variables are put in.

Only what rules need is read: types, root fields and their arguments. graphql-core does the parsing; it takes a while to
load, so this is imported where a document is at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Literal

import graphql as language
import msgspec
from graphql.language import ast

from rules.call import Json
from rules.fields import ABSENT, Absent, ConditionError

type OperationType = Literal["query", "mutation", "subscription"]

LENGTH_CAP = 200_000
TOKENS_CAP = 20_000
"""Longer documents are not read: they can not be told."""

DIGITS_CAP = 400


class Root(msgspec.Struct, frozen=True):
    """A root field and its arguments as they stand in the document."""

    name: str
    arguments: Mapping[str, ast.ValueNode]


class Operation(msgspec.Struct, frozen=True):
    """An operation of a document: its root fields (one at least), and what its variables are by default."""

    name: str
    type: OperationType
    roots: tuple[Root, ...]
    defaults: Mapping[str, ast.ValueNode]


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
        """The arguments of each root field, with the variables put in."""
        return [_present({name: _value(node, self) for name, node in root.arguments.items()}) for root in self.roots]


def ask(document: str, name: str, variables: dict[str, Json]) -> Asked | None:
    """The operation `name` (empty: the only one) of `document`; None where there is no such one, or several."""
    chosen = [one for one in _operations(document) if not name or one.name == name]
    return Asked(chosen[0], variables) if len(chosen) == 1 else None


@lru_cache(maxsize=512)
def _operations(document: str) -> tuple[Operation, ...]:
    """The operations of `document`; nothing where it can not be read, or is too large to be."""
    if len(document) > LENGTH_CAP:
        return ()
    try:
        tree = language.parse(document, no_location=True, max_tokens=TOKENS_CAP)
    except (language.GraphQLError, RecursionError):
        return ()
    fragments = {one.name.value: one for one in tree.definitions if isinstance(one, ast.FragmentDefinitionNode)}
    found: list[Operation] = []
    for one in tree.definitions:
        if isinstance(one, ast.OperationDefinitionNode):
            roots = tuple(_roots(one.selection_set, fragments, frozenset()))
            if not roots:
                return ()
            name = one.name.value if one.name else ""
            defaults = {
                each.variable.name.value: each.default_value
                for each in one.variable_definitions or ()
                if each.default_value is not None
            }
            found.append(Operation(name, one.operation.value, roots, defaults))
        elif not isinstance(one, ast.FragmentDefinitionNode):
            return ()
    return tuple(found)


def _roots(
    selected: ast.SelectionSetNode, fragments: Mapping[str, ast.FragmentDefinitionNode], entered: frozenset[str]
) -> Iterator[Root]:
    """The fields at the root, those of fragments too; nothing for a fragment that is not there or holds itself."""
    for one in selected.selections:
        if isinstance(one, ast.FieldNode):
            yield Root(one.name.value, {each.name.value: each.value for each in one.arguments or ()})
        elif isinstance(one, ast.InlineFragmentNode):
            yield from _roots(one.selection_set, fragments, entered)
        else:
            assert isinstance(one, ast.FragmentSpreadNode)
            name = one.name.value
            if name in fragments and name not in entered:
                yield from _roots(fragments[name].selection_set, fragments, entered | {name})


def _value(node: ast.ValueNode, asked: Asked) -> Json | Absent:
    """What `node` stands for: a variable that was not sent and has no default is absent."""
    if isinstance(node, ast.VariableNode):
        name = node.name.value
        if name in asked.variables:
            return asked.variables[name]
        default = asked.operation.defaults.get(name)
        return ABSENT if default is None else _value(default, asked)
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
        return int(node.value) if isinstance(node, ast.IntValueNode) else Decimal(node.value)
    assert isinstance(node, ast.StringValueNode | ast.EnumValueNode)
    return node.value


def _present(values: dict[str, Json | Absent]) -> dict[str, Json]:
    return {name: value for name, value in values.items() if not isinstance(value, Absent)}
