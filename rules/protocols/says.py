"""What a match may say beside its pattern about the message of a protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from rules.call import Call


class Asking:
    """What the message of `call` asks for, read once: a hundred tools may share one address."""

    __slots__ = ("_found", "call")

    def __init__(self, call: Call) -> None:
        self.call = call
        self._found: dict[Callable[[Call], object], object] = {}

    def read[T](self, reader: Callable[[Call], T]) -> T:
        """What `reader` finds in the call. Raises what it raises."""
        if reader not in self._found:
            self._found[reader] = reader(self.call)
        return cast(T, self._found[reader])


class Says(Protocol):
    """One such saying, parsed. `text`: its normal spelling, with the word. `reads_only`: what it names changes nothing.

    `rank`: of two that fit a call, the lesser is the more specific. `has_arguments`: what it names takes arguments, the
    fields `args.*`. `in_query`: the query parameters that are part of a message.
    """

    @property
    def text(self) -> str: ...

    @property
    def rank(self) -> tuple[int, int]: ...

    @property
    def reads_only(self) -> bool: ...

    @property
    def has_arguments(self) -> bool: ...

    @property
    def in_query(self) -> frozenset[str]: ...

    def fits(self, asking: Asking) -> bool | None:
        """Does the message ask for this? None: it can not be told.

        Raises `ConditionError` where the message contradicts itself.
        """


PLAIN_RANK = (3, 0)
"""Behind everything that says something."""


def rank_of(glob: str) -> tuple[int, int]:
    """A name comes before a glob, and the longer glob before the shorter."""
    return (0, 0) if "*" not in glob else (1, -len(glob.replace("*", "")))
