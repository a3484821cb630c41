"""GraphQL over HTTP: the operation that a document asks for, https://spec.graphql.org and graphql-over-http.

    graphql: mutation createIssue     a mutation whose every root field is `createIssue`
    graphql: query repository|user    several fields; globs such as `add*`, and `*` for all
    graphql: "*"                      any operation

What counts is the type of the operation and its root fields, not the name, which the client chooses. `args.*` are the
arguments of the root field with its variables put in, so that it makes no difference how the client spells them.
What is sent by its hash alone (a persisted query) can not be told, so nothing allows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import msgspec

from rules.call import Body, Call, Json, read_decimal
from rules.fields import ABSENT, Absent, ConditionError
from rules.globs import glob_fits
from rules.protocols.says import Asking, rank_of
from rules.yamltree import Node

if TYPE_CHECKING:
    from rules.protocols.document import Asked

_MEMBERS = frozenset({"query", "operationName", "variables", "extensions"})
_SAID = re.compile(
    r"(?:(query|mutation|subscription|\*)(?:\s+|$))?([A-Za-z_*][A-Za-z0-9_*]*(?:\|[A-Za-z_*][A-Za-z0-9_*]*)*)?"
)
_READERS = frozenset({"query", "subscription"})


class Graphql(msgspec.Struct, frozen=True):
    """The type of operation, empty for any, and globs of which one fits every root field."""

    operation: str
    fields: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"graphql: {self.operation or '*'} {'|'.join(self.fields)}"

    @property
    def rank(self) -> tuple[int, int]:
        first, second = max(map(rank_of, self.fields))
        return first + (not self.operation), second

    @property
    def reads_only(self) -> bool:
        return self.operation in _READERS

    @property
    def has_arguments(self) -> bool:
        return True

    @property
    def in_query(self) -> frozenset[str]:
        return _MEMBERS

    def fits(self, asking: Asking) -> bool | None:
        found = asking.read(_asked)
        if found is None:
            return None
        if self.operation and found.type != self.operation:
            return False
        each = {any(glob_fits(glob, root.name) for glob in self.fields) for root in found.roots}
        return None if len(each) > 1 else each.pop()  # of some root fields, but not of all, it can not be told


def parse(node: Node) -> Graphql:
    """What `node` says."""
    from rules.protocols import document  # noqa: F401  loaded now, so that no call waits for it

    said = _SAID.fullmatch(node.scalar.strip()) if isinstance(node.scalar, str) and node.scalar.strip() else None
    if said is None:
        node.fail("graphql", "`graphql` names no operation", 'write `mutation createIssue`, `query *`, or `"*"`')
    kind, fields = said.groups()
    return Graphql("" if kind in (None, "*") else kind, tuple((fields or "*").split("|")))


def arguments(call: Call) -> Json | Absent:
    """The arguments of the root field; of several, a list of each one's."""
    found = _asked(call)
    if found is None:
        return ABSENT
    each = found.arguments()
    return each[0] if len(each) == 1 else each


def shown(call: Call) -> str:
    """What `call` asks for, for people; empty where that can not be told."""
    found = _asked(call)
    return f"{found.type} {', '.join(root.name for root in found.roots)}" if found is not None else ""


def failure(call: Call, body: Body) -> str:
    """What an answer says of having failed: it has errors, and nothing beside them."""
    content = body.json if body.kind == "json" else None
    errors = content.get("errors") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(errors, list) or not errors:
        return ""
    data = content.get("data")
    if any(value is not None for value in data.values()) if isinstance(data, dict) else data is not None:
        return ""  # a part of what was asked for came
    try:
        if _asked(call) is None:
            return ""
    except ConditionError:
        return ""
    first = errors[0] if isinstance(errors[0], dict) else {}
    extensions = first.get("extensions")
    code = extensions.get("code") if isinstance(extensions, dict) else first.get("type")
    return f"GraphQL errors ({code})" if isinstance(code, str) and _CODE.fullmatch(code) else "GraphQL errors"


_CODE = re.compile(r"[A-Za-z0-9_]{1,40}")


def _asked(call: Call) -> Asked | None:
    """The operation that `call` asks for; None where that can not be told."""
    content = call.body.json if call.body.kind == "json" else None
    if content is not None:
        _check_query(call.query, content)
    if call.method == "GET":
        read = _in_query(call)
    else:
        read = content if isinstance(content, dict) and _MEMBERS.issuperset(content) else None
    if read is None:
        return None
    document, name, variables = read.get("query"), read.get("operationName"), read.get("variables")
    if not isinstance(document, str) or not (name is None or isinstance(name, str)):
        return None
    if variables is None:
        variables = {}
    if not isinstance(variables, dict):
        return None
    from rules.protocols.document import ask  # graphql-core takes a while to load, and most have no use for it

    return ask(document, name or "", variables)


def _check_query(query: Sequence[tuple[str, str]], content: Json) -> None:
    """Many servers let the query go before the body, member by member. The name of the operation may stand in both,
    since clients repeat it for those who read logs.
    """
    for name, value in query:
        if name == "query":
            raise ConditionError("it has a GraphQL document in its query and a body beside it")
        same = name == "operationName" and isinstance(content, dict) and content.get(name) == value
        if name in _MEMBERS and not same:
            raise ConditionError(f"its query says `{name}`, and there is a body that says another or none")


def _in_query(call: Call) -> dict[str, Json] | None:
    """What the query of a GET holds: a document, and perhaps an operation's name and variables as JSON."""
    found: dict[str, Json] = {}
    for name, value in call.query:
        if name in found:
            return None
        found[name] = str(value)
    if found.get("variables"):
        try:
            found["variables"] = _json(str(found["variables"]))
        except (ValueError, RecursionError):
            return None
    else:
        found.pop("variables", None)
    return found


def _json(text: str) -> Json:
    """Strict JSON: a key twice is an error, and so are `NaN` and numbers out of range; all others are exact."""
    value: Json = json.loads(text, object_pairs_hook=_unique, parse_float=read_decimal, parse_constant=_no_constant)
    return value


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key twice")
    return members


def _no_constant(_: str) -> NoReturn:
    raise ValueError("no number")
