"""The index: finds the patterns that a call matches, in the same time for ten of them and for ten thousand.

Exact hosts stand in a dict, wildcard hosts in a trie over the labels from the right; each leads to a trie over the
segments of the path. Several branches of it can be alive at once (a literal, a `{name}`, a `**`): they are walked
abreast, segment by segment, so that no path makes it backtrack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from rules.pattern import PLAIN, Pattern, decoded
from rules.segment import Segment

REMEMBERED = 1_000
"""Of so many hosts it is remembered where their paths begin."""


class TargetId(msgspec.Struct, frozen=True):
    """Whose pattern it is: the `nth` match of a tool, of a rule's own `match`, or of its `unless`."""

    kind: Literal["tool", "rule", "unless"]
    name: str
    nth: int = 0


class Hit(msgspec.Struct, frozen=True, gc=False):
    """A pattern that the call matches. `only_denies`: in its lenient reading, which allows nothing."""

    target: TargetId
    pattern: Pattern
    bindings: Mapping[str, str]
    only_denies: bool = False


class Index:
    """Finds what a call matches. Built once, and what it finds never changes."""

    __slots__ = ("_exact", "_starts", "_wild")

    def __init__(self) -> None:
        self._starts: dict[tuple[str, str, int], tuple[_Path, ...]] = {}
        self._exact: dict[tuple[str, str, int], _Path] = {}
        self._wild: dict[str, _Label] = {}

    @classmethod
    def build(cls, targets: Sequence[tuple[TargetId, Pattern]]) -> Index:
        index = cls()
        for target, pattern in targets:
            if pattern.exact_host:
                path = index._exact.setdefault((pattern.scheme, pattern.host, pattern.port), _Path())
            else:
                path = index._wild.setdefault(pattern.scheme, _Label()).add(pattern)
            for segment in pattern.segments:
                path = path.child(segment)
            path.ends.append(_End(target, pattern))
        return index

    def find(self, method: str, scheme: str, host: str, port: int, segments: Sequence[str]) -> tuple[Hit, ...]:
        """Every pattern that such a call matches, and behind them those that it matches in the lenient reading only."""
        hits = self._find(method, scheme, host, port, segments)
        if scheme in PLAIN:
            opening = self._find(method, PLAIN[scheme], host, port, segments)
            hits += tuple(Hit(hit.target, hit.pattern, hit.bindings, True) for hit in opening)
        return hits

    def _find(self, method: str, scheme: str, host: str, port: int, segments: Sequence[str]) -> tuple[Hit, ...]:
        starts = self._starts.get((scheme, host, port))
        if starts is None:
            starts = self._begin(scheme, host, port)
        if not starts:
            return ()
        gap = len(segments) - 2 if "" in segments[:-1] else -1
        while gap >= 0 and segments[gap]:
            gap -= 1
        hits = _hits(starts, method, host, segments, gap, False)
        if gap >= 0 or "/" in "".join(segments):
            seen = {(hit.target, *hit.bindings.items()) for hit in hits}
            for reading in dict.fromkeys((tuple(segments), decoded(segments))):
                for hit in _hits(starts, method, host, reading, -1, True):
                    if (hit.target, *hit.bindings.items()) not in seen:
                        seen.add((hit.target, *hit.bindings.items()))
                        hits.append(hit)
        return tuple(hits)

    def _begin(self, scheme: str, host: str, port: int) -> tuple[_Path, ...]:
        """Where the paths of this host begin. Remembered, since few hosts get nearly all calls."""
        exact = self._exact.get((scheme, host, port))
        wild = self._wild.get(scheme)
        starts = ((exact,) if exact else ()) + (tuple(wild.reach(host, port)) if wild else ())
        if len(self._starts) < REMEMBERED:
            self._starts[scheme, host, port] = starts
        return starts


def _hits(
    starts: Sequence[_Path], method: str, host: str, segments: Sequence[str], gap: int, lenient: bool
) -> list[Hit]:
    hits = []
    for start in starts:
        for place in start.reach(segments, gap, lenient):
            for end in place.ends:
                if end.methods and method not in end.methods:
                    continue
                hit = end.hit
                if end.whole:
                    bound = {name: segments[place] for name, place in end.whole}
                    hit = Hit(hit.target, hit.pattern, bound, lenient)
                elif end.bound or lenient:
                    hit = Hit(hit.target, hit.pattern, hit.pattern.bind(host, segments), lenient)
                hits.append(hit)
    return hits


