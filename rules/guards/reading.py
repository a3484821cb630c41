"""What the guards' parsers share: strict maps, durations, and lists of fields."""

from __future__ import annotations

from rules.fields import Field, parse_field
from rules.suggest import listing, suggest
from rules.units import DAY_NS, DURATION_HELP, EVER_NS, LONGEST_NS, parse_duration
from rules.yamltree import Node

type Key = tuple[Field, ...]
"""A key by one field, or by the first of several that is present."""

FIELD_LIST_SCHEMA = {
    "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}]
}
DURATION_SCHEMA = {"type": "string", "pattern": "^[0-9]+(ms|s|m|min|h|d)$"}


_MEANT = {
    "ttl": ("window",),
    "fields": ("key",),
    "limit": ("rate", "max"),
    "max": ("rate",),
    "amount": ("max", "sum"),
    "field": ("sum", "key"),
    "currency": ("unit",),
    "timezone": ("zone",),
    "interval": ("per",),
    "window": ("per",),
    "url": ("request",),
    "body": ("json",),
    "data": ("json",),
}
"""Words that people bring along from elsewhere, and ours."""


def _meant(name: str, known: tuple[str, ...]) -> str:
    return next((ours for ours in _MEANT.get(name, ()) if ours in known), name)


def read_map(node: Node, where: str, known: tuple[str, ...]) -> dict[str, Node]:
    """The entries of a map by key. Unknown keys are errors."""
    found: dict[str, Node] = {}
    for key, value in node.entries:
        name = str(key.scalar)
        if name not in known:
            key.fail(
                "unknown-key",
                f"{where if ' ' in where else f'`{where}`'} has no key `{name}`",
                suggest(_meant(name, known), known) or f"its keys are {listing(known)}",
            )
        found[name] = value
    return found


def read_duration(node: Node, what: str) -> int:
    """A duration in nanoseconds."""
    value_ns = parse_duration(node.scalar)
    if value_ns is None:
        if parse_duration(node.scalar, EVER_NS) is not None:
            longest = f"{LONGEST_NS // DAY_NS}d"
            node.fail("duration", f"{shown(node)} is longer than {longest}", f"write at most `{longest}`")
        off = f"remove `{what}`: nothing is on by default" if node.scalar is False else DURATION_HELP
        node.fail("duration", f"{shown(node) if node.kind == 'scalar' else f'`{what}`'} is no duration", off)
    return value_ns


def read_count(node: Node, what: str, most: int) -> int:
    """A whole number from 1 to `most`."""
    if type(node.scalar) is not int or not 0 < node.scalar <= most:
        node.fail("count", f"{shown(node)} is no number for `{what}`", f"write a whole number from 1 to {most}")
    return node.scalar


def shown(node: Node) -> str:
    """What `node` says, for a message."""
    if node.kind != "scalar" or node.scalar is None:
        return "this"
    return f"`{str(node.scalar).lower() if isinstance(node.scalar, bool) else node.scalar}`"


def read_fields(node: Node, what: str) -> tuple[Field, ...]:
    """One field or a list of fields."""
    return tuple(choice[0] for choice in read_choices(node, what, single=True))


def read_choices(node: Node, what: str, single: bool = False) -> tuple[Key, ...]:
    """One field or a list; unless `single`, each may be `a|b`: the first that is present."""
    items = node.items if node.kind == "list" else (node,)
    if not items:
        node.fail("empty", f"`{what}` names no field", f"name at least one field, or leave `{what}` out")
    choices: list[Key] = []
    for item in items:
        if not isinstance(item.scalar, str):
            item.fail("field", f"`{what}` lists fields", "write a field such as `agent` or `body.charge`")
        texts = [item.scalar] if single else [part.strip() for part in item.scalar.split("|")]
        choice = tuple(parse_field(text, item) for text in texts)
        if choice in choices:
            item.fail("repeated", f"`{item.scalar}` stands twice in `{what}`", "name each field once")
        choices.append(choice)
    return tuple(choices)
