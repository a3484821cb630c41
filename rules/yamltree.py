"""Rule files as trees that remember where each value stands, so that every error can point at it."""

from __future__ import annotations

from decimal import Decimal
from typing import NoReturn

import msgspec

from rules.problems import Mark, Problem, RuleFileError

type Scalar = None | bool | int | Decimal | str


class Node(msgspec.Struct, frozen=True):
    """One YAML value. Exactly one of the three holds it: `scalar`, `items` or `entries`, as `kind` says.

    `kind`: "scalar", "list" or "map". `entries` are (key, value) in file order; keys are scalar nodes holding text.
    """

    kind: str
    mark: Mark
    scalar: Scalar = None
    items: tuple[Node, ...] = ()
    entries: tuple[tuple[Node, Node], ...] = ()

    def get(self, key: str) -> Node | None:
        """The value under `key` of a map, or None when it is not there."""
        for name, value in self.entries:
            if name.scalar == key:
                return value
        return None

    def plain(self) -> Scalar | list[object] | dict[str, object]:
        """The value as ordinary Python lists, dicts and scalars, without marks."""
        if self.kind == "list":
            return [item.plain() for item in self.items]
        if self.kind == "map":
            return {str(name.scalar): value.plain() for name, value in self.entries}
        return self.scalar

    def fail(self, code: str, message: str, help: str = "") -> NoReturn:
        """Raise the `RuleFileError` that points at this node."""
        raise RuleFileError((Problem(code, message, self.mark, help),))
