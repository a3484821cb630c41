"""Did you mean: the known word that a mistyped one is closest to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKENESS = 0.7
"""How like two words must be, from 0 to 1: one letter in five may differ. Less only misleads."""


def suggest(word: str, known: Iterable[str]) -> str:
    """``did you mean `x`?`` with the closest of `known`, or empty when none is close."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=LIKENESS)
    return f"did you mean `{close[0]}`?" if close else ""


def listing(known: Iterable[str], joint: str = "or") -> str:
    """The words in backticks, for a message: `` `a`, `b` or `c` ``."""
    *others, last = [f"`{word}`" for word in known] or [""]
    return f"{', '.join(others)} {joint} {last}" if others else last
