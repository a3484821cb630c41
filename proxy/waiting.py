"""The waiting room: calls that wait until an entry of the state changes. First come, first served.

Who waits for an entry is asked again in the very step in which it changes, in the order of arrival. So nobody who
comes later gets in between: what has become free goes to the one that has waited longest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count

type Entry = tuple[str, str]
"""An entry of the state: the guard whose table it is in, and its key there."""


class Waiter:
    """One call that waits. `ask` decides it again, and must not raise; `moved` is set whenever that has been done."""

    def __init__(self, ask: Callable[[], None] = lambda: None) -> None:
        self.ask = ask
        self.moved = asyncio.Event()
        self.on: tuple[Entry, ...] = ()
        self.number = 0


class WaitingRoom:
    """Who waits for what. Belongs to one event loop; nothing here waits itself."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._waiters: dict[int, Waiter] = {}
        self._on: dict[Entry, set[int]] = {}
        self._called: list[int] = []
        self._calling = False

    def sit(self, waiter: Waiter, on: tuple[Entry, ...]) -> None:
        """`waiter` waits for `on` now. One that waited already keeps its place in the order of arrival."""
        self._rise(waiter)
        waiter.number = waiter.number or next(self._numbers)
        waiter.on = on
        self._waiters[waiter.number] = waiter
        for entry in on:
            self._on.setdefault(entry, set()).add(waiter.number)

    def leave(self, waiter: Waiter) -> None:
        """`waiter` waits no more. Nothing happens when it did not."""
        self._rise(waiter)
        self._waiters.pop(waiter.number, None)

    def _rise(self, waiter: Waiter) -> None:
        for entry in waiter.on:
            numbers = self._on.get(entry, set())
            numbers.discard(waiter.number)
            if not numbers:
                self._on.pop(entry, None)
        waiter.on = ()

    def crowd(self, entry: Entry) -> int:
        """How many wait for `entry`."""
        return len(self._on.get(entry, ()))

    def call(self, entries: Iterable[Entry]) -> None:
        """These entries have changed: ask those who wait for them."""
        if self._on:
            self._ask({number for entry in entries for number in self._on.get(entry, ())})

    def call_all(self) -> None:
        """Something has changed that may concern anybody: the rules, or what a person said."""
        self._ask(self._waiters)

    def _ask(self, numbers: Iterable[int]) -> None:
        """Ask these, the longest waiting first. Whom their answers concern is asked as well, in the same order."""
        for number in numbers:
            heappush(self._called, number)
        if self._calling:
            return
        self._calling = True
        try:
            last = 0
            while self._called:
                number = heappop(self._called)
                waiter = self._waiters.get(number)
                if waiter is not None and number != last:
                    waiter.ask()
                    waiter.moved.set()
                last = number
        finally:
            self._calling = False


async def first_of(one: asyncio.Event, other: asyncio.Event, timeout_s: float) -> None:
    """Return when one of the two events is set, or after `timeout_s`."""
    waits = {asyncio.ensure_future(event.wait()) for event in {one, other}}
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
