"""Three ways to count calls over time, for the throttle: stamps, slices and a pace.

All times are integers of nanoseconds. A counter answers one question, `place`: the earliest time, from a given one on,
at which one more call fits. Places in the future are taken by calls that wait; calls added later fit in around them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Protocol

import msgspec

from rules.state import SetBack

SLICES = 100
"""A window counted in slices is cut into so many."""


class Rate(msgspec.Struct, frozen=True):
    """At most `quota` calls in any `window_ns`; as a pace, evenly spaced but for `burst` at once (0: no pace)."""

    quota: int
    window_ns: int
    burst: int = 0


class Counter(Protocol):
    """What one key of one throttle has admitted."""

    def place(self, rate: Rate, at_ns: int) -> int:
        """The earliest time from `at_ns` on at which one more call fits."""

    def waiting(self, rate: Rate, now_ns: int) -> int:
        """How many calls have a place after `now_ns`."""

    def add(self, rate: Rate, at_ns: int) -> None:
        """One more call, at the place `at_ns`."""

    def give_back(self, rate: Rate, at_ns: int) -> None:
        """The call at the place `at_ns` was never sent."""

    def forget(self, rate: Rate, now_ns: int) -> None:
        """Drop what no window from `now_ns` on can hold."""

    def due_ns(self, rate: Rate) -> int:
        """When it is as good as new: from then on it can be forgotten."""

    def set_back(self, rate: Rate, clock: SetBack) -> None:
        """Put its calls where they stand now."""


class Stamps(msgspec.Struct, tag=True):
    """An exact sliding window: the times of its calls, sorted. Never more than the quota; refuses nothing that fits.

    Windows are half open: a call exactly one window after another is no longer in one window with it.
    """

    stamps: list[int] = []

    def place(self, rate: Rate, at_ns: int) -> int:
        stamps, quota = self.stamps, rate.quota
        while True:
            index = bisect_right(stamps, at_ns)
            # each `quota` stamps in a row, next to which the call would stand, must with it span the window
            for first in range(max(0, index - quota), min(index, len(stamps) - quota) + 1):
                last = first + quota - 1
                if max(at_ns, stamps[last]) - min(at_ns, stamps[first]) < rate.window_ns:
                    # when all have gone before, the first has to leave the window; else pass the next that waits
                    at_ns = stamps[first] + rate.window_ns if last < index else stamps[index]
                    break
            else:
                return at_ns

    def waiting(self, rate: Rate, now_ns: int) -> int:
        return len(self.stamps) - bisect_right(self.stamps, now_ns)

    def add(self, rate: Rate, at_ns: int) -> None:
        insort(self.stamps, at_ns)

    def give_back(self, rate: Rate, at_ns: int) -> None:
        index = bisect_left(self.stamps, at_ns)
        if index < len(self.stamps) and self.stamps[index] == at_ns:
            del self.stamps[index]

    def forget(self, rate: Rate, now_ns: int) -> None:
        over = bisect_right(self.stamps, now_ns - rate.window_ns)
        if over:
            del self.stamps[:over]

    def due_ns(self, rate: Rate) -> int:
        return self.stamps[-1] + rate.window_ns if self.stamps else 0

    def set_back(self, rate: Rate, clock: SetBack) -> None:
        self.stamps = [clock.moved(stamp) for stamp in self.stamps]


class Slices(msgspec.Struct, tag=True):
    """A sliding window for large quotas: how many calls each hundredth of it holds, by the number of the slice.

    Any window lies within `SLICES` + 1 slices, and these never hold more than the quota. So it admits no more than
    exact counting would, but a place becomes free up to one slice, 1 % of the window, later.
    """

    slices: dict[int, int] = {}

    def place(self, rate: Rate, at_ns: int) -> int:
        if sum(self.slices.values()) < rate.quota:  # all of them, whenever that was, leave room: the usual case
            return at_ns
        width_ns = _width_ns(rate)
        number = at_ns // width_ns
        while self._most(number) >= rate.quota:
            number += 1
        return max(at_ns, number * width_ns)

    def _most(self, number: int) -> int:
        """The most calls in any stretch of slices that holds slice `number`."""
        ends = [number, *[later for later in self.slices if number < later <= number + SLICES]]
        return max(sum([count for n, count in self.slices.items() if end - SLICES <= n <= end]) for end in ends)

    def waiting(self, rate: Rate, now_ns: int) -> int:
        now = now_ns // _width_ns(rate)
        return sum([count for number, count in self.slices.items() if number > now])

    def add(self, rate: Rate, at_ns: int) -> None:
        number = at_ns // _width_ns(rate)
        self.slices[number] = self.slices.get(number, 0) + 1

    def give_back(self, rate: Rate, at_ns: int) -> None:
        number = at_ns // _width_ns(rate)
        left = self.slices.pop(number, 0) - 1
        if left > 0:
            self.slices[number] = left

    def forget(self, rate: Rate, now_ns: int) -> None:
        oldest = now_ns // _width_ns(rate) - SLICES
        if self.slices and min(self.slices) < oldest:
            for number in [number for number in self.slices if number < oldest]:
                del self.slices[number]

    def due_ns(self, rate: Rate) -> int:
        return (max(self.slices) + SLICES + 1) * _width_ns(rate) if self.slices else 0

    def set_back(self, rate: Rate, clock: SetBack) -> None:
        width_ns = _width_ns(rate)
        slices, self.slices = self.slices, {}
        for number, count in slices.items():
            latest_ns = (number + 1) * width_ns - 1  # of its calls: nobody knows where in their slice they are
            if number * width_ns <= clock.from_ns:
                latest_ns = min(latest_ns, clock.from_ns)
            moved = clock.moved(latest_ns) // width_ns
            self.slices[moved] = self.slices.get(moved, 0) + count


def _width_ns(rate: Rate) -> int:
    return -(-rate.window_ns // SLICES)


class Pace(msgspec.Struct, tag=True):
    """GCRA, ITU-T I.371: one theoretical arrival time, in nanoseconds times the quota so that it is an integer."""

    arrival: int = 0

    def place(self, rate: Rate, at_ns: int) -> int:
        return max(at_ns, -(-(self.arrival - (rate.burst - 1) * rate.window_ns) // rate.quota))

    def waiting(self, rate: Rate, now_ns: int) -> int:
        return max(0, -(-(self.arrival - now_ns * rate.quota) // rate.window_ns) - rate.burst)

    def add(self, rate: Rate, at_ns: int) -> None:
        self.arrival = max(self.arrival, at_ns * rate.quota) + rate.window_ns

    def give_back(self, rate: Rate, at_ns: int) -> None:
        """Only the latest place comes back: the calls behind an earlier one keep their places, and their distance."""
        latest_ns = max(-(-(self.arrival - rate.burst * rate.window_ns) // rate.quota), 0)
        if at_ns >= latest_ns:
            self.arrival -= rate.window_ns

    def forget(self, rate: Rate, now_ns: int) -> None:
        """Nothing: it is one number."""

    def due_ns(self, rate: Rate) -> int:
        return -(-self.arrival // rate.quota)

    def set_back(self, rate: Rate, clock: SetBack) -> None:
        scaled = SetBack(clock.from_ns * rate.quota, clock.to_ns * rate.quota)
        self.arrival = scaled.moved(self.arrival)