class _End:
    """Where a pattern ends. `hit` serves every call if it captures nothing (`bound` is False).

    `whole`: where its captures stand, if each is a whole segment, for speed.
    """

    __slots__ = ("bound", "hit", "methods", "whole")

    def __init__(self, target: TargetId, pattern: Pattern) -> None:
        self.methods = frozenset(pattern.methods)
        self.hit = Hit(target, pattern, {})
        self.bound = bool(pattern.names)
        self.whole: tuple[tuple[str, int], ...] = ()
        if not pattern.named_labels and all(segment.whole for segment, _ in pattern.named_segments):
            self.whole = tuple((segment.name, place) for segment, place in pattern.named_segments)


class _Path:
    """A place in the trie of paths. `rest` is the place behind a `**`, which holds on to every further segment.

    `final`: nothing goes on from here; `plain`: nothing but literals and whole segments does.
    """

    __slots__ = ("encoded", "ends", "final", "holds", "literals", "mixed", "one", "plain", "rest")

    def __init__(self, holds: bool = False) -> None:
        self.holds = holds
        self.final = True
        self.plain = not holds
        self.literals: dict[str, _Path] = {}
        self.mixed: dict[Segment, _Path] = {}
        self.one: _Path | None = None
        self.encoded: _Path | None = None
        self.rest: _Path | None = None
        self.ends: list[_End] = []

    def child(self, segment: Segment) -> _Path:
        self.final = False
        if segment.rest or (len(segment.texts) > 1 and (segment.encoded or not segment.whole)):
            self.plain = False
        if segment.rest:
            self.rest = self.rest or _Path(holds=True)
            return self.rest
        if len(segment.texts) == 1:
            return self.literals.setdefault(segment.texts[0], _Path())
        if not segment.whole:
            return self.mixed.setdefault(segment.nameless, _Path())
        if segment.encoded:
            self.encoded = self.encoded or _Path()
            return self.encoded
        self.one = self.one or _Path()
        return self.one

    def reach(self, segments: Sequence[str], gap: int, lenient: bool) -> list[_Path]:
        """Where the path leads. `gap`: its last empty segment within, or -1; no `**` reaches over it."""
        reached: list[_Path] = []
        alive = [self]
        last = len(segments) - 1
        for place, text in enumerate(segments):
            following: list[_Path] = []
            for node in alive:
                found = node.literals.get(text)
                if found:
                    following.append(found)
                if text and node.one and (lenient or "/" not in text):
                    following.append(node.one)
                if node.plain:
                    continue
                rest = node.rest
                if rest:
                    if not rest.final:
                        if rest not in alive:
                            alive.append(rest)  # the loop comes to it
                    elif place > gap and rest not in reached:
                        reached.append(rest)
                if text:
                    if node.encoded:
                        following.append(node.encoded)
                    if node.mixed:
                        following += [found for mix, found in node.mixed.items() if mix.fits(text, lenient)]
                if node.holds and (text or lenient or place == last):
                    following.append(node)
            if not following:
                return reached
            alive = following
        for node in alive:
            if node not in reached:
                reached.append(node)
            if node.rest and node.rest not in reached:
                reached.append(node.rest)
        return reached


class _Label:
    """A place in the trie of host labels, from the right. `here` and `below` are paths by port; 0 is any port."""

    __slots__ = ("below", "here", "literals", "one")

    def __init__(self) -> None:
        self.literals: dict[str, _Label] = {}
        self.one: _Label | None = None
        self.here: dict[int, _Path] = {}
        self.below: dict[int, _Path] = {}

    def add(self, pattern: Pattern) -> _Path:
        node = self
        for label in reversed(pattern.labels):
            if label == "**":
                return node.below.setdefault(pattern.port, _Path())
            if label[0] in "{*":
                node.one = node.one or _Label()
                node = node.one
            else:
                node = node.literals.setdefault(label, _Label())
        return node.here.setdefault(pattern.port, _Path())

    def reach(self, host: str, port: int) -> list[_Path]:
        found: list[_Path] = []
        _ports(self.below, port, found)
        labels = host.split(".")
        if ":" in host or labels[-1].isdigit():
            return found  # an IP literal has no labels
        alive = [self]
        for label in reversed(labels):
            following = []
            for node in alive:
                literal = node.literals.get(label)
                if literal:
                    following.append(literal)
                if node.one:
                    following.append(node.one)
            alive = following
            if not alive:
                return found
            for node in alive:
                if node.below:
                    _ports(node.below, port, found)
        for node in alive:
            _ports(node.here, port, found)
        return found


def _ports(paths: dict[int, _Path], port: int, found: list[_Path]) -> None:
    found += [paths[key] for key in (port, 0) if key in paths]
