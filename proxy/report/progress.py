"""A bar for work that takes longer than a second, on a terminal's standard error; nothing anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from proxy.report.terminal import width

PATIENCE_S = 1.0
EVERY_S = 0.1
BAR = 24


class Progress:
    """A context manager. `tell(done, total)` as often as it pleases; the bar is gone at the end."""

    def __init__(self, what: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._stream = stream or sys.stderr
        self._clock = clock
        self._due_s = clock() + PATIENCE_S
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def tell(self, done: int, total: int) -> None:
        """So much of so much is done."""
        now_s = self._clock()
        if now_s < self._due_s or not self._stream.isatty():
            return
        self._due_s, self._shown = now_s + EVERY_S, True
        self._stream.write("\r" + bar(self._what, done, total)[: width(self._stream) - 1] + "\x1b[K")
        self._stream.flush()


def bar(what: str, done: int, total: int) -> str:
    """The line, such as `verifying ########---------------- 33 % 4,000 of 12,000`."""
    part = done / total if total else 1.0
    filled = int(part * BAR)
    return f"{what} {'#' * filled}{'-' * (BAR - filled)} {int(part * 100)} % {done:,} of {total:,}"
