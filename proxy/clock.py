"""The one clock: never goes back, not even over a restart. Everything that decides takes its time from here."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """`now = max(last recorded, wall clock)`, in integer nanoseconds since the epoch.

    A wall clock that is set back therefore frees no quota. `wall_ns` is injected by tests.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self._last_ns = 0

    def now_ns(self) -> int:
        """The present moment; equal to or later than every moment given or `advance`d to before."""
        wall_ns = self._wall_ns()
        if wall_ns > self._last_ns:
            self._last_ns = wall_ns
        return self._last_ns

    def advance(self, recorded_ns: int) -> None:
        """Never be earlier than `recorded_ns`: the ledger has an entry of that moment."""
        if recorded_ns > self._last_ns:
            self._last_ns = recorded_ns
