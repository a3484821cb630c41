"""What a match may say beside its pattern about the message of a protocol."""

from __future__ import annotations

from typing import Protocol

from rules.call import Call


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

    def fits(self, call: Call) -> bool | None:
        """Does the message ask for this? None: it can not be told.

        Raises `ConditionError` where the message contradicts itself.
        """


PLAIN_RANK = (3, 0)
"""Behind everything that says something."""


def rank_of(glob: str) -> tuple[int, int]:
    """A name comes before a glob, and the longer glob before the shorter."""
    return (0, 0) if "*" not in glob else (1, -len(glob.replace("*", "")))
