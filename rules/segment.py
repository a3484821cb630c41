"""One segment of a pattern's path, and which texts fit it."""

from __future__ import annotations

import msgspec


class Segment(msgspec.Struct, frozen=True):
    """Literal `texts` with holes between them; one text alone has none. `rest` is `**`.

    `name`: of the one hole, where it is `{name}`; the others are `*`. `encoded`: it may hold an encoded slash.
    """

    texts: tuple[str, ...] = ("",)
    name: str = ""
    encoded: bool = False
    rest: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is one hole with nothing around it."""
        return self.texts == ("", "")

    @property
    def nameless(self) -> Segment:
        """The same for every name that its capture may have: equal where just the same texts fit."""
        return Segment(self.texts, "_" if self.name or self.whole else "", self.encoded, self.rest)

    @property
    def rank(self) -> int:
        """Its place in the order of naming: literal, mixed, `{name}`, `{name:encoded}`, `**`."""
        if self.rest:
            return 4
        if len(self.texts) == 1:
            return 0
        return (3 if self.encoded else 2) if self.whole else 1

    def fits(self, text: str, lenient: bool) -> bool:
        """Whether `text` is this segment. Strict, an encoded slash fits into a hole that says so, and nowhere else."""
        first, last = self.texts[0], self.texts[-1]
        if len(self.texts) == 1:
            return text == first
        if not (lenient or self.encoded) and "/" in text:
            return False
        at, end = len(first), len(text) - len(last)
        if not text.startswith(first) or not text.endswith(last) or end - at < (1 if self.name or self.whole else 0):
            return False
        for literal in self.texts[1:-1]:  # leftmost first leaves most room for those behind
            at = text.find(literal, at, end)
            if at < 0:
                return False
            at += len(literal)
        return True

    def held(self, text: str) -> str:
        """What its `{name}` holds when it is `text`."""
        return text[len(self.texts[0]) : len(text) - len(self.texts[1])]
