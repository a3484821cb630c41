"""The state that decisions read: claims, windows, cool-downs. It is a fold over the changes, in the ledger's order.

The shell owns one `State`; `rules.decide.apply` folds every change into it once, in the order of the ledger.
"""

from __future__ import annotations

from typing import Any


class State:
    """One table for each guard verb: entry key (hex digest) -> that guard's own record. Guards know their records."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}

    def table(self, verb: str) -> dict[str, Any]:
        """The table of guard `verb`, made on first use."""
        found = self.tables.get(verb)
        if found is None:
            found = self.tables[verb] = {}
        return found
