"""The one clock: it never goes back but by a recorded command. Everything that decides takes its time from here."""

from __future__ import annotations

import time
from collections.abc import Callable

from rules.state import SetBack

TOLERATED_NS = 60_000_000_000
"""A wall clock that is farther behind than this is worth a word: steps of a second or two are everyday business."""


class Clock:
    """`now = max(last recorded, wall clock)`, in integer nanoseconds since the epoch.

    A wall clock that is set back therefore frees no quota. One that had run ahead by mistake would stop time until it
    has come as far again; `set_back` mends that. `wall_ns` is injected by tests.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self._last_ns = 0
        self._set_back: list[SetBack] = []

    def now_ns(self) -> int:
        """The present moment; equal to or later than every moment given or `advance`d to since it was `set_back`."""
        wall_ns = self._wall_ns()
        if wall_ns > self._last_ns:
            self._last_ns = wall_ns
        return self._last_ns

    def advance(self, recorded_ns: int) -> None:
        """Never be earlier than `recorded_ns`: the ledger has an entry of that moment."""
        if recorded_ns > self._last_ns:
            self._last_ns = recorded_ns

    def behind_ns(self) -> int:
        """How far the wall clock is behind; time stands still for so long."""
        return self.now_ns() - self._wall_ns()

    def behind(self) -> SetBack | None:
        """What setting it to the wall clock would be; None when that is not behind."""
        back = SetBack(self.now_ns(), self._wall_ns())
        return back if back.to_ns < back.from_ns else None

    def set_back(self, back: SetBack) -> None:
        """Go on from `back.to_ns`: a person has accepted that, and it is on record."""
        self._last_ns = back.to_ns
        self._set_back.append(back)

    @property
    def times_set_back(self) -> int:
        """How often it was set back: what a moment has to be kept with, to be told later by `moved`."""
        return len(self._set_back)

    def moved(self, at_ns: int, times: int) -> int:
        """Where the moment `at_ns` stands now, that was told when the clock had been set back so many `times`."""
        for back in self._set_back[times:]:
            at_ns = back.moved(at_ns)
        return at_ns
