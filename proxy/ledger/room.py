"""How much room a ledger has, and what has to be given up for it. Decides only: the ledger acts.

Two bounds: for `keep` what calls were decided by (their payloads) is kept; up to `max_size` the file may grow. Well
before that, the oldest payloads are given up, a tenth at a time; all of them before anything is refused. Entries never
are: when there are no payloads left to give up, calls are refused.
"""

from __future__ import annotations

from rules.ruleset import Bounds

NO_BOUNDS = Bounds()

FULL_FROM = 85
"""From this percentage on, payloads are given up for room."""

NEAR_FROM = 95
"""From this percentage on, that has not been enough: people are told."""

LEAST = 1_000
"""So many payloads are given up at once, at least: each time is an entry, and takes room as well."""


class Room:
    """The room of one ledger. `used_bytes`: what its file holds; what was deleted in it is free again."""

    def __init__(self, bounds: Bounds = NO_BOUNDS, used_bytes: int = 0) -> None:
        self.bounds = bounds
        self.used_bytes = used_bytes

    @property
    def full(self) -> bool:
        """Whether nothing may be decided any more, since its entry would have no room."""
        return 0 < self.bounds.max_bytes <= self.used_bytes

    @property
    def near(self) -> bool:
        """Whether it will be full some day soon."""
        return self._has(NEAR_FROM)

    def through(self, sealed: int, pruned: int) -> int:
        """Up to which entry payloads have to be given up for room; 0 for nothing.

        `sealed`: those up to this entry may be; `pruned`: those up to this one were.
        """
        left = sealed - pruned
        if left <= 0 or not self._has(FULL_FROM):
            return 0
        return sealed if self.full else pruned + min(left, max(LEAST, left // 10))

    def _has(self, percentage: int) -> bool:
        return 0 < self.bounds.max_bytes * percentage <= self.used_bytes * 100
