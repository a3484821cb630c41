"""Did you mean: the known word that a mistyped one is closest to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKENESS = 0.7
"""How like two words must be, from 0 to 1: one letter in five may differ. Less only misleads."""


def suggest(word: str, known: Iterable[str]) -> str:
    """``did you mean `x`?`` with the closest of `known`, or empty when none is close."""
    close = nearest(word, known)
    return f"did you mean `{close}`?" if close else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that `word` is most like, in upper or lower case; else empty."""
    folded = {one.lower(): one for one in sorted(known, reverse=True)}
    close = difflib.get_close_matches(word.lower(), sorted(folded), n=1, cutoff=LIKENESS)
    return folded[close[0]] if close else ""


def listing(known: Iterable[str], joint: str = "or") -> str:
    """The words in backticks, for a message: `` `a`, `b` or `c` ``."""
    *others, last = [f"`{word}`" for word in known] or [""]
    return f"{', '.join(others)} {joint} {last}" if others else last


EDITS = 2


def closest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that is `word` with at most two letters changed, left out, put in or swapped; else empty."""
    found = [(distance, one) for one in known if (distance := _distance(word, one)) <= _edits(word, one)]
    return min(found)[1] if found else ""


def _edits(word: str, other: str) -> int:
    """So many edits still leave it recognisable: in a word of three letters one, in one of two none."""
    return min(EDITS, (max(len(word), len(other)) - 1) // 2)


def _distance(word: str, other: str) -> int:
    """The fewest edits (Damerau-Levenshtein, optimal string alignment) between two texts; more than `EDITS` is 3."""
    if abs(len(word) - len(other)) > EDITS:
        return EDITS + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(word, 1):
        above, row = row, [at]
        for place, its in enumerate(other, 1):
            cost = min(above[place] + 1, row[-1] + 1, above[place - 1] + (letter != its))
            if at > 1 and place > 1 and letter == other[place - 2] and word[at - 2] == its:
                cost = min(cost, before[place - 2] + 1)
            row.append(cost)
        if min(row) > EDITS:
            return EDITS + 1
        before = above
    return row[-1]
