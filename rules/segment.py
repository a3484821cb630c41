"""One segment of a pattern's path, and which texts fit it."""

from __future__ import annotations

import msgspec


class Hole(msgspec.Struct, frozen=True):
    """What varies in a segment: `{name}`, or `*` with no name. `encoded`: it may hold an encoded slash."""

    name: str = ""
    encoded: bool = False


class Segment(msgspec.Struct, frozen=True):
    """One segment of a path: `holes`, and the literal `texts` before, between and after them. `rest` is `**`."""

    texts: tuple[str, ...] = ("",)
    holes: tuple[Hole, ...] = ()
    rest: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(hole.name for hole in self.holes if hole.name)

    @property
    def nameless(self) -> Segment:
        """The same for every name that its captures may have: equal where just the same texts fit."""
        return Segment(self.texts, tuple(Hole("_" if hole.name else "", hole.encoded) for hole in self.holes))

    @property
    def whole(self) -> bool:
        """Whether it is one hole with nothing around it."""
        return self.texts == ("", "")

    def fits(self, text: str, lenient: bool) -> tuple[str, ...] | None:
        """What its holes hold when it is `text`, each as short as can be from the left; None when it does not fit.

        Strict, text that fits in several ways fits not at all, lest a condition look at the wrong part of it.
        """
        if not self.holes:
            return () if text == self.texts[0] else None
        least = tuple(1 if hole.name or self.whole else 0 for hole in self.holes)
        found = _align(self.texts, least, text)
        if found is None or lenient:
            return found
        if len(found) > 1 and self.names:
            backwards = _align(_mirrored(self.texts), least[::-1], text[::-1])
            if backwards != _mirrored(found):
                return None
        for held, hole in zip(found, self.holes, strict=True):
            if "/" in held and not hole.encoded:
                return None
        return found

    @property
    def rank(self) -> int:
        """Its place in the order of naming: literal, mixed, `{name}`, `{name:encoded}`, `**`."""
        if self.rest:
            return 4
        if not self.holes:
            return 0
        return (3 if self.holes[0].encoded else 2) if self.whole else 1


def _mirrored(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[::-1] for text in reversed(texts))


def _align(texts: tuple[str, ...], least: tuple[int, ...], text: str) -> tuple[str, ...] | None:
    """The parts of `text` between `texts`, leftmost first, at least `least` characters each. Linear in practice."""
    if not text.startswith(texts[0]) or not text.endswith(texts[-1]):
        return None
    end = len(text) - len(texts[-1])
    at = len(texts[0])
    found = []
    for shortest, literal in zip(least, texts[1:-1], strict=False):
        start = text.find(literal, at + shortest, end)
        if start < 0:
            return None
        found.append(text[at:start])
        at = start + len(literal)
    if end - at < least[-1]:
        return None
    return (*found, text[at:end])
